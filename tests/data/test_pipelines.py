"""Pipeline: contents by hand, determinism, and one and the same batch from every front end and backend."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kerasvision import data
from kerasvision.ops.resizing import ResizeRule

STRETCH = ResizeRule("stretch", size_hw=(16, 24))
FRAMEWORKS = ("tf", "pydataset")


class Numbered(data.Dataset):
    """Sample i is an image of grey i with i % 3 boxes and a mask of class i % 2."""

    name = "numbered"
    tasks = frozenset({"detection", "segmentation"})
    classes = ("a", "b")
    mask_classes = ("zero", "one")

    def __init__(self, count=7, size_hw=(8, 12)):
        self.sizes = [size_hw] * count
        self.reads = 0

    def __len__(self):
        return len(self.sizes)

    def sample_name(self, index):
        return f"sample {index}"

    def __getitem__(self, index):
        self.reads += 1
        size_hw, count = self.sizes[index], index % 3
        return data.Sample(
            f"sample {index}",
            np.full((*size_hw, 3), index, np.uint8),
            np.float32([[1, 2, 5, 6]] * count).reshape(-1, 4),
            np.arange(count, dtype=np.int32),
            np.arange(count) == 1,
            np.full(size_hw, index % 2, np.uint8),
        )


def as_numpy(batch):
    if isinstance(batch, dict):
        return {key: as_numpy(value) for key, value in batch.items()}
    if isinstance(batch, tuple):
        return tuple(as_numpy(value) for value in batch)
    return np.asarray(batch)


def flat(batch):
    if isinstance(batch, dict):
        return [leaf for key in sorted(batch) for leaf in flat(batch[key])]
    if isinstance(batch, tuple):
        return [leaf for value in batch for leaf in flat(value)]
    return [batch]


def build(dataset=None, **options):
    options = {"task": "detection", "resize": STRETCH, "batch_size": 2, **options}
    return data.pipeline(Numbered() if dataset is None else dataset, **options)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_pipeline_detection_element_by_hand(framework):
    pipeline = build(framework=framework, max_boxes=3, batch_size=3)
    images, targets = as_numpy(next(iter(pipeline)))
    assert images.shape == (3, 16, 24, 3)
    assert images.dtype == np.float32
    assert [images[i].mean() for i in range(3)] == [0, 1, 2]
    # 8×12 to 16×24 doubles [1, 2, 5, 6].
    assert targets["boxes"][1].tolist() == [[2, 4, 10, 12], [0] * 4, [0] * 4]
    assert targets["labels"].tolist() == [[-1, -1, -1], [0, -1, -1], [0, 1, -1]]
    assert targets["ignored"].tolist() == [[False] * 3, [False] * 3, [False, True, False]]
    assert targets["boxes"].dtype == np.float32
    assert targets["labels"].dtype == np.int32
    assert targets["ignored"].dtype == bool


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_pipeline_evaluation_keeps_order_and_last_short_batch(framework):
    pipeline = build(framework=framework)
    assert len(pipeline) == int(pipeline.cardinality()) == 4
    for _ in range(2):
        greys = [as_numpy(images)[:, 0, 0, 0].tolist() for images, _ in pipeline]
        assert greys == [[0, 1], [2, 3], [4, 5], [6]]
    assert pipeline.batch_names(0, 3) == ["sample 6"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_pipeline_training_reshuffles_each_epoch_and_names_agree(framework):
    pipeline = build(framework=framework, training=True, seed=3)
    assert len(pipeline) == 3
    orders = []
    for epoch in range(3):
        greys = [as_numpy(images)[:, 0, 0, 0].astype(int).tolist() for images, _ in pipeline]
        names = [[int(name.split()[1]) for name in pipeline.batch_names(epoch, step)] for step in range(3)]
        assert greys == names
        orders.append([grey for batch in greys for grey in batch])
        assert len(set(orders[-1])) == 6
    assert orders[0] != orders[1] != orders[2]
    again = build(framework=framework, training=True, seed=3)
    again.set_epoch(2)
    assert [grey for images, _ in again for grey in as_numpy(images)[:, 0, 0, 0]] == orders[2]
    other = build(framework=framework, training=True, seed=4)
    assert [other.batch_names(0, step) for step in range(3)] != [again.batch_names(0, s) for s in range(3)]


@pytest.mark.parametrize("task", ["detection", "segmentation"])
@pytest.mark.parametrize("rule", [STRETCH, ResizeRule("letterbox", size_hw=(20, 20)), ResizeRule()])
@pytest.mark.parametrize("augment", [None, data.Augmentation(colour=0.8)])
def test_pipeline_front_ends_give_identical_batches(task, rule, augment):
    dataset = Numbered(6)
    dataset.sizes[3] = (9, 7)
    options = {"task": task, "resize": rule, "training": True, "augment": augment, "seed": 5}
    pipelines = [
        build(dataset, **options, framework="tf", workers=3),
        build(dataset, **options, framework="pydataset", workers=3, cache=True),
        build(dataset, **options, framework="pydataset", workers=0),
    ]
    for _ in range(2):
        for batches in zip(*pipelines, strict=True):
            first, *others = (flat(as_numpy(batch)) for batch in batches)
            for other in others:
                assert len(first) == len(other)
                for left, right in zip(first, other, strict=True):
                    assert left.dtype == right.dtype
                    np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_pipeline_letterbox_states_valid_region_and_pads_masks_with_ignore(framework):
    rule = ResizeRule("letterbox", size_hw=(20, 20))  # 8×12 by 5/3: 13×20
    inputs, targets = as_numpy(next(iter(build(framework=framework, resize=rule, batch_size=3))))
    assert inputs["sizes_hw"].tolist() == [[13, 20]] * 3
    assert inputs["images"].shape == (3, 20, 20, 3)
    assert (inputs["images"][1, :13] == 1).all()
    assert not inputs["images"][1, 13:].any()
    np.testing.assert_allclose(targets["boxes"][1, 0], [1 * 20 / 12, 2 * 13 / 8, 5 * 20 / 12, 6 * 13 / 8], rtol=1e-6)
    inputs, masks = as_numpy(next(iter(build(framework=framework, resize=rule, task="segmentation"))))
    assert inputs["images"].shape == (2, 20, 20, 3)
    assert inputs["sizes_hw"].tolist() == [[13, 20]] * 2
    assert inputs["sizes_hw"].dtype == np.int32
    assert masks.dtype == np.int32
    assert (masks[1, :13] == 1).all()
    assert (masks[1, 13:] == 255).all()


def test_pipeline_unequal_images_are_padded_to_multiples_of_32():
    dataset = Numbered(2, (40, 30))
    dataset.sizes[1] = (33, 70)
    inputs, _ = next(iter(build(dataset, resize=ResizeRule(), framework="pydataset")))
    assert inputs["images"].shape == (2, 64, 96, 3)
    assert inputs["sizes_hw"].tolist() == [[40, 30], [33, 70]]


def test_pipeline_tf_shapes_are_static_when_training():
    images, targets = build(framework="tf", training=True, max_boxes=5).element_spec
    assert images.shape == (2, 16, 24, 3)
    assert targets["boxes"].shape == (2, 5, 4)
    images, _ = build(framework="tf", resize=ResizeRule(), training=True).element_spec
    assert images["images"].shape.as_list() == [2, None, None, 3]


def test_pipeline_smaller_than_a_batch_is_one_short_batch():
    pipeline = build(Numbered(3), batch_size=8, training=True, framework="pydataset")
    assert len(pipeline) == 1
    assert len(pipeline[0][0]) == 3


def test_pipeline_cache_reads_each_sample_once():
    dataset = Numbered()
    pipeline = build(dataset, cache=True, framework="pydataset", workers=0)
    for _ in range(3):
        list(pipeline)
    assert dataset.reads == 7


def test_pipeline_max_boxes_defaults_to_the_data_sets():
    dataset = Numbered()
    assert next(iter(build(dataset, framework="pydataset")))[1]["boxes"].shape == (2, 100, 4)
    dataset.max_boxes = 2
    assert next(iter(build(dataset, framework="pydataset")))[1]["boxes"].shape == (2, 2, 4)


@pytest.mark.parametrize("workers", [0, 2])
def test_pipeline_more_boxes_than_max_boxes_names_the_sample(workers):
    pipeline = build(max_boxes=1, framework="pydataset", workers=workers)
    with pytest.raises(ValueError, match="`max_boxes` 1 is below the 2 boxes of sample 2; pass max_boxes=2"):
        list(pipeline)
    assert str(pipeline.failure).startswith("`max_boxes` 1 is below")


def test_pipeline_error_in_tf_carries_the_message():
    import tensorflow as tf

    pipeline = build(max_boxes=1, framework="tf")
    with pytest.raises(tf.errors.OpError, match="`max_boxes` 1 is below the 2 boxes of sample 2"):
        list(pipeline)
    assert isinstance(pipeline.failure, ValueError)
    assert str(pipeline.failure).startswith("`max_boxes` 1 is below")


def test_pipeline_sample_without_mask_or_with_another_size_is_named():
    class Odd(Numbered):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return replace(sample, mask=None if index else sample.mask[:4])

    pipeline = build(Odd(), task="segmentation", batch_size=1, framework="pydataset", workers=0)
    with pytest.raises(ValueError, match=r"sample 0: mask \(4, 12\) and image \(8, 12\) differ"):
        pipeline[0]
    with pytest.raises(ValueError, match="sample 1: has no mask"):
        pipeline[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "classify"}, "`task` 'classify' is unknown"),
        ({"batch_size": 0}, "`batch_size` 0 must be a positive integer"),
        ({"augment": data.Augmentation()}, "`augment` is given but training=False"),
        ({"seed": -1}, "`seed` -1 must not be negative"),
        ({"framework": "torch"}, "`framework` 'torch' is unknown"),
        ({"workers": -1}, "`workers` -1 must not be negative"),
        ({"batch_size": 9, "drop_remainder": True}, "above the 7 samples of 'numbered'"),
    ],
)
def test_pipeline_wrong_argument_names_it(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_pipeline_task_without_annotations_and_empty_data_set_are_refused():
    dataset = Numbered()
    dataset.tasks = frozenset({"detection"})
    with pytest.raises(ValueError, match=r"'numbered' has annotations for \['detection'\] only"):
        build(dataset, task="segmentation")
    with pytest.raises(ValueError, match="'numbered' has no samples"):
        build(Numbered(0))


FIT = """
import sys
import numpy as np, keras
sys.path.insert(0, {here!r})
from test_pipelines import Numbered, build
class Model(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
    def call(self, images):
        return self.dense(keras.ops.mean(images, axis=(1, 2)))
    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        return keras.ops.mean(y_pred**2) + keras.ops.mean(y["boxes"]) * 0
class Watch(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        train.set_epoch(epoch)
train = build(Numbered(24), training=True, seed=1, batch_size=4, workers=1)
val = build(Numbered(5))
model = Model()
model.compile(optimizer="sgd", run_eagerly=False)
history = model.fit(train, validation_data=val, epochs=2, verbose=0, callbacks=[Watch()] if {watch} else [])
model.predict(val, verbose=0)
assert len(history.history["loss"]) == 2 and np.isfinite(history.history["val_loss"]).all(), history.history
print("TYPE", type(train).__mro__[-2].__name__, keras.backend.backend(), "tensorflow" in sys.modules)
# What the next iteration yields says which epoch the counter has come to.
first = np.asarray(next(iter(train))[0])[:, 0, 0, 0].astype(int).tolist()
print("NEXT", first == [int(n.split()[1]) for n in train.batch_names(2, 0)])
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
@pytest.mark.parametrize("watch", [False, True])
def test_pipeline_feeds_fit_and_counts_epochs_on_every_backend(backend, watch, tmp_path):
    if backend != "tensorflow":
        pytest.importorskip(backend)
    root = Path(data.__file__).parents[2]
    script = FIT.format(here=os.path.dirname(__file__), watch=watch)
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "NEXT True" in done.stdout
    # Under JAX and PyTorch nothing imports TensorFlow on the pipeline's behalf.
    if backend == "jax":
        assert "jax False" in done.stdout


def test_importing_data_imports_nothing_heavy():
    root = Path(data.__file__).parents[2]
    heavy = "{'tensorflow', 'keras', 'cv2', 'albumentations', 'PIL', 'matplotlib', 'tensorflow_datasets'}"
    script = f"import sys, kerasvision.data; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"


# --- weights of pixels


class WithInstances(Numbered):
    """Sample i has one object, its first i + 1 columns."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        instances = np.zeros(sample.size_hw, np.int32)
        instances[:, : index + 1] = 1
        boxes = np.float32([[0, 0, index + 1, sample.size_hw[0]]])
        one = {"labels": np.zeros(1, np.int32), "ignored": np.zeros(1, bool)}
        return replace(sample, boxes=boxes, instances=instances, **one)


def _twice(instances):
    return 2.0 * (instances > 0)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("cache", [False, True])
def test_pipeline_pixel_weights_are_made_at_the_networks_scale(framework, cache):
    rule = ResizeRule("letterbox", size_hw=(20, 24))  # 8 x 12 becomes 16 x 24, with 4 rows of padding
    pipeline = build(
        WithInstances(2), task="segmentation", resize=rule, pixel_weights=_twice, framework=framework, cache=cache
    )
    for _ in range(2):
        ((_, masks, weights),) = as_numpy(tuple(pipeline))
        assert weights.shape == masks.shape == (2, 20, 24) and weights.dtype == np.float32
        for index in range(2):
            expected = np.zeros((20, 24))
            expected[:16, : 2 * (index + 1)] = 2
            np.testing.assert_array_equal(weights[index], expected)


def test_pipeline_pixel_weights_follow_augmentation():
    dataset = WithInstances(1)
    augment = data.Augmentation(scale=(1, 1), colour=0)
    seen = set()
    for seed in range(6):
        options = {"task": "segmentation", "batch_size": 1, "resize": ResizeRule(), "framework": "pydataset"}
        ((_, _, weights),) = build(dataset, training=True, augment=augment, seed=seed, pixel_weights=_twice, **options)
        columns = tuple(np.nonzero(weights[0].any(axis=0))[0])
        assert columns in ((0,), (11,))
        seen.add(columns)
    assert len(seen) == 2  # flipped and not


def test_pipeline_pixel_weights_of_streets_have_its_instances():
    streets = data.load("streets", split="test")
    options = {"task": "segmentation", "resize": ResizeRule(), "batch_size": 1, "framework": "pydataset"}
    _, _, weights = build(streets, pixel_weights=lambda instances: instances, **options)[0]
    np.testing.assert_array_equal(weights[0], streets[0].instances)


def test_pipeline_pixel_weights_that_cannot_be_made_say_why():
    with pytest.raises(ValueError, match="`pixel_weights` are for task='segmentation', not 'detection'"):
        build(pixel_weights=_twice)
    options = {"task": "segmentation", "framework": "pydataset", "workers": 0}
    with pytest.raises(ValueError, match="sample 0: has no instance ids, of which `pixel_weights` are made"):
        build(pixel_weights=_twice, **options)[0]
    with pytest.raises(ValueError, match=r"sample 0: `pixel_weights` made weights of shape \(12,\) of .* \(16, 24\)"):
        build(WithInstances(2), pixel_weights=lambda instances: np.zeros(12), **options)[0]

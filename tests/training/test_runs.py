"""`train`: what it writes, what it refuses, and that a killed run goes on as if nothing had happened."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.data.streets import Streets
from kerasvision.models.base import Detector
from kerasvision.training import CheckpointError, load_checkpoint, load_model, train

OPTIONS = {"batch_size": 4, "verbose": 0, "max_boxes": 40}


class _KillAt(keras.callbacks.Callback):
    """Interrupt training in the middle of an epoch, as Ctrl-C does."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch, self.now = epoch, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.epoch:
            raise KeyboardInterrupt


def test_train_writes_checkpoint_models_and_history(make_model, scenes, unseen, tmp_path):
    model = make_model()
    history = train(model, scenes, unseen, epochs=2, run_dir=tmp_path / "a" / "run", **OPTIONS)
    files = {path.name for path in (tmp_path / "a" / "run").iterdir()}
    assert files == {"last.safetensors", "best.keras", "final.keras", "history.json"}
    figure = "val_AP" if isinstance(model, Detector) else "val_mIoU"
    assert {"loss", "val_loss", figure, *model.loss_names} <= set(history)
    assert all(len(values) == 2 for values in history.values())
    written = json.loads((tmp_path / "a" / "run" / "history.json").read_text())
    assert written.keys() == history.keys()
    assert written["loss"] == history["loss"]
    final = load_model(tmp_path / "a" / "run" / "final.keras")
    image = scenes[0].image[None]
    for mine, theirs in zip(keras.tree.flatten(final(image)), keras.tree.flatten(model(image)), strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(mine), ops.convert_to_numpy(theirs), atol=1e-5)
    assert model.class_names == (scenes.classes if isinstance(model, Detector) else scenes.mask_classes)
    assert final.class_names == model.class_names


def test_train_best_model_has_the_best_figure(make_segmenter, scenes, unseen, tmp_path):
    history = train(make_segmenter(), scenes, unseen, epochs=3, run_dir=tmp_path, **OPTIONS)
    best = load_model(tmp_path / "best.keras")
    masks = np.stack([sample.mask for sample in unseen]).astype(np.int32)
    images = np.stack([sample.image for sample in unseen]).astype(np.float32)
    result = best.evaluate(images, masks, verbose=0, return_dict=True)
    assert float(result["mIoU"]) == pytest.approx(max(history["val_mIoU"]), abs=1e-4)


def test_train_resumed_after_a_kill_equals_an_uninterrupted_run(make_model, scenes, unseen, tmp_path):
    whole = make_model()
    expected = train(whole, scenes, unseen, epochs=4, run_dir=tmp_path / "whole", **OPTIONS)

    killed = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        train(make_model(), scenes, unseen, epochs=4, run_dir=killed, callbacks=[_KillAt(2)], **OPTIONS)
    resumed = make_model(seed=1)  # other random weights: everything must come from the checkpoint
    history = train(resumed, scenes, unseen, epochs=4, run_dir=killed, resume=True, **OPTIONS)

    assert history.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
    for mine, theirs in zip(resumed.variables, whole.variables, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(mine), ops.convert_to_numpy(theirs), rtol=1e-5, atol=1e-5, err_msg=mine.path
        )
    assert int(resumed.optimizer.iterations) == int(whole.optimizer.iterations) == 8


def test_train_resumed_when_done_changes_nothing(make_segmenter, scenes, tmp_path):
    model = make_segmenter()
    expected = train(model, scenes, epochs=1, run_dir=tmp_path, **OPTIONS)
    again = make_segmenter(seed=1)
    history = train(again, scenes, epochs=1, run_dir=tmp_path, resume=True, **OPTIONS)
    assert history == expected
    for mine, theirs in zip(again.variables, model.variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(mine), ops.convert_to_numpy(theirs))


def test_train_into_a_used_directory_is_refused(make_segmenter, scenes, tmp_path):
    (tmp_path / "last.safetensors").write_bytes(b"precious")
    with pytest.raises(ValueError, match=r"`run_dir` .* already holds a run; pass resume=True"):
        train(make_segmenter(), scenes, epochs=1, run_dir=tmp_path, **OPTIONS)
    assert (tmp_path / "last.safetensors").read_bytes() == b"precious"


def test_train_resume_without_a_checkpoint_says_so(make_segmenter, scenes, tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*; start without resume"):
        train(make_segmenter(), scenes, epochs=1, run_dir=tmp_path, resume=True, **OPTIONS)


def test_train_other_number_of_classes_names_both(scenes, tmp_path):
    from kerasvision.models.unet import unet_resnet10

    with pytest.raises(ValueError, match=r"tells 3 classes apart, but 'streets.*' has 14 .*num_classes=14"):
        train(unet_resnet10(3), scenes, epochs=1, run_dir=tmp_path / "run", **OPTIONS)
    assert not (tmp_path / "run").exists()


def test_train_other_class_names_are_refused(make_detector, scenes, tmp_path):
    model = make_detector(class_names=tuple("abcdefg"))
    with pytest.raises(ValueError, match="was made for the classes a, b, c, d, e"):
        train(model, scenes, epochs=1, run_dir=tmp_path, **OPTIONS)


def test_train_non_finite_loss_names_loss_step_and_samples(make_segmenter, scenes, tmp_path):
    from kerasvision.training import NonFiniteLossError

    model = make_segmenter()
    model.compile(optimizer=keras.optimizers.SGD(1e30))
    with pytest.raises(NonFiniteLossError, match=r"loss = .*epoch 1, step [12]; the batch holds streets/train/0000\d"):
        train(model, scenes, epochs=3, run_dir=tmp_path, **OPTIONS)
    assert not (tmp_path / "final.keras").exists()


def test_train_without_validation_keeps_the_lowest_loss(make_segmenter, scenes, tmp_path):
    history = train(make_segmenter(), scenes, epochs=1, run_dir=tmp_path, augment=False, **OPTIONS)
    assert "val_loss" not in history
    assert (tmp_path / "best.keras").exists()


def test_checkpoint_of_a_run_tells_where_it_stands(make_segmenter, scenes, tmp_path):
    model = make_segmenter()
    history = train(model, scenes, epochs=2, run_dir=tmp_path, **OPTIONS)
    state = load_checkpoint(tmp_path / "last.safetensors", model)
    assert state["epoch"] == 2
    assert state["history"] == history
    assert state["extra"] == {"seed": 0, "epochs": 2}


def test_load_model_of_no_model_says_what_came(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        load_model(tmp_path / "none.keras")
    (tmp_path / "broken.keras").write_bytes(b"PK no archive")
    with pytest.raises(ValueError, match=r"broken\.keras.* cannot be loaded as a Keras model"):
        load_model(tmp_path / "broken.keras")


def test_scenes_shuffle_by_epoch_not_by_call():
    """The ground that resuming stands on: batch names are a function of seed and epoch."""
    from kerasvision.data import pipeline
    from kerasvision.ops.resizing import ResizeRule

    rule = ResizeRule("letterbox", size_hw=(64, 96))
    one, two = (
        pipeline(
            Streets("train", count=8, size_hw=(64, 96)),
            task="segmentation", resize=rule, batch_size=4, training=True, seed=3,
        )
        for _ in range(2)
    )  # fmt: skip
    assert one.batch_names(2, 1) == two.batch_names(2, 1)
    assert one.batch_names(0, 0) != one.batch_names(1, 0)

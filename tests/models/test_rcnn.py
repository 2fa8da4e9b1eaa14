"""R-CNN: assignment, the expected loss, mining and regression by hand, and one fit of all three stages."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.data import SlidingWindows
from kerasvision.models.rcnn import rcnn_vgg8
from kerasvision.models.region_classifiers import ClassifierFit


def _model(**options):
    keras.utils.set_random_seed(0)
    options = {
        "proposer": SlidingWindows((32, 48), max_proposals=24),
        "crop_size": 32,
        "head_units": (16,),
        "regions_per_step": 32,
        "regions_at_once": 16,
        "max_detections": 10,
        **options,
    }
    return rcnn_vgg8(2, **options)


@pytest.fixture(scope="module")
def model():
    return _model()


def _batch():
    images = np.random.default_rng(0).uniform(0, 60, (2, 64, 96, 3)).astype(np.float32)
    images[0, 16:48, 8:40, 0] += 180
    images[1, 8:56, 40:88, 1] += 180
    return images, {
        "boxes": np.array([[[8, 16, 40, 48]], [[40, 8, 88, 56]]], np.float32),
        "labels": np.array([[0], [1]]),
    }


def test_expected_loss_is_the_mean_by_kinds(model):
    # Two proposals: the object itself and one far away; a third is padding.
    proposals = np.array([[[0, 0, 10, 10], [50, 50, 60, 60], [-1, -1, -1, -1]]], np.float32)
    logits = np.log(np.array([[[0.2, 0.5, 0.3], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]], np.float32))
    targets = {"boxes": np.array([[[0, 0, 10, 10]]], np.float32), "labels": np.array([[0]])}
    outputs = {"proposals": ops.convert_to_tensor(proposals), "logits": ops.convert_to_tensor(logits)}
    losses = model.losses_from_outputs(outputs, np.zeros((1, 64, 64, 3)), targets)
    expected = 0.25 * -np.log(0.5) + 0.75 * -np.log(0.8)
    assert float(losses["classification"]) == pytest.approx(expected, rel=1e-5)
    nothing = model.losses_from_outputs(outputs, np.zeros((1, 64, 64, 3)), {**targets, "labels": np.array([[-1]])})
    assert float(nothing["classification"]) == pytest.approx(-(np.log(0.2) + np.log(0.8)) / 2, rel=1e-5)


def test_call_by_parts_equals_all_at_once(model):
    images, _ = _batch()
    apart = model(images)
    model.regions_at_once = 1000
    together = model(images)
    model.regions_at_once = 16
    np.testing.assert_allclose(*(ops.convert_to_numpy(raw["logits"]) for raw in (apart, together)), atol=1e-5)


def test_decode_ranks_by_score_and_moves_boxes(model):
    raw = {
        "proposals": ops.convert_to_tensor(np.array([[[10, 10, 30, 30], [50, 10, 70, 50]]], np.float32)),
        "scores": ops.convert_to_tensor(np.array([[[0.5, 0.0001], [0.0001, 0.88]]], np.float32)),
        "class_deltas": ops.convert_to_tensor(np.array([[[[0.5, 0, 0, 0]] * 2, [[0] * 4] * 2]], np.float32)),
    }
    found = model.decode(raw, np.zeros((1, 64, 96, 3), np.float32))
    # The first moves by half of its width.
    np.testing.assert_allclose(ops.convert_to_numpy(found["scores"])[0, :2], [0.88, 0.5], atol=1e-6)
    assert ops.convert_to_numpy(found["boxes"])[0, :2].tolist() == [[50, 10, 70, 50], [20, 10, 40, 30]]
    assert ops.convert_to_numpy(found["labels"])[0, :3].tolist() == [1, 0, -1]


def test_scores_are_the_softmax_until_machines_are_solved_for(model):
    images = np.random.default_rng(0).uniform(0, 255, (1, 64, 96, 3)).astype(np.float32)
    raw = model(images)
    softmax = ops.softmax(raw["logits"], axis=-1)[..., 1:]
    np.testing.assert_allclose(*map(ops.convert_to_numpy, (raw["scores"], softmax)), rtol=1e-6)
    model.region_classifiers.fitted.assign([1.0])
    raw = model(images)
    model.region_classifiers.fitted.assign([0.0])
    np.testing.assert_allclose(*map(ops.convert_to_numpy, (raw["scores"], ops.sigmoid(raw["margins"]))), rtol=1e-6)


def _fit(**options):
    return ClassifierFit(2, **{"cost": 1.0, "penalty": 1e-3, "regression_iou": 0.6, "negative_iou": 0.3, **options})


def test_classifier_fit_regresses_boxes_and_lets_easy_negatives_go():
    solver = _fit()
    objects, labels = np.array([[0, 0, 20, 20]], np.float32), np.array([0])
    proposals = np.array([[2, 0, 22, 20], [4, 0, 24, 20], [60, 60, 80, 80]], np.float32)

    def features_of(regions):
        # fc7: whether near the object; pool5: where it lies.
        near = (regions[:, :1] < 30).astype(np.float32)
        return np.concatenate([near, 1 - near], axis=1), regions[:, :1] / 20

    solver.add_objects(proposals, objects, labels, features_of)
    solver.solve()
    # IoUs 18/22 = 0.82 and 16/24 = 0.67: both are examples; x moves by -0.1 and -0.2 of the width, which is -pool5.
    assert solver.regressor_kernel[0, 0] == pytest.approx(-1, abs=0.2)
    solver.mine(proposals, objects, labels, features_of)
    assert [len(part) for part in solver.negatives[0]] == [1]  # the two near ones overlap the object
    assert solver.negatives[1] == []  # a class without objects has no machine
    solver.solve()
    margins = features_of(np.array([[0, 0, 20, 20], [60, 60, 80, 80]]))[0] * solver.scale @ solver.svm_kernel
    margins += solver.svm_bias
    assert margins[0, 0] > 0.9 and margins[1, 0] < -0.9
    assert (margins[:, 1] == -10).all()


def test_classifier_fit_without_images_says_so():
    with pytest.raises(ValueError, match="`x` gave no image to learn from"):
        _fit().solve()


def test_fit_of_all_stages_finds_the_objects_and_comes_back(tmp_path, eager):
    model = _model()
    images, targets = _batch()
    model.compile(optimizer=keras.optimizers.Adam(3e-3))
    model.fit(images, targets, batch_size=2, epochs=6, verbose=0)
    assert bool(ops.convert_to_numpy(model.region_classifiers.is_fitted))
    figures = model.evaluate(images, targets, verbose=0, return_dict=True)
    assert figures["AP50"] > 0.7  # other random numbers on each backend: 1.0 on TensorFlow, 0.75 on JAX
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    expected = model.predict(images, verbose=0)
    for key, value in loaded.predict(images, verbose=0).items():
        np.testing.assert_allclose(value, expected[key], atol=1e-4)

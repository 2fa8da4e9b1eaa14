"""The detector's last layer: values by hand, padding, precision, models."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision import layers

BOXES = np.array([[[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [50, 50, 60, 60]]], np.float32)
SCORES = np.array([[0.9, 0.8, 0.7, -np.inf]], np.float32)
LABELS = np.array([[0, 0, 1, 1]])


def _numpy(tensor):
    return ops.convert_to_numpy(tensor)


def _dtype(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)


def test_by_hand():
    found = layers.NonMaxSuppression(0.5, 3)(BOXES, SCORES, LABELS)
    np.testing.assert_array_equal(_numpy(found["boxes"]), [[[0, 0, 10, 10], [0, 0, 10, 10], [-1] * 4]])
    np.testing.assert_allclose(_numpy(found["scores"]), [[0.9, 0.7, -1]])
    np.testing.assert_array_equal(_numpy(found["labels"]), [[0, 1, -1]])
    np.testing.assert_array_equal(_numpy(found["num_detections"]), [2])
    assert _dtype(found["labels"]) == _dtype(found["num_detections"]) == "int32"


def test_across_classes():
    found = layers.NonMaxSuppression(0.5, 3, per_class=False)(BOXES, SCORES, LABELS)
    np.testing.assert_array_equal(_numpy(found["labels"]), [[0, -1, -1]])


def test_decayed_scores_come_out():
    # Boxes 0 and 1 share 9 x 10 = 90 of 110.
    found = layers.NonMaxSuppression(0.5, 4, method="soft_linear")(BOXES, SCORES, LABELS)
    np.testing.assert_allclose(_numpy(found["scores"]), [[0.9, 0.7, 0.8 * (1 - 90 / 110), -1]], rtol=1e-6)
    np.testing.assert_array_equal(_numpy(found["labels"]), [[0, 1, 0, -1]])
    found = layers.NonMaxSuppression(0.5, 4, method="soft_linear", score_threshold=0.2)(BOXES, SCORES, LABELS)
    np.testing.assert_array_equal(_numpy(found["num_detections"]), [2])


def test_arguments_reach_the_suppression():
    layer = layers.NonMaxSuppression(method="soft_gaussian", sigma=0.3, max_candidates=2, max_detections=3)
    found = _numpy(layer(BOXES, SCORES, LABELS)["scores"])
    np.testing.assert_allclose(found, [[0.9, 0.8 * np.exp(-((90 / 110) ** 2) / 0.3), -1]], rtol=1e-6)


def test_exportable_equals_the_native_way():
    expected = layers.NonMaxSuppression(0.5, 3)(BOXES, SCORES, LABELS)
    found = layers.NonMaxSuppression(0.5, 3, exportable=True)(BOXES, SCORES, LABELS)
    for name, values in expected.items():
        np.testing.assert_array_equal(_numpy(found[name]), _numpy(values))


@pytest.mark.parametrize("batch", [1, 2])
def test_nothing_gives_padding(batch):
    layer = layers.NonMaxSuppression(0.5, 3)
    found = layer(np.zeros((batch, 0, 4), np.float32), np.zeros((batch, 0), np.float32), np.zeros((batch, 0), np.int32))
    np.testing.assert_array_equal(_numpy(found["boxes"]), np.full((batch, 3, 4), -1))
    np.testing.assert_array_equal(_numpy(found["num_detections"]), np.zeros(batch))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_boxes_stay_in_float32_whatever_the_policy(policy):
    # bfloat16 has no 1001 and float16 no 2049.5.
    boxes = np.array([[[1001, 2049.5, 1003, 2051.25]]], np.float32)
    found = layers.NonMaxSuppression(0.5, 1, dtype=policy)(boxes, np.array([[0.987654]], np.float32), np.array([[3]]))
    np.testing.assert_array_equal(_numpy(found["boxes"]), boxes)
    assert _dtype(found["boxes"]) == _dtype(found["scores"]) == "float32"
    np.testing.assert_array_equal(_numpy(found["scores"]), np.array([[0.987654]], np.float32))


@pytest.mark.parametrize("exportable", [False, True])
def test_in_a_model_that_is_saved(exportable, tmp_path):
    inputs = [keras.Input((4, 4)), keras.Input((4,)), keras.Input((4,), dtype="int32")]
    layer = layers.NonMaxSuppression(0.5, 3, exportable=exportable)
    outputs = layer(*inputs)
    shapes = {name: tuple(value.shape) for name, value in outputs.items()}
    assert shapes == layer.compute_output_shape((None, 4, 4))
    assert {name: value.dtype for name, value in outputs.items()}["labels"] == "int32"
    model = keras.Model(inputs, outputs)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    arrays = [np.repeat(array, 2, axis=0) for array in (BOXES, SCORES, LABELS)]
    found = restored.predict(arrays, verbose=0)
    np.testing.assert_allclose(found["scores"], [[0.9, 0.7, -1]] * 2)


def test_wrong_arguments_are_named_at_once():
    with pytest.raises(ValueError, match="`method` 'diou' is unknown; use one of 'greedy'"):
        layers.NonMaxSuppression(method="diou")
    with pytest.raises(ValueError, match="`max_detections` 0 must be 1 or more"):
        layers.NonMaxSuppression(0.5, 0)
    with pytest.raises(ValueError, match=r"`max_detections` 5\.0 must be 1 or more, a whole number"):
        layers.NonMaxSuppression(0.5, 5.0)


def test_config_holds_plain_numbers_though_numpy_gave_them():
    layer = layers.NonMaxSuppression(
        np.float32(0.5),
        np.int64(5),
        sigma=np.float64(0.25),
        score_threshold=np.float32(0.5),
        max_candidates=np.int32(7),
        name="n",
    )
    expected = layers.NonMaxSuppression(0.5, 5, sigma=0.25, score_threshold=0.5, max_candidates=7, name="n")
    assert json.dumps(layer.get_config()) == json.dumps(expected.get_config())
    boxes = np.float32([[[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10]]])
    scores, labels = np.float32([[0.9, 0.8, 0.7]]), np.zeros((1, 3), np.int32)
    for key, values in layer(boxes, scores, labels).items():
        found = ops.convert_to_numpy(expected(boxes, scores, labels)[key])
        np.testing.assert_array_equal(ops.convert_to_numpy(values), found)

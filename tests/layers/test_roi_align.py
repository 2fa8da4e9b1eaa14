"""RoIAlign and RoIPool as layers: models, precision, errors."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision import layers

RAMP = (10.0 * np.arange(6)[:, None] + np.arange(8)).reshape(1, 6, 8, 1).astype(np.float32)
BOXES = np.array([[[4, 4, 20, 16], [-1, -1, -1, -1]]], np.float32)


def _numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def test_align_by_hand():
    # Cells 1 to 5 and 1 to 4: bins around x 2, 4 and y 1.75, 3.25.
    found = _numpy(layers.RoIAlign(2, 4)(RAMP, BOXES))
    np.testing.assert_allclose(found[0, 0, :, :, 0], [[19.5, 21.5], [34.5, 36.5]], rtol=1e-6)
    np.testing.assert_array_equal(found[0, 1], 0)


def test_pool_by_hand():
    # Cells 1 to 5 and 1 to 4: 5 columns and 4 rows; bins reach rows 1-2, 3-4 and columns 1-3, 3-5.
    found = _numpy(layers.RoIPool(2, 4)(RAMP, BOXES))
    np.testing.assert_array_equal(found[0, 0, :, :, 0], [[23, 25], [43, 45]])
    np.testing.assert_array_equal(found[0, 1], 0)


def test_align_arguments_reach_the_op():
    levels = [np.zeros((1, 12, 16, 1), np.float32), RAMP]
    layer = layers.RoIAlign((1, 2), (4, 8), aligned=True, canonical_size=16, canonical_level=3, sampling_ratio=1)
    # Area 32 x 24 is above 16 x 16: the second map, cells 0.5 - 0.5 to 4.5 - 0.5 and 1 - 0.5 to 4 - 0.5.
    found = _numpy(layer(levels, np.array([[[4, 8, 36, 32]]], np.float32)))
    np.testing.assert_allclose(found[0, 0, 0, :, 0], [20 + 1, 20 + 3], rtol=1e-6)
    assert found.shape == layer.compute_output_shape([level.shape for level in levels], (1, 1, 4))


def test_valid_marks_padding():
    valid = np.array([[False, True]])
    for layer in (layers.RoIAlign(2, 4), layers.RoIPool(2, 4)):
        found = _numpy(layer(RAMP + 1, BOXES, valid))
        np.testing.assert_array_equal(found[0, 0], 0)
        assert (found[0, 1] > 0).any()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_features_follow_the_policy_and_boxes_do_not(policy):
    boxes = np.array([[[2049.5, 0, 2057.5, 8]]], np.float32)
    step = (np.arange(300) > 256).astype(np.float32).reshape(1, 1, 300, 1)
    layer = layers.RoIAlign(1, 8, sampling_ratio=1, dtype=policy)
    found = layer(step, boxes)
    assert keras.backend.standardize_dtype(found.dtype) == layer.compute_dtype
    np.testing.assert_array_equal(_numpy(found), 0.6875)  # the sample lies at 256.6875
    layer = layers.RoIPool(1, 8, dtype=policy)
    assert keras.backend.standardize_dtype(layer(step, boxes).dtype) == layer.compute_dtype


def test_in_a_model_that_is_saved(tmp_path):
    # JAX traces no unknown number of cells into a table of windows: RoIPool needs them known anyway.
    inputs = [keras.Input((None, None, 1)), keras.Input((None, None, 1)), keras.Input((6, 8, 1)), keras.Input((2, 4))]
    align = layers.RoIAlign(2, (4, 8), name="align")
    pool = layers.RoIPool((2, 3), 4, name="pool")
    outputs = [align(inputs[:2], inputs[3]), pool(inputs[2], inputs[3])]
    assert [tuple(output.shape) for output in outputs] == [(None, 2, 2, 2, 1), (None, 2, 2, 3, 1)]
    model = keras.Model(inputs, outputs)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    arrays = [np.repeat(array, 2, axis=0) for array in (RAMP, RAMP[:, :3, :4], RAMP, BOXES)]
    aligned, pooled = restored.predict(arrays, verbose=0)
    np.testing.assert_allclose(aligned[1], _numpy(layers.RoIAlign(2, 4)(RAMP, BOXES))[0], rtol=1e-6)
    np.testing.assert_array_equal(pooled[1], _numpy(layers.RoIPool((2, 3), 4)(RAMP, BOXES))[0])


def test_wrong_arguments_are_named_at_once():
    with pytest.raises(ValueError, match="`sampling_ratio` 0 must be 1 or more, a whole number, or None"):
        layers.RoIAlign(7, 4, sampling_ratio=0)
    with pytest.raises(ValueError, match="`output_size` 0 must be a number of bins"):
        layers.RoIPool(0, 16)
    for make in (lambda size: layers.RoIAlign(size, 4), lambda size: layers.RoIPool(size, 4)):
        with pytest.raises(ValueError, match=r"`output_size` \(2.0, 2.0\) must be a number of bins .* whole"):
            make((2.0, 2.0))
    with pytest.raises(ValueError, match="must have one number for each of the 1 maps"):
        layers.RoIAlign(2, (4, 8))(RAMP, BOXES)


def test_configs_hold_plain_numbers_though_numpy_gave_them():
    layer = layers.RoIAlign(
        np.int64(2),
        np.array([4, 8]),
        sampling_ratio=np.int64(3),
        canonical_size=np.int64(224),
        canonical_level=np.int32(4),
        max_adaptive_samples=np.int64(5),
    )
    expected = layers.RoIAlign(2, (4, 8), sampling_ratio=3, max_adaptive_samples=5)
    for found, other in (
        (layer, expected),
        (layers.RoIAlign(np.array([1, 2]), np.int64(4)), layers.RoIAlign((1, 2), 4)),
        (layers.RoIPool(np.int64(2), np.int64(16)), layers.RoIPool(2, 16)),
    ):
        config = {**other.get_config(), "name": found.name}
        assert found.get_config() == config and json.dumps(found.get_config()) == json.dumps(config)

"""Maximum pooling with padding and rounding up, and AlexNet's normalisation across channels: by hand."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.layers import LocalResponseNormalization, MaxPooling


def _row(*values):
    return np.array(values, np.float32).reshape(1, 1, -1, 1)


def _pooled(layer, *values):
    """Pool a row in the middle of two of the same, so that its height plays no part."""
    image = np.repeat(_row(*values), 3, axis=1)
    return ops.convert_to_numpy(layer(image))[0, 0, :, 0].tolist()


@pytest.mark.parametrize(
    ("pool_size", "strides", "padding", "ceil_mode", "expected"),
    [
        (2, 2, 0, False, [-1, 4]),  # (-3 -1) (4 2), the -5 is lost
        (2, 2, 0, True, [-1, 4, -5]),
        (3, 2, 0, False, [4, 4]),  # (-3 -1 4) (4 2 -5)
        (3, 2, 0, True, [4, 4]),
        (3, 2, 1, False, [-1, 4, 2]),  # (. -3 -1) (-1 4 2) (2 -5 .): beyond the row is minus infinity, not 0
        (3, 1, 1, False, [-1, 4, 4, 4, 2]),
        (2, 1, 0, False, [-1, 4, 4, 2]),
    ],
)
def test_max_pooling_by_hand(pool_size, strides, padding, ceil_mode, expected):
    layer = MaxPooling(pool_size, strides, padding=padding, ceil_mode=ceil_mode)
    assert _pooled(layer, -3, -1, 4, 2, -5) == expected
    assert layer.compute_output_shape((1, 3, 5, 1))[2] == len(expected)


def test_max_pooling_of_an_even_row_rounds_up():
    # (-3 -1 4) (4 2 .): the second window reaches beyond the row.
    assert _pooled(MaxPooling(3, 2, ceil_mode=True), -3, -1, 4, 2) == [4, 4]
    # (. -3 -1) (-1 4 2) (2 . .)
    assert _pooled(MaxPooling(3, 2, padding=1, ceil_mode=True), -3, -1, 4, 2) == [-1, 4, 2]
    assert _pooled(MaxPooling(3, 2, padding=1), -3, -1, 4, 2) == [-1, 4]


@pytest.mark.parametrize("arguments", [(2, 2), (3, 2, 1), (3, 2, 0)])
def test_max_pooling_of_a_single_pixel(arguments):
    pool_size, strides, padding = (*arguments, 0)[:3]
    layer = MaxPooling(pool_size, strides, padding=padding, ceil_mode=True)
    size = 0 if arguments == (3, 2, 0) else 1
    assert layer.compute_output_shape((1, 1, 1, 4)) == (1, size, size, 4)
    if size:
        assert ops.convert_to_numpy(layer(np.full((1, 1, 1, 1), -7, np.float32))).item() == -7


def test_max_pooling_traces_with_unknown_size():
    inputs = keras.Input((None, None, 3))
    assert tuple(MaxPooling(3, 2, padding=1)(inputs).shape) == (None, None, None, 3)


@pytest.mark.parametrize(("padding", "strides"), [(2, 2), (-1, 2), (1, 3), (0, 0)])
def test_max_pooling_wrong_arguments_are_named(padding, strides):
    message = (
        f"`padding` {padding} and `strides` {strides} must be at least 0 and 1, and at most `pool_size` 3 together"
    )
    with pytest.raises(ValueError, match=message):
        MaxPooling(3, strides, padding=padding)


def test_local_response_normalization_by_hand():
    layer = LocalResponseNormalization(3, alpha=3.0, beta=0.5, bias=4.0)
    # Squares 1, 4, 9, 16; sums of three 5, 14, 29, 25; 4 + 3 / 3 * sum = 9, 18, 33, 29.
    expected = np.array([1, -2, 3, 4]) / np.sqrt([9, 18, 33, 29])
    found = ops.convert_to_numpy(layer(np.array([[1, -2, 3, 4]], np.float32)))
    np.testing.assert_allclose(found, [expected], rtol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_local_response_normalization_sums_in_float32(policy):
    layer = LocalResponseNormalization(dtype=policy)
    found = layer(np.full((1, 5), 300.0, np.float32))  # whose square float16 cannot hold
    assert keras.backend.standardize_dtype(found.dtype) == policy.removeprefix("mixed_")
    # The middle one: 300 / (1 + 1e-4 / 5 * 5 * 90000) ** 0.75.
    np.testing.assert_allclose(float(found[0, 2]), 300 / 10**0.75, rtol=1e-2)


def test_local_response_normalization_of_an_even_size_is_refused():
    with pytest.raises(ValueError, match="`size` 4 must be odd"):
        LocalResponseNormalization(4)

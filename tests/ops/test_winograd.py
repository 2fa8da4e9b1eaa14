"""Winograd's convolutions against the direct ones."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.ops.winograd import winograd_convolution, winograd_kernel, winograd_tile


def _random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize(
    ("shape", "padding", "dilation"),
    [
        ((1, 1, 1, 2), "same", 1),
        ((1, 7, 9, 3), "same", 1),
        ((2, 13, 8, 4), "valid", 1),
        ((2, 31, 17, 4), "same", 2),
        ((2, 20, 30, 2), "valid", 3),
        ((1, 33, 29, 8), "same", 12),
        ((1, 3, 5, 2), "same", 7),
    ],
)
def test_winograd_convolution_is_the_direct_one(shape, padding, dilation, tile):
    inputs, kernel = _random(*shape), _random(3, 3, shape[3], 5)
    expected = ops.convert_to_numpy(
        ops.conv(inputs, kernel, padding=padding, dilation_rate=dilation, data_format="channels_last")
    )
    outputs = winograd_convolution(
        ops.convert_to_tensor(inputs),
        ops.convert_to_tensor(winograd_kernel(kernel, tile)),
        padding=padding,
        dilation=dilation,
    )
    np.testing.assert_allclose(ops.convert_to_numpy(outputs), expected, atol=1e-5 * np.abs(expected).max())


def test_winograd_convolution_of_many_channels_errs_by_1e5():
    inputs, kernel = np.maximum(_random(1, 16, 16, 256), 0), _random(3, 3, 256, 64)
    padded = np.pad(inputs[0].astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    expected = sum(padded[y : y + 16, x : x + 16] @ kernel[y, x].astype(np.float64) for y in range(3) for x in range(3))
    for tile, error in ((2, 5e-6), (4, 5e-5)):
        outputs = winograd_convolution(
            ops.convert_to_tensor(inputs), ops.convert_to_tensor(winograd_kernel(kernel, tile))
        )
        found = np.abs(ops.convert_to_numpy(outputs)[0] - expected).max() / np.abs(expected).max()
        assert found < error


def test_winograd_kernel_of_a_single_tap_is_the_products_of_its_transform():
    # G's middle column, for tiles of 2: (0, 1/2, -1/2, 0). The kernel's only tap, its middle, is 4.
    kernel = np.zeros((3, 3, 1, 1), np.float32)
    kernel[1, 1] = 4
    expected = [[0, 0, 0, 0], [0, 1, -1, 0], [0, -1, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(winograd_kernel(kernel, 2).reshape(4, 4), expected)


def test_winograd_tile_saves_where_there_are_many_channels():
    assert winograd_tile((1, 100, 100, 256), 256) == 4
    assert winograd_tile((1, 200, 200, 64), 64) is None  # passes over memory cost what they save
    assert winograd_tile((1, 100, 100, 256), 36) is None
    assert winograd_tile((1, 4, 4, 512), 512, padding="valid") == 2  # of a tile of 4, three quarters would be wasted
    assert winograd_tile((1, 65, 65, 512), 512, dilation=4) == 4
    # Most of the direct products would be with padding, which TensorFlow leaves out.
    assert winograd_tile((1, 65, 65, 2048), 256, dilation=36) is None
    assert winograd_tile((1, 2, 2, 512), 512, padding="valid") is None
    assert winograd_tile((0, 65, 65, 512), 512) is None


def test_winograd_of_what_does_not_fit_says_so():
    with pytest.raises(ValueError, match=r"`kernel` of shape \(5, 5, 2, 2\) must be \(3, 3"):
        winograd_kernel(np.zeros((5, 5, 2, 2)))
    with pytest.raises(ValueError, match=r"`tile` 3 must be one of \[2, 4\]"):
        winograd_kernel(np.zeros((3, 3, 2, 2)), tile=3)
    kernel = ops.convert_to_tensor(winograd_kernel(_random(3, 3, 2, 2)))
    with pytest.raises(ValueError, match=r"`inputs` \(1, 4, 4, 3\) must be .* `kernel` \(36, 2, 2\)"):
        winograd_convolution(ops.ones((1, 4, 4, 3)), kernel)
    with pytest.raises(ValueError, match="without None"):
        winograd_convolution(keras.KerasTensor((1, None, 4, 2)), kernel)
    with pytest.raises(ValueError, match="must be larger than 4"):
        winograd_convolution(ops.ones((1, 4, 9, 2)), kernel, padding="valid", dilation=2)
    with pytest.raises(ValueError, match="`padding` 'full' must be"):
        winograd_convolution(ops.ones((1, 4, 4, 2)), kernel, padding="full")

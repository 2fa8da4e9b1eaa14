"""U-Net's blocks without padding, its ways of enlarging, and the attention gate, by hand."""

import math

import numpy as np
import pytest
from keras import ops

from kerasvision import layers
from kerasvision.ops.nearest import crop_centre_like, fit_to


def _numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def _ones(*shape):
    return np.ones(shape, np.float32)


def _tap(block, *taps):
    """Let a convolution pass its inputs' channels on, times these taps, from the middle of its window."""
    kernel = np.zeros(block.kernel.shape)
    kernel[kernel.shape[0] // 2, kernel.shape[1] // 2, :, 0] = taps
    block.kernel.assign(kernel)


def test_double_convolution_without_padding_sums_what_lies_inside():
    layer = layers.UNetDoubleConvolution(1, mid_filters=2, padding="valid")
    layer.build((None, None, None, 1))
    for block in (layer.first, layer.second):
        block.kernel.assign(np.ones(block.kernel.shape))
    # 9 ones in each of two channels, 9 of these in each.
    np.testing.assert_allclose(_numpy(layer(_ones(1, 6, 5, 1))), np.full((1, 2, 1, 1), 162))
    assert layer.compute_output_shape((1, 6, 5, 1)) == (1, 2, 1, 1)
    with pytest.raises(ValueError, match="`padding` 'full' is unknown; use 'same' or 'valid'"):
        layers.UNetDoubleConvolution(1, padding="full")


def test_encoder_block_rounds_down_as_pytorch():
    layer = layers.UNetEncoderBlock(1, round_down=True)
    layer.build((None, None, None, 1))
    _tap(layer.convolutions.first, 1)
    _tap(layer.convolutions.second, 1)
    image = np.array([[1, 4, 9], [3, 2, 9], [9, 9, 9]], np.float32).reshape(1, 3, 3, 1)
    np.testing.assert_allclose(_numpy(layer(image)), np.full((1, 1, 1, 1), 4))
    assert layer.compute_output_shape((1, 3, 5, 1)) == (1, 1, 2, 1)


@pytest.mark.parametrize(
    ("upsampling", "expected"),
    [
        # Corners aligned: 4 places from the first pixel to the second.
        ("bilinear", [0, 1, 2, 3]),
        # A quarter of the way off each pixel; the 1x1 convolution makes ten times as much of it.
        ("bilinear_convolution", [0, 7.5, 22.5, 30]),
    ],
)
def test_decoder_block_enlarges_bilinearly(upsampling, expected):
    layer = layers.UNetDecoderBlock(1, upsampling=upsampling)
    layer.build((None, None, None, 1), (None, None, None, 1))
    if layer.up is not None:
        _tap(layer.up, 10)
    _tap(layer.convolutions.first, 1, 100)
    _tap(layer.convolutions.second, 1)
    row = np.array([0, 3], np.float32).reshape(1, 1, 2, 1)
    skip = np.array([1, 2, 3, 4], np.float32).reshape(1, 1, 4, 1) * _ones(1, 2, 4, 1)
    found = _numpy(layer(row, skip))[0, :, :, 0]
    np.testing.assert_allclose(found, [np.add(expected, [100, 200, 300, 400])] * 2, rtol=1e-5)


def test_decoder_block_without_padding_cuts_out_the_middle_of_the_skip():
    layer = layers.UNetDecoderBlock(1, upsampling="nearest", padding="valid")
    layer.build((None, None, None, 1), (None, None, None, 1))
    _tap(layer.convolutions.first, 1, 10)
    _tap(layer.convolutions.second, 1)
    skip = np.arange(100, dtype=np.float32).reshape(1, 10, 10, 1)
    # 3 x 3 becomes 6 x 6, of which the skip's rows and columns 2 to 7 are left; the convolutions keep 4 and 5 of them.
    found = _numpy(layer(_ones(1, 3, 3, 1), skip))[0, :, :, 0]
    np.testing.assert_allclose(found, [[441, 451], [541, 551]])
    assert layer.compute_output_shape((1, 3, 3, 1), (1, 10, 10, 1)) == (1, 2, 2, 1)
    with pytest.raises(ValueError, match=r"`skip` of \(5, 10\) pixels does not fit .* \(3, 3\); it must be at least"):
        layer(_ones(1, 3, 3, 1), _ones(1, 5, 10, 1))


@pytest.mark.parametrize("upsampling", ["transpose", "bilinear", "bilinear_convolution"])
def test_decoder_block_fills_up_to_a_skip_that_was_rounded_down(upsampling):
    layer = layers.UNetDecoderBlock(1, upsampling=upsampling)
    layer.build((None, None, None, 1), (None, None, None, 1))
    if layer.up is not None:
        layer.up.kernel.assign(np.ones(layer.up.kernel.shape))
    _tap(layer.convolutions.first, 1, 10)
    _tap(layer.convolutions.second, 1)
    found = _numpy(layer(_ones(1, 1, 1, 1), _ones(1, 3, 2, 1)))[0, :, :, 0]
    np.testing.assert_allclose(found, [[11, 11], [11, 11], [10, 10]], rtol=1e-6)


def test_decoder_block_without_skip_takes_the_size_it_is_told():
    layer = layers.UNetDecoderBlock(2)
    assert layer(_ones(1, 2, 3, 2), size_hw=(3, 6)).shape == (1, 3, 6, 2)
    assert layer(_ones(1, 2, 3, 2)).shape == (1, 4, 6, 2)


def test_fit_to_and_crop_centre_like_by_hand():
    grid = np.arange(12, dtype=np.float32).reshape(1, 3, 4, 1)
    np.testing.assert_array_equal(_numpy(fit_to(grid, (2, 5)))[0, :, :, 0], [[0, 1, 2, 3, 0], [4, 5, 6, 7, 0]])
    assert fit_to(grid, (3, 4)) is grid
    assert fit_to(grid, (1, 2)).shape == (1, 1, 2, 1)
    # Of 3 - 2 rows none is cut at the top, of 4 - 1 columns one on the left.
    np.testing.assert_array_equal(_numpy(crop_centre_like(grid, _ones(1, 2, 1, 7)))[0, :, :, 0], [[1], [5]])


# --- attention gate


def test_attention_gate_by_hand():
    gate = layers.AttentionGate()
    gate.build((None, None, None, 1), (None, None, None, 1))
    gate.theta.kernel.assign(np.ones((2, 2, 1, 1)))
    _tap(gate.phi, -1)
    _tap(gate.psi, 2)
    gate.psi.bias.assign([-1.0])
    skip = np.array([[1, 2], [3, 4]], np.float32).reshape(1, 2, 2, 1)
    # 2 relu(1 + 2 + 3 + 4 - 9.5) - 1 is 0, of which the sigmoid is 1/2, in all four pixels.
    np.testing.assert_allclose(_numpy(gate(skip, 9.5 * _ones(1, 1, 1, 1))), skip / 2, rtol=1e-6)
    # Below 0 the ReLU is 0, and -1 is left.
    closed = 1 / (1 + math.exp(1))
    np.testing.assert_allclose(_numpy(gate(skip, 99 * _ones(1, 1, 1, 1))), skip * closed, rtol=1e-6)
    assert gate.theta.bias is None and gate.compute_output_shape(skip.shape, (1, 1, 1, 1)) == skip.shape


def test_attention_gate_interpolates_its_coefficients():
    gate = layers.AttentionGate()
    gate.build((None, None, None, 1), (None, None, None, 1))
    gate.theta.kernel.assign(np.zeros((2, 2, 1, 1)))
    _tap(gate.phi, 1)
    _tap(gate.psi, 1)
    found = _numpy(gate(_ones(1, 2, 4, 1), np.array([0, 50], np.float32).reshape(1, 1, 2, 1)))
    # Coefficients 1/2 and 1, enlarged twice with corners that are not aligned.
    np.testing.assert_allclose(found[0, :, :, 0], [[0.5, 0.625, 0.875, 1]] * 2, rtol=1e-6)


@pytest.mark.parametrize(("skip_hw", "gate_hw"), [((5, 7), (3, 4)), ((5, 7), (2, 3)), ((4, 6), (2, 3))])
def test_attention_gate_takes_odd_sizes(skip_hw, gate_hw):
    gate = layers.AttentionGate(3)
    found = gate(_ones(2, *skip_hw, 4), _ones(2, *gate_hw, 6))
    assert tuple(found.shape) == (2, *skip_hw, 4) and np.isfinite(_numpy(found)).all()

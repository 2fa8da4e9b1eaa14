"""Spatial pyramid pooling by hand, and its three layers against each other."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.layers import SPP, SPPF, SpatialPyramidPooling

RNG = np.random.default_rng(0)
POLICIES = ["float32", "mixed_bfloat16", "mixed_float16"]


def _numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def _naive(image, size):
    """Return maxima over windows of `size`, pixel by pixel."""
    half = size // 2
    found = np.empty_like(image)
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            window = image[:, max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
            found[:, y, x] = window.max((1, 2))
    return found


def test_spp_of_a_row_by_hand():
    row = np.array([-5, -1, -4, -2, -3], np.float32).reshape(1, 1, 5, 1)
    found = _numpy(SPP((3, 5))(row))[0, 0]
    # Three beside each other: -1 -1 -1 -2 -2; five: all see the -1 but the last, whose window is -4 -2 -3.
    np.testing.assert_array_equal(found.T, [[-5, -1, -4, -2, -3], [-1, -1, -1, -2, -2], [-1, -1, -1, -1, -2]])


def test_spp_puts_the_input_last_if_told():
    row = np.array([1, 2], np.float32).reshape(1, 1, 2, 1)
    np.testing.assert_array_equal(_numpy(SPP((3, 1), input_first=False)(row))[0, 0], [[2, 1, 1], [2, 2, 2]])


@pytest.mark.parametrize("sizes", [(5, 9, 13), (13, 1, 3, 3)])
def test_spp_equals_windows_one_by_one(sizes):
    image = RNG.normal(size=(2, 7, 11, 3)).astype(np.float32)
    expected = np.concatenate([image, *(_naive(image, size) for size in sizes)], -1)
    np.testing.assert_array_equal(_numpy(SPP(sizes)(image)), expected)


@pytest.mark.parametrize("size", [(1, 1), (20, 3)])
def test_sppf_equals_spp_exactly(size):
    image = RNG.normal(size=(2, *size, 2)).astype(np.float32)
    np.testing.assert_array_equal(_numpy(SPPF()(image)), _numpy(SPP()(image)))
    np.testing.assert_array_equal(_numpy(SPPF(3, repeats=4)(image)), _numpy(SPP((3, 5, 7, 9))(image)))


def test_fixed_length_pooling_by_hand():
    image = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
    # Halves of three rows overlap in the middle one: rows and columns 0-1 and 1-2.
    np.testing.assert_array_equal(_numpy(SpatialPyramidPooling((1, 2))(image)), [[8, 4, 5, 7, 8]])


def test_fixed_length_pooling_keeps_channels_of_a_bin_together():
    image = np.stack([np.arange(4), -np.arange(4)], -1).astype(np.float32).reshape(1, 2, 2, 2)
    np.testing.assert_array_equal(_numpy(SpatialPyramidPooling((2, 1))(image)), [[0, 0, 1, -1, 2, -2, 3, -3, 3, 0]])


def test_fixed_length_pooling_of_one_pixel_repeats_it():
    found = _numpy(SpatialPyramidPooling((1, 3))(np.full((2, 1, 1, 1), 7, np.float32)))
    np.testing.assert_array_equal(found, np.full((2, 10), 7))


@pytest.mark.parametrize("layer", [SPP(), SPPF(), SpatialPyramidPooling((1, 2, 3))], ids=["spp", "sppf", "fixed"])
def test_pooling_traces_with_unknown_size(layer):
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, layer(inputs))
    for size in ((5, 3), (2, 4)):
        image = RNG.normal(size=(3, *size, 2)).astype(np.float32)
        expected = _numpy(layer(image))
        assert expected.shape == layer.compute_output_shape(image.shape)
        np.testing.assert_array_equal(model.predict(image, verbose=0), expected)
    assert model.outputs[0].shape[-1] == expected.shape[-1]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("cls", [SPP, SPPF, SpatialPyramidPooling])
def test_pooling_computes_in_its_own_precision(cls, policy):
    image = RNG.integers(-9, 9, (1, 4, 5, 2)).astype(np.float32)
    layer = cls(dtype=policy)
    found = layer(image)
    assert keras.backend.standardize_dtype(found.dtype) == layer.compute_dtype
    np.testing.assert_array_equal(_numpy(found), _numpy(cls(dtype="float32")(image)))


def test_pooling_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"`kernel_sizes` \(5, 4\): a window of side 4 has no middle; use odd"):
        SPP((5, 4))
    with pytest.raises(ValueError, match="`kernel_sizes` is empty"):
        SPP(())
    with pytest.raises(ValueError, match="`kernel_size` 2: a window of side 2 has no middle"):
        SPPF(2)
    with pytest.raises(ValueError, match="`repeats` 0 must be 1 or more"):
        SPPF(5, repeats=0)
    with pytest.raises(ValueError, match=r"`bins` \(2, 0\) must be one or more positive numbers"):
        SpatialPyramidPooling((2, 0))

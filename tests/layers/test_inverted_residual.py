"""Inverted residuals: by hand, shapes, what is left out, precision."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.layers.inverted_residual import InvertedResidual


def _numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def test_inverted_residual_by_hand():
    layer = InvertedResidual(1, 2, normalization=None, activation="relu6", squeeze_filters=1)
    image = np.array([[1, 2], [3, 9]], np.float32).reshape(1, 2, 2, 1)
    layer(image)
    layer.expand.kernel.assign(np.array([1, -1]).reshape(1, 1, 1, 2))
    kernel = np.zeros((3, 3, 2, 1))
    kernel[1, 1:, 0] = 1  # each pixel and its right neighbour
    layer.depthwise.kernel.assign(kernel)
    # The gate of channel 0 is clip(3 / 6 + 1 / 2, 0, 1) = 1; the reduced mean has no say.
    layer.squeeze.reduce.kernel.assign(np.zeros((1, 1, 2, 1)))
    layer.squeeze.expand.bias.assign([3, 0])
    layer.project.kernel.assign(np.array([10, 100]).reshape(1, 1, 2, 1))
    # Expanded to 1, 2, 3 and 6 (of 9), and zeros; summed with the right neighbour: 3, 2, 6 (of 9), 6; times 10, plus x.
    np.testing.assert_allclose(_numpy(layer(image))[0, :, :, 0], [[31, 22], [63, 69]])
    layer.squeeze.expand.bias.assign([-1, 0])  # a gate of 1 / 3
    np.testing.assert_allclose(_numpy(layer(image))[0, :, :, 0], [[11, 2 + 20 / 3], [23, 29]], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "adds", "shape"),
    [
        ({}, True, (2, 5, 7, 4)),
        ({"strides": 2}, False, (2, 3, 4, 4)),
        ({"dilation": 2, "kernel_size": 5}, True, (2, 5, 7, 4)),
        ({"residual": False}, False, (2, 5, 7, 4)),
        ({"filters": 3}, False, (2, 5, 7, 3)),
    ],
)
def test_inverted_residual_adds_its_input_where_it_fits(options, adds, shape):
    layer = InvertedResidual(**{"filters": 4, "expanded_filters": 8, **options})
    image = np.random.default_rng(0).normal(size=(2, 5, 7, 4)).astype(np.float32)
    found = layer(image)
    assert tuple(found.shape) == shape == layer.compute_output_shape(image.shape)
    assert layer.adds is adds
    layer.project.kernel.assign(np.zeros(layer.project.kernel.shape))
    np.testing.assert_array_equal(_numpy(layer(image)), image if adds else np.zeros(shape))


def test_inverted_residual_without_expansion_and_with_its_expanded_features():
    image = np.random.default_rng(0).normal(size=(1, 6, 5, 4)).astype(np.float32)
    layer = InvertedResidual(4, 4, return_expanded=True)
    found, expanded = layer(image)
    assert layer.expand is None
    np.testing.assert_array_equal(_numpy(expanded), image)
    layer = InvertedResidual(4, 12, strides=2, return_expanded=True)
    found, expanded = layer(image)
    assert [tuple(found.shape), tuple(expanded.shape)] == layer.compute_output_shape(image.shape)
    assert tuple(expanded.shape) == (1, 6, 5, 12) and _numpy(expanded).min() == 0
    np.testing.assert_array_equal(_numpy(expanded), _numpy(layer.expand(image)))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("training", [True, False])
def test_inverted_residual_computes_in_its_own_precision(policy, training):
    layer = InvertedResidual(4, 8, squeeze_filters=2, activation="hard_silu", dilation=2, dtype=policy)
    found = layer(np.ones((1, 5, 6, 4), np.float32), training=training)
    assert keras.backend.standardize_dtype(found.dtype) == layer.compute_dtype
    assert np.isfinite(_numpy(found)).all()


def test_inverted_residual_with_strides_and_dilation_says_so():
    with pytest.raises(ValueError, match="`strides` 2 and `dilation` 2 cannot both be above 1"):
        InvertedResidual(4, 8, strides=2, dilation=2)

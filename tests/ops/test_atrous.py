"""Atrous and depthwise convolutions: both paths of each agree; dilations beyond the map; compiled; half precision."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.ops import atrous
from kerasvision.ops.atrous import atrous_convolution, depthwise_convolution

RNG = np.random.default_rng(0)


def _numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def _arrays(size, channels, filters, taps=3):
    return (
        ops.cast(RNG.normal(size=(2, *size, channels)), "float32"),
        ops.cast(RNG.normal(size=(taps, taps, channels, filters)), "float32"),
    )


def test_atrous_convolution_of_ones_counts_the_taps_inside_the_map():
    found = atrous_convolution(ops.ones((1, 5, 3, 1)), ops.ones((3, 3, 1, 1)), 2)
    # Along 5 rows 2, 2, 3, 2, 2 taps lie inside; along 3 columns 2, 1, 2.
    np.testing.assert_array_equal(_numpy(found)[0, :, :, 0], np.outer([2, 2, 3, 2, 2], [2, 1, 2]))


def test_atrous_convolution_beyond_the_map_is_its_middle_tap():
    image, kernel = _arrays((4, 5), 3, 2)
    found = atrous_convolution(image, kernel, 5)
    np.testing.assert_allclose(_numpy(found), _numpy(ops.matmul(image, kernel[1, 1])), atol=1e-5)


@pytest.mark.parametrize(
    ("size", "dilation", "taps"), [((9, 7), 1, 5), ((9, 7), 3, 5), ((6, 13), 4, 3), ((6, 13), 12, 3), ((1, 1), 2, 3)]
)
def test_atrous_convolution_tap_by_tap_equals_the_backends(size, dilation, taps):
    image, kernel = _arrays(size, 3, 4, taps)
    expected = ops.conv(image, kernel, strides=1, padding="same", dilation_rate=dilation)
    for function in (atrous_convolution, atrous._tap_by_tap):
        np.testing.assert_allclose(_numpy(function(image, kernel, dilation)), _numpy(expected), atol=1e-4)


def test_atrous_convolution_is_taken_apart_where_taps_are_wasted(monkeypatch):
    monkeypatch.setattr(atrous, "on_cpu", lambda tensor: True)
    taken = []
    monkeypatch.setattr(atrous, "_tap_by_tap", lambda image, kernel, dilation: taken.append(dilation))
    kernel = ops.zeros((3, 3, 1, 1))
    # Of 65 x 65 with a dilation of 6 ((65 + 2 * 59) / 195) ** 2 = .88 of the products count; of 12 .77.
    for dilation in (1, 6, 12, 36):
        atrous_convolution(ops.zeros((1, 65, 65, 1)), kernel, dilation)
    atrous_convolution(ops.zeros((1, 65, 65, 1), "bfloat16"), ops.cast(kernel, "bfloat16"), 36)
    assert taken == [12, 36]
    monkeypatch.setattr(atrous, "on_cpu", lambda tensor: False)
    atrous_convolution(ops.zeros((1, 65, 65, 1)), kernel, 36)
    assert taken == [12, 36]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_atrous_and_depthwise_convolution_keep_the_precision(dtype):
    image, kernel = _arrays((5, 5), 4, 4)
    found = atrous_convolution(ops.cast(image, dtype), ops.cast(kernel, dtype), 3)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    np.testing.assert_allclose(_numpy(found), _numpy(atrous_convolution(image, kernel, 3)), atol=0.3)
    found = depthwise_convolution(ops.cast(image, dtype), ops.cast(kernel[..., :1], dtype), dilation=3)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    np.testing.assert_allclose(
        _numpy(found), _numpy(depthwise_convolution(image, kernel[..., :1], dilation=3)), atol=0.1
    )


def test_depthwise_convolution_by_hand():
    image = np.array([[1, 10], [2, 20], [3, 30]], np.float32).reshape(1, 3, 1, 2)
    kernel = np.zeros((3, 3, 2, 1), np.float32)
    kernel[:, 1, 0, 0], kernel[:, 1, 1, 0] = (1, 10, 100), (0, 0, 1)
    # Channel 0: the row above, 10 times this one, 100 times the one below; channel 1: the one below.
    found = _numpy(depthwise_convolution(ops.convert_to_tensor(image), ops.convert_to_tensor(kernel)))
    np.testing.assert_allclose(found[0, :, 0], [[210, 20], [321, 30], [32, 0]])


@pytest.mark.parametrize(
    ("options", "padding", "taps"),
    [
        ({"strides": 2}, "same", 3),
        ({"strides": 3}, "valid", 4),
        ({"strides": 2}, "same", 4),
        ({"dilation": 2}, "valid", 3),
        ({"dilation": 9}, "same", 3),
    ],
)
def test_depthwise_convolution_as_shifted_maps_equals_the_backends(options, padding, taps):
    image, kernel = _arrays((8, 11), 3, 1, taps)
    found = atrous._sum_of_shifted(image, kernel, options.get("strides", 1), padding, options.get("dilation", 1))
    expected = depthwise_convolution(image, kernel, padding=padding, **options)
    assert found.shape == expected.shape
    np.testing.assert_allclose(_numpy(found), _numpy(expected), atol=1e-5)
    names = {"strides": options.get("strides", 1), "dilation_rate": options.get("dilation", 1)}
    native = ops.depthwise_conv(image, kernel, padding=padding, **names)
    np.testing.assert_allclose(_numpy(found), _numpy(native), atol=1e-5)


@pytest.mark.parametrize("size", [(8, 11), (9, 7), (10, 12), (1, 2)])
@pytest.mark.parametrize(("strides", "taps"), [(2, 3), (2, 5), (3, 3), (1, 3), (1, 5), (2, 4)])
@pytest.mark.parametrize("training", [True, False])
def test_depthwise_convolution_pads_both_sides_alike(size, strides, taps, training):
    image, kernel = _arrays(size, 3, 1, taps)
    found = depthwise_convolution(image, kernel, strides=strides, padding=taps // 2, training=training)
    padded = np.pad(_numpy(image), ((0, 0), *[(taps // 2, taps // 2)] * 2, (0, 0)))
    expected = np.zeros(found.shape, np.float32)
    for i, j in np.ndindex(expected.shape[1:3]):
        window = padded[:, i * strides : i * strides + taps, j * strides : j * strides + taps]
        expected[:, i, j] = (window * _numpy(kernel)[..., 0]).sum((1, 2))
    assert expected.shape[1:3] == tuple((n + taps // 2 * 2 - taps) // strides + 1 for n in size)
    np.testing.assert_allclose(_numpy(found), expected, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"dilation": 2}, {"dilation": 5, "padding": "valid"}, {"dilation": 3, "padding": 1}, {"strides": 2}],
)
def test_depthwise_convolution_is_finished_wherever_it_is_computed(options):
    image, kernel = _arrays((11, 14), 3, 1)
    bias = ops.convert_to_tensor(np.array([1, -2, 3], np.float32))
    plain = depthwise_convolution(image, kernel, **options)
    found = depthwise_convolution(image, kernel, **options, finish=lambda outputs: ops.relu(outputs + bias))
    np.testing.assert_allclose(_numpy(found), np.maximum(_numpy(plain) + _numpy(bias), 0), atol=1e-5)


def _outputs(image, kernel):
    return atrous_convolution(image, kernel, 6), depthwise_convolution(image, kernel[..., :1], dilation=2)


def test_atrous_and_depthwise_convolution_compiled_equal_eager():
    image, kernel = _arrays((7, 9), 3, 4)
    compiled = []
    if keras.backend.backend() == "jax":
        import jax

        compiled = [jax.jit(_outputs)]
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        unknown = [tf.TensorSpec((None, None, None, 3)), tf.TensorSpec((3, 3, 3, 4))]
        compiled = [
            tf.function(_outputs, jit_compile=xla, input_signature=signature)
            for xla, signature in ((False, unknown), (True, None), (True, unknown))
        ]
    for function in compiled:
        for found, wanted in zip(function(image, kernel), _outputs(image, kernel), strict=True):
            np.testing.assert_allclose(_numpy(found), _numpy(wanted), atol=1e-4)

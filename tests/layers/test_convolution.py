"""ConvolutionBlock: sums by hand, folding, padding, precision."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.layers import ConvolutionBlock, FrozenBatchNormalization

RNG = np.random.default_rng(0)


def _numpy(tensor):
    return ops.convert_to_numpy(tensor)


def _set_statistics(norm):
    channels = norm.gamma.shape[0]
    for variable, low, high in (
        (norm.gamma, 0.5, 1.5),
        (norm.beta, -1, 1),
        (norm.moving_mean, -1, 1),
        (norm.moving_variance, 0.2, 2),
    ):
        variable.assign(np.random.default_rng(1).uniform(low, high, channels))


def _normalized(values, norm):
    gamma, beta, mean, variance = (_numpy(v) for v in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance))
    return (values - mean) / np.sqrt(variance + norm.epsilon) * gamma + beta


def test_convolution_of_ones_counts_the_taps_inside_the_image():
    block = ConvolutionBlock(1, 3, kernel_initializer="ones")
    found = _numpy(block(np.ones((1, 3, 4, 1), np.float32)))[0, :, :, 0]
    np.testing.assert_array_equal(found, [[4, 6, 6, 4], [6, 9, 9, 6], [4, 6, 6, 4]])


def test_convolution_of_stride_2_pads_evenly_as_torch_does():
    # Centres at rows and columns 0 and 2 of a 4 x 4 image; Keras's "same" would take 1 and 3.
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    block = ConvolutionBlock(1, 3, strides=2, kernel_initializer="ones")
    # [0 1; 4 5] = 10; [1 2 3; 5 6 7] = 24; [4 5; 8 9; 12 13] = 51; [5 6 7; 9 10 11; 13 14 15] = 90.
    np.testing.assert_array_equal(_numpy(block(image))[0, :, :, 0], [[10, 24], [51, 90]])


def test_convolution_with_an_even_kernel_shrinks_by_one():
    block = ConvolutionBlock(1, 2, kernel_initializer="ones")
    found = _numpy(block(np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)))[0, :, :, 0]
    np.testing.assert_array_equal(found, [[0 + 1 + 3 + 4, 1 + 2 + 4 + 5], [3 + 4 + 6 + 7, 4 + 5 + 7 + 8]])


def test_convolution_without_padding_keeps_whole_windows_only():
    block = ConvolutionBlock(1, 3, padding=0, kernel_initializer="ones")
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 4, 1)
    # 0 1 2, 4 5 6, 8 9 10 make 45; one column on, each of nine is 1 more.
    np.testing.assert_array_equal(_numpy(block(image))[0, :, :, 0], [[45, 54]])
    assert block.compute_output_shape((1, 3, 4, 1)) == (1, 1, 2, 1)


def test_convolution_padded_widely_grows():
    block = ConvolutionBlock(1, 4, padding=2, kernel_initializer="ones")
    found = _numpy(block(np.ones((1, 1, 1, 1), np.float32)))
    np.testing.assert_array_equal(found[0, :, :, 0], [[1, 1], [1, 1]])
    assert block.compute_output_shape((1, 1, 1, 1)) == (1, 2, 2, 1)


@pytest.mark.parametrize("size", [(7, 7), (8, 8), (5, 12), (1, 1)])
@pytest.mark.parametrize(
    ("kernel_size", "options"),
    [
        (3, {"strides": 2}),
        (7, {"strides": 2}),
        (1, {"strides": 2}),
        (3, {"dilation": 2}),
        (4, {}),
        (2, {"strides": 2}),
        (3, {}),
    ],
)
def test_convolution_output_shape_is_what_it_says(kernel_size, options, size):
    if kernel_size % 2 == 0 and min(size) < 2:
        return  # nothing would be left
    block = ConvolutionBlock(3, kernel_size, **options)
    found = block(np.zeros((2, *size, 2), np.float32))
    assert tuple(found.shape) == tuple(block.compute_output_shape((2, *size, 2)))
    if kernel_size % 2:
        strides = options.get("strides", 1)
        assert tuple(found.shape[1:3]) == tuple(-(-side // strides) for side in size)


def test_convolution_traces_with_unknown_size():
    inputs = keras.Input((None, None, 3))
    outputs = ConvolutionBlock(5, 3, strides=2, normalization="batch", activation="relu")(inputs)
    assert tuple(outputs.shape) == (None, None, None, 5)
    model = keras.Model(inputs, outputs)
    for size in ((9, 13), (4, 6)):
        image = RNG.normal(size=(1, *size, 3)).astype(np.float32)
        assert model(image).shape[1:3] == tuple(-(-side // 2) for side in size)


@pytest.mark.parametrize("normalization", ["batch", "sync_batch", "frozen_batch"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_folded_normalization_equals_convolution_then_normalization(normalization, use_bias):
    block = ConvolutionBlock(4, 3, normalization=normalization, use_bias=use_bias, bias_initializer="ones", epsilon=0.1)
    plain = ConvolutionBlock(4, 3, use_bias=use_bias, bias_initializer="ones")
    image = RNG.normal(size=(2, 6, 5, 3)).astype(np.float32)
    block(image), plain(image)
    plain.kernel.assign(block.kernel)
    _set_statistics(block.normalization)
    expected = _normalized(_numpy(plain(image)), block.normalization)
    for training in (False, None):
        np.testing.assert_allclose(_numpy(block(image, training=training)), expected, atol=1e-5)


def test_batch_normalization_in_training_uses_and_keeps_the_batch():
    block = ConvolutionBlock(4, 3, normalization="batch")
    image = RNG.normal(size=(4, 6, 5, 3)).astype(np.float32)
    found = _numpy(block(image, training=True))
    np.testing.assert_allclose(found.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(found.std((0, 1, 2)), 1, atol=1e-3)
    plain = ConvolutionBlock(4, 3, use_bias=False)
    plain.build(image.shape)
    plain.kernel.assign(block.kernel)
    # Momentum 0.9 from zero: a tenth of the batch's mean.
    batch_mean = _numpy(plain(image)).mean((0, 1, 2))
    np.testing.assert_allclose(_numpy(block.normalization.moving_mean), 0.1 * batch_mean, atol=1e-5)


@pytest.mark.parametrize("freeze", ["block", "normalization"])
def test_batch_normalization_that_is_frozen_keeps_its_statistics_in_training(freeze):
    block = ConvolutionBlock(4, 3, normalization="batch")
    image = RNG.normal(size=(2, 6, 5, 3)).astype(np.float32)
    block(image)
    _set_statistics(block.normalization)
    expected = _numpy(block(image, training=False))
    (block if freeze == "block" else block.normalization).trainable = False
    np.testing.assert_allclose(_numpy(block(image, training=True)), expected, atol=1e-5)


def test_frozen_batch_ignores_training():
    block = ConvolutionBlock(4, 3, normalization="frozen_batch")
    image = RNG.normal(size=(2, 6, 5, 3)).astype(np.float32)
    block(image)
    _set_statistics(block.normalization)
    before = [_numpy(v) for v in block.weights]
    np.testing.assert_array_equal(_numpy(block(image, training=True)), _numpy(block(image, training=False)))
    for old, variable in zip(before, block.weights, strict=True):
        np.testing.assert_array_equal(old, _numpy(variable))


def test_group_normalization_is_the_same_in_training():
    block = ConvolutionBlock(64, 1, normalization="group")
    image = RNG.normal(size=(2, 6, 5, 3)).astype(np.float32)
    found = _numpy(block(image, training=True))
    np.testing.assert_allclose(found, _numpy(block(image, training=False)), atol=1e-6)
    groups = found.reshape(2, 6, 5, 32, 2)
    np.testing.assert_allclose(groups.mean((1, 2, 4)), 0, atol=1e-4)


def test_convolution_has_a_bias_only_without_normalization_by_default():
    for normalization, expected in ((None, True), ("batch", False), ("frozen_batch", False)):
        block = ConvolutionBlock(4, 3, normalization=normalization)
        block.build((None, None, None, 2))
        assert (block.bias is not None) == expected


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
@pytest.mark.parametrize("normalization", [None, "batch", "frozen_batch", "group"])
@pytest.mark.parametrize("training", [True, False])
def test_convolution_computes_in_its_own_precision(policy, normalization, training):
    block = ConvolutionBlock(32, 3, normalization=normalization, activation="relu", dtype=policy)
    image = RNG.normal(size=(2, 6, 5, 3)).astype(np.float32)
    found = block(image, training=training)
    assert keras.backend.standardize_dtype(found.dtype) == block.compute_dtype
    full = ConvolutionBlock(32, 3, normalization=normalization, activation="relu", dtype="float32")
    full.build(image.shape)
    full.kernel.assign(ops.cast(block.kernel, "float32"))
    expected = _numpy(full(image, training=training))
    np.testing.assert_allclose(_numpy(ops.cast(found, "float32")), expected, atol=0.1)


def test_convolution_wrong_arguments_are_named():
    with pytest.raises(
        ValueError, match="`normalization` 'layer' is unknown; use 'batch', 'sync_batch', 'frozen_batch', 'group'"
    ):
        ConvolutionBlock(4, 3, normalization="layer")
    with pytest.raises(ValueError, match="`strides` 2 and `dilation` 3 cannot both be above 1"):
        ConvolutionBlock(4, 3, strides=2, dilation=3)
    with pytest.raises(ValueError, match="`padding` 'valid' must be a number of pixels, 0 or more, 'same', or None"):
        ConvolutionBlock(4, 3, padding="valid")
    with pytest.raises(ValueError, match="`padding` -1 must be"):
        ConvolutionBlock(4, 3, padding=-1)


def test_frozen_batch_normalization_by_hand():
    layer = FrozenBatchNormalization(epsilon=0.0)
    layer.build((None, 2))
    for variable, values in zip(
        (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance),
        ([2.0, 1.0], [1.0, 0.0], [3.0, 0.0], [4.0, 0.25]),
        strict=True,
    ):
        variable.assign(values)
    # (5 - 3) / 2 * 2 + 1 = 3; 1 / 0.5 = 2.
    np.testing.assert_allclose(_numpy(layer(np.array([[5.0, 1.0]], np.float32))), [[3, 2]])


def test_frozen_batch_normalization_is_never_trained():
    layer = FrozenBatchNormalization()
    layer.build((None, None, None, 3))
    layer.trainable = True
    assert layer.trainable_variables == [] and len(layer.non_trainable_variables) == 4
    model = keras.Sequential([keras.Input((4, 4, 3)), layer, keras.layers.Conv2D(2, 1)])
    model.trainable = True
    before = [_numpy(variable) for variable in layer.weights]
    model.compile("sgd", "mse")
    images = RNG.normal(5, 3, (4, 4, 4, 3)).astype(np.float32)
    kernel = _numpy(model.layers[-1].kernel)
    model.fit(images, np.zeros((4, 4, 4, 2)), verbose=0)
    for old, variable in zip(before, layer.weights, strict=True):
        np.testing.assert_array_equal(old, _numpy(variable))
    assert (kernel != _numpy(model.layers[-1].kernel)).any()

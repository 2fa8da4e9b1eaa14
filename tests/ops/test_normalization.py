"""Normalisation by the statistics of a batch, by hand and against Keras's own layer."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.layers import BatchNormalization
from kerasvision.ops.normalization import batch_normalization


def test_batch_normalization_of_four_pixels_is_by_hand():
    # Mean (1 + 3 + 5 + 7) / 4 = 4, variance (9 + 1 + 1 + 9) / 4 = 5; with an epsilon of 4, the deviation is 3.
    inputs = ops.convert_to_tensor(np.array([1, 3, 5, 7], np.float32).reshape(2, 2, 1, 1))
    outputs, mean, variance = batch_normalization(inputs, ops.ones(1) * 3, ops.ones(1) * 10, epsilon=4.0)
    np.testing.assert_allclose(ops.convert_to_numpy(outputs).ravel(), [7, 9, 11, 13], rtol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(mean), [4], rtol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(variance), [5], rtol=1e-6)


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (1, 1, 1, 6), (7, 6), (2, 3, 6)])
def test_batch_normalization_of_any_rank_has_the_statistics_of_all_but_channels(shape):
    values = np.random.default_rng(0).normal(5, 2, shape).astype(np.float32)
    outputs, mean, variance = batch_normalization(
        ops.convert_to_tensor(values), ops.ones(6) * 2, ops.ones(6), epsilon=1e-3
    )
    axes = tuple(range(len(shape) - 1))
    expected = (values - values.mean(axes)) / np.sqrt(values.var(axes) + 1e-3) * 2 + 1
    np.testing.assert_allclose(ops.convert_to_numpy(outputs), expected, atol=1e-4)
    np.testing.assert_allclose(ops.convert_to_numpy(mean), values.mean(axes), rtol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(variance), values.var(axes), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "options", [{}, {"scale": False}, {"center": False}, {"axis": 1}, {"trainable": False}, {"axis": 3}]
)
def test_batch_normalization_layer_trains_as_keras_does(options, dtype):
    values = np.random.default_rng(0).normal(5, 2, (4, 5, 6, 7)).astype(np.float32)
    ours = BatchNormalization(epsilon=0.1, momentum=0.7, dtype=dtype, **options)
    theirs = keras.layers.BatchNormalization(epsilon=0.1, momentum=0.7, dtype=dtype, **options)
    tolerance = 1e-5 if dtype == "float32" else 0.05
    for training in (True, True, False):
        values = values * 1.5 - 1
        outputs, expected = ours(values, training=training), theirs(values, training=training)
        assert keras.backend.standardize_dtype(outputs.dtype) == keras.backend.standardize_dtype(expected.dtype)
        outputs, expected = (ops.convert_to_numpy(ops.cast(array, "float32")) for array in (outputs, expected))
        np.testing.assert_allclose(outputs, expected, atol=tolerance)
    for variable, other in zip(ours.variables, theirs.variables, strict=True):
        assert variable.name == other.name
        np.testing.assert_allclose(
            ops.convert_to_numpy(variable), ops.convert_to_numpy(other), rtol=1e-5, err_msg=variable.name
        )


def test_batch_normalization_layer_heeds_masks_as_keras_does():
    values = np.random.default_rng(0).normal(5, 2, (4, 5, 6, 7)).astype(np.float32)
    mask = np.arange(120).reshape(4, 5, 6) % 3 > 0
    ours, theirs = BatchNormalization(), keras.layers.BatchNormalization(epsilon=1e-5, momentum=0.9)
    outputs, expected = (layer(values, training=True, mask=mask) for layer in (ours, theirs))
    np.testing.assert_allclose(ops.convert_to_numpy(outputs), ops.convert_to_numpy(expected), atol=1e-5)


def test_batch_normalization_gradients_are_those_of_its_formula():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow has a kernel of its own")
    import tensorflow as tf

    rng = np.random.default_rng(0)
    inputs, gamma, beta = (tf.constant(rng.normal(size=shape), tf.float32) for shape in ((2, 3, 4, 5), (5,), (5,)))
    weights = tf.constant(rng.normal(size=(2, 3, 4, 5)), tf.float32)

    def by_formula(inputs, gamma, beta):
        mean, variance = tf.nn.moments(inputs, [0, 1, 2])
        return tf.nn.batch_normalization(inputs, mean, variance, beta, gamma, 0.1)

    found = []
    for function in (lambda *arrays: batch_normalization(*arrays, epsilon=0.1)[0], by_formula):
        with tf.GradientTape() as tape:
            tape.watch([inputs, gamma, beta])
            total = tf.reduce_sum(function(inputs, gamma, beta) * weights)
        found.append(tape.gradient(total, [inputs, gamma, beta]))
    for ours, expected in zip(*found, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)

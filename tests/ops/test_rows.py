"""Rows of each image, and biases, against NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.ops.bias import add_bias
from kerasvision.ops.rows import count_ids, take_rows


@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 3), (1, 4, 2, 3)])
def test_take_rows_equals_numpy_take_along_axis(shape):
    values = np.random.default_rng(0).normal(size=shape).astype("float32")
    indices = np.random.default_rng(1).integers(0, shape[1], (shape[0], 7)).astype("int32")
    found = ops.convert_to_numpy(take_rows(values, indices))
    expected = np.stack([rows[picked] for rows, picked in zip(values, indices, strict=True)])
    np.testing.assert_array_equal(found, expected)


def test_take_rows_keeps_integers():
    found = ops.convert_to_numpy(take_rows(np.array([[7, 8], [9, 10]]), np.array([[1], [0]])))
    np.testing.assert_array_equal(found, [[8], [9]])
    assert found.dtype.kind == "i"


def test_count_ids_leaves_out_what_is_outside():
    found = ops.convert_to_numpy(count_ids(np.array([[2, 0, -1], [2, 4, 255]]), 4))
    np.testing.assert_array_equal(found, [1, 0, 2, 0])
    assert found.dtype == np.int32
    np.testing.assert_array_equal(ops.convert_to_numpy(count_ids(np.zeros((0,), "int32"), 2)), [0, 0])


def test_count_ids_counts_beyond_what_float32_can():
    # 2^24 + 3: float32 counts up to 2^24.
    ids = np.zeros(2**24 + 3, np.uint8)
    np.testing.assert_array_equal(ops.convert_to_numpy(count_ids(ids, 1)), [16_777_219])


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch runs eagerly")
def test_count_ids_in_compiled_code():
    ids = np.array([3, 1, 3, 7], np.int32)
    if keras.backend.backend() == "jax":
        import jax

        found = [jax.jit(lambda values: count_ids(values, 4))(ids)]
    else:
        import tensorflow as tf

        found = [tf.function(lambda values: count_ids(values, 4), jit_compile=xla)(ids) for xla in (False, True)]
    for counts in found:
        np.testing.assert_array_equal(np.asarray(counts), [0, 1, 0, 2])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_add_bias_keeps_the_dtype_of_the_features(dtype):
    features = ops.cast(np.arange(12).reshape(1, 2, 2, 3), dtype)
    found = add_bias(features, ops.convert_to_tensor([1.0, -2.0, 0.5], "float32"))
    assert found.dtype == features.dtype
    expected = np.arange(12).reshape(1, 2, 2, 3) + np.array([1, -2, 0.5])
    np.testing.assert_array_equal(ops.convert_to_numpy(ops.cast(found, "float32")), expected)

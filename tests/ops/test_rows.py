"""Rows of each image, and biases, against NumPy."""

import numpy as np
import pytest
from keras import ops

from kerasvision.ops.bias import add_bias
from kerasvision.ops.rows import take_rows


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


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_add_bias_keeps_the_dtype_of_the_features(dtype):
    features = ops.cast(np.arange(12).reshape(1, 2, 2, 3), dtype)
    found = add_bias(features, ops.convert_to_tensor([1.0, -2.0, 0.5], "float32"))
    assert found.dtype == features.dtype
    expected = np.arange(12).reshape(1, 2, 2, 3) + np.array([1, -2, 0.5])
    np.testing.assert_array_equal(ops.convert_to_numpy(ops.cast(found, "float32")), expected)

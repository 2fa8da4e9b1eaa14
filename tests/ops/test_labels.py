"""Class ids of any type by hand."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.ops.labels import no_class, whole_labels


def _numpy(labels, **options):
    found = whole_labels(ops.convert_to_tensor(labels), **options)
    assert keras.backend.standardize_dtype(found.dtype) == "int32"
    return ops.convert_to_numpy(found).tolist()


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_floats_that_are_no_ids_are_replaced(dtype):
    labels = ops.cast(np.array([0, 2, 0.75, -0.5, -3, 255, np.nan, np.inf, -np.inf, 250], np.float32), dtype)
    assert _numpy(labels, otherwise=-7) == [0, 2, -7, -7, -3, 255, -7, -7, -7, 250]


def test_floats_beyond_int32_are_replaced():
    assert _numpy(np.float32([2.0**31, -(2.0**32), 2.0**24]), otherwise=-1) == [-1, -1, 2**24]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "bool"])
def test_integers_are_cast(dtype):
    assert _numpy(np.array([0, 1, 1], dtype), otherwise=-1) == [0, 1, 1]


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has no int64")
def test_integers_beyond_int32_are_replaced():
    assert _numpy(np.array([2**32 + 1, -(2**32), 2**31, 2**31 - 1, -(2**31), 5]), otherwise=-1) == [
        *(-1, -1, -1),
        *(2**31 - 1, -(2**31), 5),
    ]
    assert _numpy(np.array([2**32 - 1, 3], np.uint32), otherwise=-2) == [-2, 3]


def test_no_labels_are_none():
    assert _numpy(np.zeros((0,), np.float32), otherwise=-1) == []


@pytest.mark.parametrize("ignored", [None, 255, -1, 0])
def test_no_class_is_not_the_ignored_one(ignored):
    assert no_class(ignored) < 0 and no_class(ignored) != ignored

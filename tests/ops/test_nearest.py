"""Enlarging by repeating pixels, by hand."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.ops.nearest import double_nearest, resize_nearest_like


class _Resize(keras.layers.Layer):
    def call(self, features, other):
        return resize_nearest_like(features, other)

    def compute_output_shape(self, features_shape, other_shape):
        return (*other_shape[:3], features_shape[-1])


def _rows(count, dtype="float32"):
    """Return (1, count, 1, 1) of 0, 1, 2 and so on."""
    return ops.reshape(ops.arange(count, dtype=dtype), (1, count, 1, 1))


# Row i of n comes from floor(i * count / n): for 2 -> 5, 0 * .4, .4, .8, 1.2, 1.6.
SIZES = [
    (3, 6, [0, 0, 1, 1, 2, 2]),
    (3, 5, [0, 0, 1, 1, 2]),
    (2, 3, [0, 0, 1]),
    (2, 5, [0, 0, 0, 1, 1]),
    (1, 1, [0]),
    (1, 2, [0, 0]),
    (1, 3, [0, 0, 0]),
    (4, 4, [0, 1, 2, 3]),
    (4, 2, [0, 2]),
]


@pytest.mark.parametrize(("count", "wanted", "expected"), SIZES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_resize_nearest_like_by_hand(count, wanted, expected, dtype):
    found = resize_nearest_like(_rows(count, dtype), ops.zeros((1, wanted, 1, 7)))
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    found = ops.convert_to_numpy(ops.cast(found, "float32"))
    assert found.shape == (1, wanted, 1, 1)
    np.testing.assert_array_equal(found[0, :, 0, 0], expected)
    columns = ops.transpose(_rows(count), (0, 2, 1, 3))
    found = ops.convert_to_numpy(resize_nearest_like(columns, ops.zeros((1, 1, wanted, 7))))
    np.testing.assert_array_equal(found[0, 0, :, 0], expected)


def test_resize_nearest_like_of_unknown_sizes_is_the_same():
    inputs = keras.Input((None, None, 1)), keras.Input((None, None, 2))
    model = keras.Model(inputs, _Resize()(*inputs))
    predict = model.predict_on_batch
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        unknown = [tf.TensorSpec((None, None, None, channels)) for channels in (1, 2)]
        predict = tf.function(lambda pair: model(pair), input_signature=[unknown])
    for count, wanted, expected in SIZES:
        found = ops.convert_to_numpy(predict([_rows(count), ops.zeros((1, wanted, 1, 2))]))
        np.testing.assert_array_equal(found[0, :, 0, 0], expected)


def test_resize_nearest_like_copies_what_is_not_finite():
    pixels = np.array([[np.nan, np.inf]], np.float32).reshape(1, 1, 2, 1)
    found = ops.convert_to_numpy(resize_nearest_like(ops.convert_to_tensor(pixels), ops.zeros((1, 1, 3, 1))))
    np.testing.assert_array_equal(found[0, 0, :, 0], [np.nan, np.nan, np.inf])


def test_resize_nearest_like_of_an_empty_batch():
    found = resize_nearest_like(ops.zeros((0, 2, 2, 3)), ops.zeros((0, 5, 4, 1)))
    assert tuple(found.shape) == (0, 5, 4, 3)


def test_double_nearest_repeats_pixels():
    found = ops.convert_to_numpy(double_nearest(ops.convert_to_tensor(np.array([[[[1.0], [2.0]]]]))))
    np.testing.assert_array_equal(found[0, :, :, 0], [[1, 1, 2, 2], [1, 1, 2, 2]])

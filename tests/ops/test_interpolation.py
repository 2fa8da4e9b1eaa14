"""Bilinear resizing: values by hand, compiled, in half precision, of sizes that only the graph knows."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.ops.interpolation import resize_bilinear

RNG = np.random.default_rng(0)


def _numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def _column(*values):
    return np.array(values, np.float32).reshape(1, -1, 1, 1)


# Aligned, output i of h lies at i * (H - 1) / (h - 1); else at (i + .5) * H / h - .5, not below 0 nor above H - 1.
BY_HAND = [
    (True, [0, 10], 5, [0, 2.5, 5, 7.5, 10]),  # 0, 1/4, 1/2, 3/4, 1
    (False, [0, 10], 4, [0, 2.5, 7.5, 10]),  # -1/4, 1/4, 3/4, 5/4
    (False, [0, 10], 3, [0, 5, 10]),  # -1/6, 1/2, 7/6
    (True, [0, 10, 40], 2, [0, 40]),  # 0, 2
    (False, [0, 10, 40], 2, [2.5, 32.5]),  # 1/4, 7/4
    (True, [0, 10, 40, 80, 90], 3, [0, 40, 90]),  # 0, 2, 4
    (False, [0, 10, 40, 80, 90, 60], 2, [10, 90]),  # 1, 4: no low-pass filter
    (True, [3, 10, 40], 1, [3]),  # row 0
    (False, [3, 10, 40], 1, [10]),  # 1
    (True, [7], 3, [7, 7, 7]),
    (False, [7], 3, [7, 7, 7]),
    (True, [1, 5, 2], 3, [1, 5, 2]),
    (False, [1, 5, 2], 3, [1, 5, 2]),
]


@pytest.mark.parametrize(("align_corners", "values", "size", "expected"), BY_HAND)
def test_resize_bilinear_by_hand(align_corners, values, size, expected):
    rows = resize_bilinear(ops.convert_to_tensor(_column(*values)), (size, 1), align_corners=align_corners)
    np.testing.assert_allclose(_numpy(rows), _column(*expected), atol=1e-5)
    columns = np.swapaxes(_column(*values), 1, 2)
    found = resize_bilinear(ops.convert_to_tensor(columns), (1, size), align_corners=align_corners)
    np.testing.assert_allclose(_numpy(found)[0, 0], _column(*expected)[0, :, 0], atol=1e-5)


def test_resize_bilinear_of_a_plane_is_the_plane():
    # Linear in rows, columns and channels; aligned corners reproduce it exactly.
    y, x, c = np.meshgrid(np.linspace(0, 4, 5), np.linspace(0, 6, 7), [1, 2, 3], indexing="ij")
    found = resize_bilinear(ops.cast((c * (2 * y - x))[None], "float32"), (9, 4), align_corners=True)
    y, x, c = np.meshgrid(np.linspace(0, 4, 9), np.linspace(0, 6, 4), [1, 2, 3], indexing="ij")
    np.testing.assert_allclose(_numpy(found)[0], c * (2 * y - x), atol=1e-5)


def test_resize_bilinear_of_no_image_is_none():
    assert tuple(resize_bilinear(ops.zeros((0, 3, 4, 2)), (5, 6)).shape) == (0, 5, 6, 2)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_resize_bilinear_rounds_only_its_result(align_corners, dtype):
    image = ops.cast(RNG.normal(0, 100, (1, 6, 5, 2)), dtype)
    found = resize_bilinear(image, (13, 9), align_corners=align_corners)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    full = resize_bilinear(ops.cast(image, "float32"), (13, 9), align_corners=align_corners)
    np.testing.assert_allclose(_numpy(found), _numpy(full), rtol=2**-8 if dtype == "bfloat16" else 2**-11)


def _value_and_slopes(align_corners, image, like):
    """Return the resized image and the gradient of the sum of its squares."""
    size = ops.shape(like)[1:3]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(image)
            found = resize_bilinear(image, size, align_corners=align_corners)
            total = tf.reduce_sum(found**2)
        return found, tape.gradient(total, image)
    import jax

    def total(image):
        found = resize_bilinear(image, size, align_corners=align_corners)
        return ops.sum(found**2), found

    slopes, found = jax.grad(total, has_aux=True)(image)
    return found, slopes


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(7, 12), (15, 3), (10, 8)])
def test_resize_bilinear_compiled_equals_eager(align_corners, size):
    # TensorFlow's native kernel is wrong under XLA where corners are not aligned and the size not doubled.
    if keras.backend.backend() == "torch":
        pytest.skip("nothing is compiled")
    image, like = ops.cast(RNG.normal(size=(2, 5, 4, 3)), "float32"), ops.zeros((2, *size, 1))
    expected = _value_and_slopes(align_corners, image, like)
    if keras.backend.backend() == "jax":
        import jax

        compiled = [jax.jit(_value_and_slopes, static_argnums=0)]
    else:
        import tensorflow as tf

        unknown = [tf.TensorSpec((None, None, None, 3)), tf.TensorSpec((None, None, None, 1))]
        compiled = [
            lambda align_corners, *arrays, xla=xla, signature=signature: tf.function(
                lambda *arrays: _value_and_slopes(align_corners, *arrays), input_signature=signature, jit_compile=xla
            )(*arrays)
            for xla in (False, True)
            for signature in (None, unknown)
        ]
    for function in compiled:
        for found, wanted in zip(function(align_corners, image, like), expected, strict=True):
            np.testing.assert_allclose(_numpy(found), _numpy(wanted), atol=1e-5)


def test_resize_bilinear_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"`size_hw` \(0, 3\) must be \(height, width\), both 1 or more"):
        resize_bilinear(ops.zeros((1, 2, 2, 1)), (0, 3))
    with pytest.raises(ValueError, match=r"`features` of shape \(2, 2, 1\) .* must be float \(B, H, W, C\)"):
        resize_bilinear(ops.zeros((2, 2, 1)), (3, 3))
    with pytest.raises(ValueError, match=r"int32.* must be float"):
        resize_bilinear(ops.zeros((1, 2, 2, 1), "int32"), (3, 3))


@pytest.mark.parametrize("align_corners", [False, True])
def test_resize_bilinear_does_not_depend_on_keras_image_data_format(align_corners):
    features = np.random.default_rng(0).random((1, 4, 5, 3)).astype(np.float32)
    expected = _numpy(resize_bilinear(ops.convert_to_tensor(features), (7, 6), align_corners=align_corners))
    keras.config.set_image_data_format("channels_first")
    try:
        found = _numpy(resize_bilinear(ops.convert_to_tensor(features), (7, 6), align_corners=align_corners))
    finally:
        keras.config.set_image_data_format("channels_last")
    np.testing.assert_array_equal(found, expected)

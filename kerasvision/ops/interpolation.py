"""Bilinear resizing of feature maps, with both conventions of where the corners are."""

import functools

import keras
from keras import ops

from kerasvision.ops.compilers import under_tensorflow_xla


def resize_bilinear(features, size_hw, *, align_corners=False):
    """Resize feature maps bilinearly, up or down, without a low-pass filter.

    Args:
        features: (B, H, W, C), float, H and W at least 1.
        size_hw: (h, w), integers or, on TensorFlow, scalar tensors, at least 1.
        align_corners: Where output i of h samples the input: with ``True`` at i * (H - 1) / (h - 1), so that the
            centres of the corner pixels stay in place (DeepLab in TensorFlow, segmentation_models.pytorch); with
            ``False`` at (i + 0.5) * H / h - 0.5, kept inside the map, so that the image's borders stay in place
            (torchvision, `keras.ops.image.resize`).

    Returns:
        (B, h, w, C) in the dtype of `features`, computed in float32. Where h is 1, aligned corners take row 0. NaN and
        infinities spread to the outputs that sample them or, where the backend multiplies by 0, their neighbours.

    Raises:
        ValueError: Features that are no floats, or not (B, H, W, C); a size below 1.

    Reference: torch.nn.functional.interpolate(mode="bilinear"), in values and gradients.
    """
    _check(features, size_hw)
    dtype = keras.backend.standardize_dtype(features.dtype)
    backend = keras.backend.backend()
    if backend == "tensorflow" and not under_tensorflow_xla():
        import tensorflow as tf

        resized = tf.raw_ops.ResizeBilinear(
            images=features, size=size_hw, align_corners=align_corners, half_pixel_centers=not align_corners
        )
        return tf.cast(resized, dtype)
    source_hw = tuple(ops.shape(features)[1:3])
    if backend != "tensorflow":
        size_hw = (int(size_hw[0]), int(size_hw[1]))
    if backend == "torch" and not align_corners:
        return ops.image.resize(
            features, size_hw, interpolation="bilinear", antialias=False, data_format="channels_last"
        )
    features = ops.cast(features, "float32")
    if backend == "jax":
        resized = _jax_function()(features, source_hw, size_hw, align_corners)
    elif backend == "tensorflow":
        # XLA's own kernel is wrong by whole values where corners are not aligned, unless it enlarges by a power of 2.
        resized = _multiply(features, source_hw, size_hw, align_corners)
    else:
        resized = _gather(features, size_hw, align_corners)
    return ops.cast(resized, dtype)


def _check(features, size_hw):
    if len(features.shape) != 4 or "float" not in keras.backend.standardize_dtype(features.dtype):
        raise ValueError(
            f"`features` of shape {tuple(features.shape)} and type {features.dtype} must be float (B, H, W, C)"
        )
    if len(size_hw) != 2 or any(isinstance(side, int) and side < 1 for side in size_hw):
        raise ValueError(f"`size_hw` {size_hw!r} must be (height, width), both 1 or more")


def _ratio(first, second):
    """Return the quotient of two integers, or a float32 tensor if one of them is a tensor."""
    if isinstance(first, int) and isinstance(second, int):
        return first / second
    return ops.cast(first, "float32") / ops.cast(second, "float32")


def _neighbours(count, size, align_corners):
    """Return int32 (size,) lower and upper indices of `count` pixels, and the float32 share of the upper."""
    steps = ops.arange(size, dtype="float32")
    if align_corners:
        last = max(size - 1, 1) if isinstance(size, int) else ops.maximum(size - 1, 1)
        places = steps * _ratio(count - 1, last)
    else:
        places = ops.maximum((steps + 0.5) * _ratio(count, size) - 0.5, 0.0)
    # Rounding may lift the last place above the last pixel.
    lower = ops.minimum(ops.cast(ops.floor(places), "int32"), count - 1)
    upper = ops.minimum(lower + 1, count - 1)
    return lower, upper, places - ops.cast(lower, "float32")


def _gather(features, size_hw, align_corners):
    """Interpolate rows, then columns, between the neighbours that are gathered."""
    for axis, size in ((1, size_hw[0]), (2, size_hw[1])):
        lower, upper, share = _neighbours(features.shape[axis], size, align_corners)
        share = ops.reshape(share, (-1, 1, 1) if axis == 1 else (-1, 1))
        first = ops.take(features, lower, axis=axis)
        features = first + (ops.take(features, upper, axis=axis) - first) * share
    return features  # (B, h, w, C)


def _matrix(count, size, align_corners):
    """Return float32 (size, count), the shares of all pixels in each output along one axis."""
    lower, upper, share = _neighbours(count, size, align_corners)
    share, pixels = ops.expand_dims(share, 1), ops.arange(count, dtype="int32")
    is_lower, is_upper = (ops.cast(ops.equal(ops.expand_dims(side, 1), pixels), "float32") for side in (lower, upper))
    return is_lower * (1 - share) + is_upper * share


def _multiply(features, source_hw, size_hw, align_corners):
    """Interpolate by matrices: more work than gathering, but its gradient is as fast."""
    rows = _matrix(source_hw[0], size_hw[0], align_corners)
    columns = _matrix(source_hw[1], size_hw[1], align_corners)
    return ops.einsum("wv,bhvc->bhwc", columns, ops.einsum("hg,bgvc->bhvc", rows, features))


@functools.cache
def _jax_function():
    """Return the resizing under JAX: it gathers forwards, and multiplies by matrices backwards.

    65x65x21 to 513x513 on one core: 2 ms, and 35 ms by matrices, as `jax.image.resize` has it; the gradient 140 ms by
    the scattering that a gather's gradient is, 40 ms by matrices.
    """
    import jax

    @functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
    def resize(features, source_hw, size_hw, align_corners):
        return _gather(features, size_hw, align_corners)

    def forward(features, source_hw, size_hw, align_corners):
        return resize(features, source_hw, size_hw, align_corners), None

    def backward(source_hw, size_hw, align_corners, _, slopes):
        source = jax.ShapeDtypeStruct((slopes.shape[0], *source_hw, slopes.shape[-1]), "float32")
        return jax.linear_transpose(lambda x: _multiply(x, source_hw, size_hw, align_corners), source)(slopes)

    resize.defvjp(forward, backward)
    return resize

"""Convolutions that Keras's own operations are slow at on a CPU: widely dilated ones, and those of single channels."""

from collections.abc import Callable

import keras
from keras import ops

from kerasvision.ops.compilers import on_cpu, under_xla

# A dilated convolution is taken apart where at most this share of its products lies inside the map. At 65x65 a dilation
# of 12 has 0.77: from 960 or 2048 to 256 channels that takes 0.5 to 0.8 of the time forwards and 0.9 to 1.3 with the
# gradient, on the three backends; 24 has 0.57: 0.2 to 0.7 and 0.5 to 1. At 6, 0.88, nothing is gained any more.
_USED_SHARE = 0.8


def atrous_convolution(features, kernel, dilation):
    """Convolve with holes; the output is as large as the input, zeros around it.

    Args:
        features: (B, H, W, C).
        kernel: (k, k, C, F), k odd.
        dilation: Pixels between the kernel's taps; may exceed the map, where all taps but the middle ones see zeros.

    Returns:
        (B, H, W, F).

    On a CPU, where many products are with padding (43 % at 65x65 with a dilation of 24, 60 % with 36, as in DeepLabV3),
    the taps of a float32 kernel are multiplied one by one, each with the part of the map that it sees. TensorFlow's
    own kernel needs up to 9 times as long, XLA's 5 times. Maps of unknown size are left to the backend.
    """
    height, width = features.shape[1:3]
    if (
        keras.backend.standardize_dtype(features.dtype) == "float32"  # less would be rounded once a tap
        and isinstance(height, int)
        and isinstance(width, int)
        and _used_share(height, kernel.shape[0], dilation) * _used_share(width, kernel.shape[1], dilation)
        <= _USED_SHARE
        and on_cpu(features)
    ):
        return _tap_by_tap(features, kernel, dilation)
    return ops.conv(features, kernel, strides=1, padding="same", data_format="channels_last", dilation_rate=dilation)


def depthwise_convolution(
    features,
    kernel,
    *,
    strides=1,
    padding: str | int = "same",
    dilation=1,
    finish: Callable | None = None,
    training=True,
):
    """Convolve each channel with its own kernel.

    Args:
        features: (B, H, W, C).
        kernel: (k, k, C, 1).
        strides: Pixels from one output to the next; above 1 only with a dilation of 1.
        padding: ``"same"`` or ``"valid"``, as in Keras, or the number of pixels of zeros on each side.
        dilation: Pixels between the kernel's taps.
        finish: What to do with the output, such as adding a bias, each pixel by itself.
        training: Whether gradients are wanted. Without them a strided convolution may be quicker.

    Returns:
        (B, H', W', C), or what `finish` makes of it.

    On a CPU, XLA makes many small convolutions of it; for XLA, and so under JAX, it is a sum of shifted maps there, 5
    to 30 times as fast forwards and 10 to 40 times backwards. Maps of unknown size are left to the backend.
    TensorFlow convolves with holes by cutting the map into pieces, one for each phase of the holes: they are finished
    before they are put together again, in the same pass over memory. Where its "same" would pad unevenly, the kernel
    gets taps of zero, which takes half of the time of padding the map; backwards they would take up to four times.
    """
    known = all(isinstance(size, int) for size in features.shape[1:3])
    finish = finish or (lambda outputs: outputs)
    if isinstance(padding, int):
        features, kernel, padding = _without_uneven_padding(features, kernel, strides, padding, dilation, training)
    if known and under_xla() and on_cpu(features):
        return finish(_sum_of_shifted(features, kernel, strides, padding, dilation))
    options = {"strides": strides, "data_format": "channels_last"}
    if dilation > 1 and _by_tensorflow_on_cpu(features):
        import tensorflow as tf

        def convolve(pieces, _, padding):
            return finish(ops.depthwise_conv(pieces, kernel, padding=padding.lower(), **options))

        return tf.nn.with_space_to_batch(
            features, [dilation, dilation], padding.upper(), convolve, filter_shape=kernel.shape[:2]
        )
    return finish(ops.depthwise_conv(features, kernel, padding=padding, dilation_rate=dilation, **options))


def _without_uneven_padding(features, kernel, strides, margin, dilation, training):
    """Return features and kernel that ``"same"`` or ``"valid"``, returned third, pads by `margin` on each side."""
    reach = dilation * (kernel.shape[0] - 1)
    if 2 * margin == reach and strides == 1:
        return features, kernel, "same"
    sizes = features.shape[1:3]
    if 2 * margin == reach and None not in sizes and _by_tensorflow_on_cpu(features):
        # "Same" adds what the last window lacks. That is k - 1, half on each side, if the last window ends there;
        # with as many taps of zero more, it does.
        lacks = [(size - 1) % strides for size in sizes]
        if not any(lacks) or not training:
            return features, ops.pad(kernel, ((0, lacks[0]), (0, lacks[1]), (0, 0), (0, 0))), "same"
    return ops.pad(features, ((0, 0), (margin, margin), (margin, margin), (0, 0))), kernel, "valid"


def _by_tensorflow_on_cpu(tensor):
    return keras.backend.backend() == "tensorflow" and not under_xla() and on_cpu(tensor)


def _shifts(size, taps, dilation):
    """Return the distances of the taps from the centre that see anything of `size` pixels."""
    return [shift for tap in range(taps) if abs(shift := (tap - taps // 2) * dilation) < size]


def _used_share(size, taps, dilation):
    """Return which share of all products along one axis is not with padding."""
    return sum(size - abs(shift) for shift in _shifts(size, taps, dilation)) / (taps * size)


def _tap_by_tap(features, kernel, dilation):
    height, width = features.shape[1:3]
    middle = (kernel.shape[0] // 2, kernel.shape[1] // 2)
    outputs = None
    for down in _shifts(height, kernel.shape[0], dilation):
        for right in _shifts(width, kernel.shape[1], dilation):
            seen = features[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
            tap = kernel[middle[0] + down // dilation, middle[1] + right // dilation]  # (C, F)
            margins = ((0, 0), (max(-down, 0), max(down, 0)), (max(-right, 0), max(right, 0)), (0, 0))
            part = ops.pad(ops.matmul(seen, tap), margins)  # (B, H, W, F)
            outputs = part if outputs is None else outputs + part
    return outputs


def _sum_of_shifted(features, kernel, strides, padding, dilation):
    dtype = keras.backend.standardize_dtype(features.dtype)
    taps = kernel.shape[0]
    reach = dilation * (taps - 1)
    if padding == "same":  # what is odd goes to the bottom and right
        margins = [max((-(-size // strides) - 1) * strides + reach + 1 - size, 0) for size in features.shape[1:3]]
        features = ops.pad(features, ((0, 0), *((margin // 2, margin - margin // 2) for margin in margins), (0, 0)))
    rows, columns = ((size - reach - 1) // strides * strides + 1 for size in features.shape[1:3])
    features, kernel = ops.cast(features, "float32"), ops.cast(kernel, "float32")
    outputs = 0.0
    for i in range(0, reach + 1, dilation):
        for j in range(0, reach + 1, dilation):
            seen = features[:, i : i + rows : strides, j : j + columns : strides]
            outputs = outputs + seen * kernel[i // dilation, j // dilation, :, 0]
    return ops.cast(outputs, dtype)  # (B, H', W', C)

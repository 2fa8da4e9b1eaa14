"""Sizes of feature maps, and bringing maps to the size of others: enlarging by repeating pixels, and cropping."""

import numpy as np
from keras import ops


def halved(size):
    """Return half a static size, rounded up, as "same" padding with stride 2 leaves; ``None`` for one not known."""
    return None if size is None else -(-size // 2)


def double_nearest(features):
    """Double the height and width of (B, H, W, C) features by repeating each pixel."""
    return ops.repeat(ops.repeat(features, 2, axis=1), 2, axis=2)  # (B, 2H, 2W, C)


def resize_nearest_like(features, other):
    """Resize features to the height and width of other features: output row i is row floor(i H / H') of the input.

    A map twice as large, or twice less one as where an odd size was halved and rounded up, repeats each pixel. Where
    sizes are not known when a graph is made, pixels are gathered, with the same result.

    Args:
        features: (B, H, W, C).
        other: (B, H', W', any number of channels).

    Returns:
        (B, H', W', C) in the dtype of `features`; not finite pixels are copied as any other.

    Reference: `torch.nn.functional.interpolate(mode="nearest")`.
    """
    for axis in (1, 2):
        size, wanted = features.shape[axis], other.shape[axis]
        if not isinstance(size, int) or not isinstance(wanted, int):
            size, wanted = ops.shape(features)[axis], ops.shape(other)[axis]
            features = ops.take(features, ops.arange(wanted) * size // wanted, axis=axis)
        elif wanted == size:
            continue
        elif wanted in (2 * size, 2 * size - 1):
            # floor(i H / (2H - 1)) is floor(i / 2) for every row i < 2H - 1. Repeating is faster than gathering, most
            # of all its gradient.
            features = ops.repeat(features, 2, axis=axis)
            if wanted % 2:
                features = features[:, :wanted] if axis == 1 else features[:, :, :wanted]
        else:
            features = ops.take(features, np.arange(wanted) * size // wanted, axis=axis)
    return features  # (B, H', W', C)


def crop_like(features, other):
    """Cut features to the height and width of other features, at the bottom and on the right.

    What was halved and rounded up joins a level that was halved and rounded down.

    Args:
        features: (B, H, W, C).
        other: (B, H', W', any number of channels), not larger.

    Returns:
        (B, H', W', C); `features` themselves if the sizes are known to be equal.
    """
    sizes, wanted = features.shape[1:3], other.shape[1:3]
    known = all(isinstance(size, int) for size in (*sizes, *wanted))
    if known and tuple(sizes) == tuple(wanted):
        return features
    height, width = wanted if known else ops.shape(other)[1:3]
    return features[:, :height, :width]  # (B, H', W', C)


def fit_to(features, size_hw):
    """Cut features to a height and width at the bottom and on the right, or fill them up with zeros there.

    Args:
        features: (B, H, W, C).
        size_hw: (H', W'), integers or scalar tensors.

    Returns:
        (B, H', W', C); `features` themselves if the sizes are known to be equal.
    """
    height, width = size_hw
    sizes = tuple(ops.shape(features)[1:3])
    if all(isinstance(size, int) for size in (*sizes, height, width)):
        if sizes == (height, width):
            return features
        missing = [max(wanted - size, 0) for wanted, size in zip(size_hw, sizes, strict=True)]
        if not any(missing):
            return features[:, :height, :width]
    else:
        missing = [ops.maximum(wanted - size, 0) for wanted, size in zip(size_hw, sizes, strict=True)]
    features = features[:, :height, :width]
    return ops.pad(features, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))  # (B, H', W', C)


def crop_centre_like(features, other):
    """Cut the middle out of features, in the height and width of other features.

    Args:
        features: (B, H, W, C).
        other: (B, H', W', any number of channels), not larger.

    Returns:
        (B, H', W', C), without (H - H') // 2 rows at the top and (W - W') // 2 columns on the left.
    """
    (height, width), (full_height, full_width) = ops.shape(other)[1:3], ops.shape(features)[1:3]
    top, left = (full_height - height) // 2, (full_width - width) // 2
    return features[:, top : top + height, left : left + width]  # (B, H', W', C)

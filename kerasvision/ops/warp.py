"""Boxes cut out of images and warped to one size, with some of what is around them, as R-CNN does."""

from keras import ops


def warp_boxes(images, indices, boxes_xyxy, *, size, context=0, sizes_hw=None):
    """Return the content of boxes, stretched to squares of pixels, bilinearly.

    Args:
        images: (B, H, W, C).
        indices: (N,) int32: the image that each box belongs to.
        boxes_xyxy: (N, 4) pixels; a box without area gives zeros where it lies outside of its image.
        size: S, pixels along each side of the result.
        context: Pixels of the result, on each side, that show what is around the box: it is enlarged about its centre
            by S / (S - 2 `context`).
        sizes_hw: (B, 2) each image's valid region; ``None``: all of it.

    Returns:
        (N, S, S, C) float32. Pixels whose centres lie outside of the image are 0, the mean of normalised images; there
        is no low-pass filter.

    Raises:
        ValueError: A context that leaves nothing of the box.

    Source: Girshick et al. 2014, https://arxiv.org/abs/1311.2524, appendix A, (D), and the authors' rcnn_im_crop.m.
    Differs from the latter: boxes are not rounded to whole pixels.
    """
    if not 0 <= 2 * context < size:
        raise ValueError(f"`context` {context!r} must be at least 0 and less than half of `size` {size!r}")
    height, width, channels = ops.shape(images)[1:]
    indices = ops.cast(indices, "int32")
    boxes = ops.cast(boxes_xyxy, "float32")
    if sizes_hw is None:
        limits = ops.stack([ops.cast(height, "float32"), ops.cast(width, "float32")])
        limits = ops.broadcast_to(limits, (ops.shape(boxes)[0], 2))
    else:
        limits = ops.cast(ops.take(sizes_hw, indices, axis=0), "float32")  # (N, 2)
    outer = size / (size - 2 * context)
    rows = _taps(boxes[:, 1], boxes[:, 3], limits[:, 0], size, outer)
    columns = _taps(boxes[:, 0], boxes[:, 2], limits[:, 1], size, outer)
    pixels = ops.reshape(images, (-1, channels))  # (B H W, C)
    starts = ops.reshape(indices * height, (-1, 1))  # (N, 1)
    total = 0.0
    for row, row_weight in rows:
        for column, column_weight in columns:
            places = ops.expand_dims((starts + row) * width, 2) + ops.expand_dims(column, 1)  # (N, S, S)
            weight = ops.expand_dims(row_weight, 2) * ops.expand_dims(column_weight, 1)  # (N, S, S)
            taken = ops.cast(ops.take(pixels, places, axis=0), "float32")  # (N, S, S, C)
            total += taken * ops.expand_dims(weight, -1)
    return total


def _taps(low, high, limit, size, outer):
    """Return, for both neighbours of each sample along an axis, its pixel (N, S) int32 and its weight (N, S).

    Weights are 0 for samples outside of the image.
    """
    low, high, limit = (ops.expand_dims(part, 1) for part in (low, high, limit))  # (N, 1)
    offsets = (ops.arange(size, dtype="float32") + 0.5) / size - 0.5  # (S,)
    samples = (low + high) / 2 + (high - low) * outer * offsets  # (N, S), edges of pixels being whole numbers
    inside = ops.cast(ops.logical_and(samples >= 0, samples < limit), "float32")
    first = ops.floor(samples - 0.5)
    share = samples - 0.5 - first
    return [
        (ops.cast(ops.clip(at, 0.0, limit - 1), "int32"), weight * inside)
        for at, weight in ((first, 1 - share), (first + 1, share))
    ]

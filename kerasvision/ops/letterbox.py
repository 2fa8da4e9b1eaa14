"""Boxes in the pixels of a letterboxed image, and back: what `ResizeRule("letterbox")` does to images, in the graph."""

import numpy as np
from keras import ops


def letterbox_size(sizes_hw, canvas_hw):
    """Return the sizes that images are resized to inside their canvas, padding excluded.

    Args:
        sizes_hw: (B, 2) or (2,) integer heights and widths of the images in pixels, positive, up to 32767.
        canvas_hw: (height, width) of the canvas in pixels, integers or a (2,) tensor, positive, up to 32767.

    Returns:
        int32 (B, 2) or (2,): the largest size of the same aspect ratio that fits, rounded to whole pixels (halves
        to even), at least 1. Equal to `ResizeRule("letterbox", size_hw=canvas_hw).scaled_hw`. A size of an image that
        is below 1 counts as 1 where it comes in a tensor, whose values are not looked at.

    Raises:
        ValueError: A size below 1, given as numbers or a NumPy array; so do all functions of this module.
    """
    _check_positive("canvas_hw", canvas_hw)
    height, width = ops.unstack(_positive_sizes(sizes_hw), 2, axis=-1)
    canvas_height, canvas_width = ops.unstack(ops.cast(ops.convert_to_tensor(canvas_hw), "int32"), 2)
    # All in integers: float32 would round some halves the other way. The image is wider than the canvas if:
    wide = width * canvas_height > height * canvas_width
    scaled_height = ops.where(wide, _divide_rounded(height * canvas_width, width), canvas_height)
    scaled_width = ops.where(wide, canvas_width, _divide_rounded(width * canvas_height, height))
    return ops.maximum(ops.stack([scaled_height, scaled_width], axis=-1), 1)


def _check_positive(name, sizes):
    """Raise ValueError for a size below 1, where values can be seen without waiting for a computation."""
    sides = [sizes] if isinstance(sizes, np.ndarray) else sizes if isinstance(sizes, list | tuple) else []
    if any(
        isinstance(side, int | float | list | np.generic | np.ndarray) and np.any(np.less(side, 1)) for side in sides
    ):
        raise ValueError(f"`{name}` {sizes!r} must be heights and widths of 1 pixel or more")


def _positive_sizes(sizes_hw):
    """Return the images' sizes in int32, checked, and at least 1."""
    _check_positive("sizes_hw", sizes_hw)
    return ops.maximum(ops.cast(sizes_hw, "int32"), 1)


def _divide_rounded(numerator, denominator):
    quotient, rest = numerator // denominator, numerator % denominator
    up = (rest > denominator - rest) | ((rest == denominator - rest) & (quotient % 2 == 1))
    return quotient + ops.cast(up, "int32")


def _scale_and_shift(sizes_hw, canvas_hw, centered, dtype):
    """Return factors and offsets (B, 1, 4) or (1, 4) of `xyxy` coordinates."""
    scaled = letterbox_size(sizes_hw, canvas_hw)
    scale = ops.cast(scaled, dtype) / ops.cast(_positive_sizes(sizes_hw), dtype)  # (..., 2)
    scale = ops.expand_dims(ops.tile(ops.flip(scale, axis=-1), (1,) * (len(scale.shape) - 1) + (2,)), -2)
    if not centered:
        return scale, ops.zeros_like(scale)
    margin = ops.cast((ops.cast(ops.convert_to_tensor(canvas_hw), "int32") - scaled) // 2, dtype)
    margin = ops.flip(margin, axis=-1)
    return scale, ops.expand_dims(ops.concatenate([margin, margin], axis=-1), -2)


def letterbox_boxes(boxes_xyxy, sizes_hw, canvas_hw, *, centered=False):
    """Return boxes in the pixels of the canvas.

    Args:
        boxes_xyxy: (B, N, 4) or (N, 4) boxes in the pixels of their own images.
        sizes_hw: (B, 2) or (2,) heights and widths of the images.
        canvas_hw: (height, width) of the canvas.
        centered: Whether the image lies in the middle of the canvas, as darknet's letterbox has it (an odd margin
            is smaller by one at the top or left); otherwise in the upper left corner, as `ResizeRule` has it.

    Returns:
        float32 boxes of the same shape, not clipped. NaN stays NaN; padding rows are scaled like all others.
    """
    boxes_xyxy = ops.cast(boxes_xyxy, "float32")
    scale, shift = _scale_and_shift(sizes_hw, canvas_hw, centered, boxes_xyxy.dtype)
    return boxes_xyxy * scale + shift


def unletterbox_boxes(boxes_xyxy, sizes_hw, canvas_hw, *, centered=False):
    """Return boxes of the canvas in the pixels of their own images: the inverse of `letterbox_boxes`.

    Args:
        boxes_xyxy: (B, N, 4) or (N, 4) boxes in the pixels of the canvas.
        sizes_hw: As in `letterbox_boxes`.
        canvas_hw: As in `letterbox_boxes`.
        centered: As in `letterbox_boxes`.

    Returns:
        float32 boxes of the same shape, not clipped: the inverse to within float32 rounding (1e-4 pixels at 1000).
    """
    boxes_xyxy = ops.cast(boxes_xyxy, "float32")
    scale, shift = _scale_and_shift(sizes_hw, canvas_hw, centered, boxes_xyxy.dtype)
    return (boxes_xyxy - shift) / scale

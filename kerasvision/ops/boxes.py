"""Axis-aligned boxes as `(..., 4)` tensors of absolute `xyxy` pixels: formats, area, clipping, IoU family, coding.

Every function is stateless, works on TensorFlow, JAX and PyTorch tensors, and broadcasts over leading axes. Integers
and half precision are computed and returned in float32 (an 800x800 box overflows float16, and bfloat16 has steps of
4 pixels at 800); float64 stays float64 if all arguments are.

The overlap measures (`iou`, `giou`, `diou`, `ciou`, and `pairwise_...` of each) have a stated result for every input:
a box of negative width or height has no area; where a ratio is 0/0, contains a NaN, or its denominator overflows
(float32: coordinates beyond about 1e18), that ratio counts as 0. So values are always finite. They have no epsilon in
the denominators, unlike torchvision's: normalised boxes get the same values as pixels.
"""

import math
from typing import Literal

import keras
from keras import ops

# torchvision and Detectron clamp log-size deltas here, so that exp() cannot overflow (BoxCoder.bbox_xform_clip).
MAX_LOG_SIZE = math.log(1000.0 / 16)

BoxFormat = Literal["xyxy", "yxyx", "xywh", "cxcywh", "rel_xyxy", "rel_yxyx", "rel_xywh", "rel_cxcywh"]
FORMATS = ("xyxy", "yxyx", "xywh", "cxcywh", "rel_xyxy", "rel_yxyx", "rel_xywh", "rel_cxcywh")


def _in_floats(*tensors):
    """Return the tensors in one dtype: float64 if all of them are, else float32."""
    dtypes = {keras.backend.standardize_dtype(getattr(tensor, "dtype", "float32")) for tensor in tensors}
    dtype = "float64" if dtypes == {"float64"} else "float32"
    return [ops.cast(tensor, dtype) for tensor in tensors]


def _limits(sizes_hw, dtype):
    """Return image sizes (B, 2) or (2,) as width, height, width, height: (B, 1, 4) or (1, 4)."""
    height, width = ops.unstack(ops.cast(sizes_hw, dtype), 2, axis=-1)
    return ops.expand_dims(ops.stack([width, height, width, height], axis=-1), -2)


def convert(boxes, source: BoxFormat, target: BoxFormat, *, sizes_hw=None):
    """Convert boxes from one format to another.

    ========== ==========================================
    format     numbers
    ========== ==========================================
    `xyxy`     left, top, right, bottom (the zoo's own)
    `yxyx`     top, left, bottom, right (TensorFlow, TFDS)
    `xywh`     left, top, width, height (COCO)
    `cxcywh`   centre x, centre y, width, height (YOLO)
    ========== ==========================================

    They are absolute pixels; with `rel_` in front, fractions of the image's width and height.

    Args:
        boxes: (..., N, 4), or (4,) if no sizes are needed.
        source: Format of `boxes`.
        target: Format to return.
        sizes_hw: Image heights and widths in pixels, (2,) or (B, 2) for boxes (B, N, 4); needed if exactly one
            of the formats is relative.

    Returns:
        float boxes of the same shape. Nothing is checked or clipped: an inverted `xyxy` box gets a negative width.

    Raises:
        ValueError: An unknown format; sizes that are needed and missing.

    As `keras.utils.bounding_boxes.convert_format`, which takes one image size for the whole batch.
    """
    for name, value in (("source", source), ("target", target)):
        if value not in FORMATS:
            raise ValueError(f"`{name}` {value!r} is not a box format; use one of {', '.join(FORMATS)}")
    (boxes,) = _in_floats(boxes)
    if source == target:
        return boxes
    from_relative, to_relative = source.startswith("rel_"), target.startswith("rel_")
    boxes = _from_xyxy(_to_xyxy(boxes, source.removeprefix("rel_")), target.removeprefix("rel_"))
    if from_relative == to_relative:
        return boxes
    if sizes_hw is None:
        raise ValueError(
            f"`sizes_hw` None must be the images' (height, width) in pixels to convert {source!r} to {target!r}; pass "
            "a (2,) or (B, 2) tensor"
        )
    limits = _limits(sizes_hw, boxes.dtype)
    if target.endswith("yxyx"):
        limits = ops.flip(limits, axis=-1)
    return boxes * limits if from_relative else boxes / limits


def _to_xyxy(boxes, source):
    if source == "xyxy":
        return boxes
    if source == "yxyx":
        y1, x1, y2, x2 = ops.unstack(boxes, 4, axis=-1)
        return ops.stack([x1, y1, x2, y2], axis=-1)
    first, sizes = boxes[..., :2], boxes[..., 2:]
    if source == "cxcywh":
        return ops.concatenate([first - 0.5 * sizes, first + 0.5 * sizes], axis=-1)
    return ops.concatenate([first, first + sizes], axis=-1)


def _from_xyxy(boxes, target):
    if target == "xyxy":
        return boxes
    if target == "yxyx":
        return _to_xyxy(boxes, "yxyx")  # the same exchange
    upper_left, lower_right = boxes[..., :2], boxes[..., 2:]
    first = 0.5 * (upper_left + lower_right) if target == "cxcywh" else upper_left
    return ops.concatenate([first, lower_right - upper_left], axis=-1)


def area(boxes_xyxy):
    """Return the areas of boxes, in square pixels; 0 for boxes of negative width or height.

    Args:
        boxes_xyxy: (..., 4) absolute pixels.

    Returns:
        (...) float; NaN for a box with a NaN coordinate.
    """
    (boxes_xyxy,) = _in_floats(boxes_xyxy)
    x1, y1, x2, y2 = ops.unstack(boxes_xyxy, 4, axis=-1)
    return ops.maximum(x2 - x1, 0) * ops.maximum(y2 - y1, 0)


def clip(boxes_xyxy, sizes_hw):
    """Clip boxes to their images.

    Args:
        boxes_xyxy: (B, N, 4) absolute pixels.
        sizes_hw: (B, 2) or (2,) image heights and widths in pixels.

    Returns:
        (B, N, 4) boxes with 0 <= x <= width and 0 <= y <= height: a box outside its image becomes a line or a
        point on the edge, of no area. Infinities are clipped, NaN stays NaN.
    """
    (boxes_xyxy,) = _in_floats(boxes_xyxy)
    # Not ops.clip, which turns NaN into a bound on some backends.
    return ops.minimum(ops.maximum(boxes_xyxy, 0), _limits(sizes_hw, boxes_xyxy.dtype))


def _overlap(a, b):
    """Return the intersections and unions of broadcastable `xyxy` boxes, as areas."""
    width = ops.minimum(a[..., 2], b[..., 2]) - ops.maximum(a[..., 0], b[..., 0])
    height = ops.minimum(a[..., 3], b[..., 3]) - ops.maximum(a[..., 1], b[..., 1])
    intersection = ops.maximum(width, 0) * ops.maximum(height, 0)
    return intersection, area(a) + area(b) - intersection


def _enclosing_size(a, b):
    """Return the width and height of the smallest boxes around both."""
    width = ops.maximum(a[..., 2], b[..., 2]) - ops.minimum(a[..., 0], b[..., 0])
    height = ops.maximum(a[..., 3], b[..., 3]) - ops.minimum(a[..., 1], b[..., 1])
    return ops.maximum(width, 0), ops.maximum(height, 0)


def _divide_or_zero(numerator, denominator):
    """Divide, giving 0 (and a gradient of 0) where the denominator is 0, infinite or NaN."""
    usable = ops.logical_and(denominator > 0, denominator < float("inf"))
    return ops.where(usable, numerator / ops.where(usable, denominator, 1), 0)


def iou(boxes_a, boxes_b):
    """Return the intersection over union of broadcastable boxes, element by element.

    Args:
        boxes_a: (..., 4) absolute `xyxy` pixels.
        boxes_b: (..., 4) absolute `xyxy` pixels.

    Returns:
        (...) in [0, 1]; two boxes without area have 0.
    """
    return _divide_or_zero(*_overlap(*_in_floats(boxes_a, boxes_b)))


def giou(boxes_a, boxes_b):
    """Return the generalised IoU of broadcastable boxes (Rezatofighi et al. 2019, https://arxiv.org/abs/1902.09630).

    Args:
        boxes_a: (..., 4) absolute `xyxy` pixels.
        boxes_b: (..., 4) absolute `xyxy` pixels.

    Returns:
        (...) in [-1, 1]: IoU less the share of the enclosing box that the union leaves empty.
    """
    a, b = _in_floats(boxes_a, boxes_b)
    intersection, union = _overlap(a, b)
    width, height = _enclosing_size(a, b)
    enclosing = width * height
    return _divide_or_zero(intersection, union) - _divide_or_zero(enclosing - union, enclosing)


def _center_penalty(a, b):
    """Return the squared distance of the centres over the squared diagonal of the enclosing box."""
    width, height = _enclosing_size(a, b)
    dx = 0.5 * ((a[..., 0] + a[..., 2]) - (b[..., 0] + b[..., 2]))
    dy = 0.5 * ((a[..., 1] + a[..., 3]) - (b[..., 1] + b[..., 3]))
    return _divide_or_zero(ops.square(dx) + ops.square(dy), ops.square(width) + ops.square(height))


def diou(boxes_a, boxes_b):
    """Return the distance IoU of broadcastable boxes (Zheng et al. 2020, https://arxiv.org/abs/1911.08287, eq. 7).

    Args:
        boxes_a: (..., 4) absolute `xyxy` pixels.
        boxes_b: (..., 4) absolute `xyxy` pixels.

    Returns:
        (...) in [-1, 1]: IoU less the squared distance of the centres, as a share of the squared diagonal of the
        enclosing box. Two equal points have 0.
    """
    a, b = _in_floats(boxes_a, boxes_b)
    return _divide_or_zero(*_overlap(a, b)) - _center_penalty(a, b)


def _angle(boxes_xyxy):
    """Return arctan(width / height); pi / 2 for height 0, 0 for a point."""
    width = ops.maximum(boxes_xyxy[..., 2] - boxes_xyxy[..., 0], 0)
    height = ops.maximum(boxes_xyxy[..., 3] - boxes_xyxy[..., 1], 0)
    # arctan2 has no slope at (0, 0): NaN would reach the other boxes' weights.
    return ops.arctan2(width, ops.where(ops.maximum(width, height) > 0, height, 1))


def ciou(boxes_a, boxes_b):
    """Return the complete IoU of broadcastable boxes (Zheng et al. 2020, https://arxiv.org/abs/1911.08287, eq. 8-11).

    Args:
        boxes_a: (..., 4) absolute `xyxy` pixels.
        boxes_b: (..., 4) absolute `xyxy` pixels.

    Returns:
        (...) in [-2, 1]: `diou` less alpha v, where v = (4 / pi^2) (difference of arctan(width / height))^2 and
        alpha = v / (1 - IoU + v). A box of height 0 counts as infinitely wide, a point as infinitely narrow.

    As in torchvision and the authors' code, no gradient flows through alpha. Differs from the paper: the gradient of
    v is the true one, not multiplied by width^2 + height^2.
    """
    a, b = _in_floats(boxes_a, boxes_b)
    overlap = _divide_or_zero(*_overlap(a, b))
    v = (4 / math.pi**2) * ops.square(_angle(a) - _angle(b))
    v = ops.where(v >= 0, v, 0)  # NaN counts as 0
    alpha = ops.stop_gradient(_divide_or_zero(v, ops.maximum(1 - overlap, 0) + v))
    return overlap - _center_penalty(a, b) - alpha * v


def _pairwise(function, boxes_a, boxes_b):
    return function(ops.expand_dims(boxes_a, -2), ops.expand_dims(boxes_b, -3))


def pairwise_iou(boxes_a, boxes_b):
    """Return the `iou` of every box of one set with every box of another.

    Args:
        boxes_a: (..., M, 4) absolute `xyxy` pixels.
        boxes_b: (..., N, 4) absolute `xyxy` pixels; leading axes broadcast.

    Returns:
        (..., M, N) in [0, 1].
    """
    return _pairwise(iou, boxes_a, boxes_b)


def pairwise_giou(boxes_a, boxes_b):
    """Return the `giou` of every box of (..., M, 4) with every box of (..., N, 4): (..., M, N) in [-1, 1]."""
    return _pairwise(giou, boxes_a, boxes_b)


def pairwise_diou(boxes_a, boxes_b):
    """Return the `diou` of every box of (..., M, 4) with every box of (..., N, 4): (..., M, N) in [-1, 1]."""
    return _pairwise(diou, boxes_a, boxes_b)


def pairwise_ciou(boxes_a, boxes_b):
    """Return the `ciou` of every box of (..., M, 4) with every box of (..., N, 4): (..., M, N) in [-2, 1]."""
    return _pairwise(ciou, boxes_a, boxes_b)


def encode_deltas(boxes_xyxy, anchors_xyxy, weights=(1.0, 1.0, 1.0, 1.0)):
    """Express boxes relative to anchors (R-CNN, Girshick et al. 2014, appendix C).

    Args:
        boxes_xyxy: (..., 4) boxes to reach.
        anchors_xyxy: (..., 4) boxes to start from; leading axes broadcast. An anchor without width or height, such as
            padding, is widened to 1e-6 pixels on that side, so that deltas stay finite; they are large then.
        weights: Factors of dx, dy, dw and dh: the inverse of the deltas' expected spread. SSD's "variances" are the
            inverse: (0.1, 0.1, 0.2, 0.2) are weights of (10, 10, 5, 5).

    Returns:
        (..., 4) deltas dx, dy, dw, dh. A box without area is widened to 1e-6 pixels, so that logs stay finite.
    """
    boxes_xyxy, anchors_xyxy = _in_floats(boxes_xyxy, anchors_xyxy)
    anchor_sizes = anchors_xyxy[..., 2:] - anchors_xyxy[..., :2]
    anchor_centers = anchors_xyxy[..., :2] + 0.5 * anchor_sizes
    anchor_sizes = ops.maximum(anchor_sizes, 1e-6)
    sizes = ops.maximum(boxes_xyxy[..., 2:] - boxes_xyxy[..., :2], 1e-6)
    centers = boxes_xyxy[..., :2] + 0.5 * (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2])
    deltas = ops.concatenate([(centers - anchor_centers) / anchor_sizes, ops.log(sizes / anchor_sizes)], axis=-1)
    return deltas * ops.convert_to_tensor(weights, deltas.dtype)


def decode_deltas(deltas, anchors_xyxy, weights=(1.0, 1.0, 1.0, 1.0), max_log_size=MAX_LOG_SIZE):
    """Apply predicted deltas to anchors: the inverse of `encode_deltas`.

    Args:
        deltas: (..., 4) dx, dy, dw, dh.
        anchors_xyxy: (..., 4) absolute pixels; leading axes broadcast.
        weights: As in `encode_deltas`.
        max_log_size: Upper bound of dw and dh after division by their weights; infinity for none.

    Returns:
        (..., 4) boxes in absolute `xyxy` pixels, not clipped to any image; NaN where a delta is.
    """
    deltas, anchors_xyxy = _in_floats(deltas, anchors_xyxy)
    deltas = deltas / ops.convert_to_tensor(weights, deltas.dtype)
    anchor_sizes = anchors_xyxy[..., 2:] - anchors_xyxy[..., :2]
    centers = anchors_xyxy[..., :2] + 0.5 * anchor_sizes + deltas[..., :2] * anchor_sizes
    half_sizes = 0.5 * anchor_sizes * ops.exp(ops.minimum(deltas[..., 2:], max_log_size))
    return ops.concatenate([centers - half_sizes, centers + half_sizes], axis=-1)

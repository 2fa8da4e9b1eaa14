"""Axis-aligned boxes as `(..., 4)` tensors of absolute `xyxy` pixels: area, IoU, GIoU, clipping, coding.

Every function is stateless, works on TensorFlow, JAX and PyTorch tensors, and broadcasts over leading axes.
"""

import math

from keras import ops

# torchvision and Detectron clamp log-size deltas here, so that exp() cannot overflow (BoxCoder.bbox_xform_clip).
MAX_LOG_SIZE = math.log(1000.0 / 16)


def area(boxes_xyxy):
    """Return the areas of boxes, in square pixels; 0 for boxes of negative width or height.

    Args:
        boxes_xyxy: (..., 4) absolute pixels.

    Returns:
        (...) float.
    """
    x1, y1, x2, y2 = ops.unstack(boxes_xyxy, 4, axis=-1)
    return ops.maximum(x2 - x1, 0) * ops.maximum(y2 - y1, 0)


def clip(boxes_xyxy, sizes_hw):
    """Clip boxes to their images.

    Args:
        boxes_xyxy: (B, N, 4) absolute pixels.
        sizes_hw: (B, 2) or (2,) image heights and widths in pixels.

    Returns:
        (B, N, 4) boxes with 0 <= x <= width and 0 <= y <= height.
    """
    sizes_hw = ops.cast(sizes_hw, boxes_xyxy.dtype)
    sizes_wh = ops.flip(sizes_hw, axis=-1)
    limits = ops.concatenate([sizes_wh, sizes_wh], axis=-1)  # (B, 4) or (4,)
    return ops.clip(boxes_xyxy, 0, ops.expand_dims(limits, -2))


def _intersection(a, b):
    """Return the overlap areas of broadcastable `xyxy` boxes."""
    width = ops.minimum(a[..., 2], b[..., 2]) - ops.maximum(a[..., 0], b[..., 0])
    height = ops.minimum(a[..., 3], b[..., 3]) - ops.maximum(a[..., 1], b[..., 1])
    return ops.maximum(width, 0) * ops.maximum(height, 0)


def _divide_or_zero(numerator, denominator):
    """Divide, giving 0 (and a gradient of 0) where the denominator is 0."""
    positive = denominator > 0
    return ops.where(positive, numerator / ops.where(positive, denominator, 1), 0)


def iou(boxes_a, boxes_b):
    """Return the intersection over union of broadcastable boxes, element by element.

    Args:
        boxes_a: (..., 4) absolute `xyxy` pixels.
        boxes_b: (..., 4) absolute `xyxy` pixels.

    Returns:
        (...) in [0, 1]; two boxes without area have 0.
    """
    intersection = _intersection(boxes_a, boxes_b)
    return _divide_or_zero(intersection, area(boxes_a) + area(boxes_b) - intersection)


def pairwise_iou(boxes_a, boxes_b):
    """Return the IoU of every box of one set with every box of another.

    Args:
        boxes_a: (..., M, 4) absolute `xyxy` pixels.
        boxes_b: (..., N, 4) absolute `xyxy` pixels; leading axes broadcast.

    Returns:
        (..., M, N) in [0, 1].
    """
    return iou(ops.expand_dims(boxes_a, -2), ops.expand_dims(boxes_b, -3))


def giou(boxes_a, boxes_b):
    """Return the generalised IoU of broadcastable boxes (Rezatofighi et al. 2019, https://arxiv.org/abs/1902.09630).

    Args:
        boxes_a: (..., 4) absolute `xyxy` pixels.
        boxes_b: (..., 4) absolute `xyxy` pixels.

    Returns:
        (...) in [-1, 1]: IoU less the share of the enclosing box that the union leaves empty.
    """
    intersection = _intersection(boxes_a, boxes_b)
    union = area(boxes_a) + area(boxes_b) - intersection
    width = ops.maximum(boxes_a[..., 2], boxes_b[..., 2]) - ops.minimum(boxes_a[..., 0], boxes_b[..., 0])
    height = ops.maximum(boxes_a[..., 3], boxes_b[..., 3]) - ops.minimum(boxes_a[..., 1], boxes_b[..., 1])
    enclosing = ops.maximum(width, 0) * ops.maximum(height, 0)
    return _divide_or_zero(intersection, union) - _divide_or_zero(enclosing - union, enclosing)


def encode_deltas(boxes_xyxy, anchors_xyxy, weights=(1.0, 1.0, 1.0, 1.0)):
    """Express boxes relative to anchors (R-CNN, Girshick et al. 2014, appendix C).

    Args:
        boxes_xyxy: (..., 4) boxes to reach.
        anchors_xyxy: (..., 4) boxes to start from, of positive width and height; leading axes broadcast.
        weights: Factors of dx, dy, dw and dh: the inverse of the deltas' expected spread.

    Returns:
        (..., 4) deltas dx, dy, dw, dh. A box without area is widened to 1e-6 pixels, so that logs stay finite.
    """
    anchor_sizes = anchors_xyxy[..., 2:] - anchors_xyxy[..., :2]
    anchor_centers = anchors_xyxy[..., :2] + 0.5 * anchor_sizes
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
        max_log_size: Upper bound of dw and dh after division by their weights.

    Returns:
        (..., 4) boxes in absolute `xyxy` pixels, not clipped to any image.
    """
    deltas = deltas / ops.convert_to_tensor(weights, deltas.dtype)
    anchor_sizes = anchors_xyxy[..., 2:] - anchors_xyxy[..., :2]
    centers = anchors_xyxy[..., :2] + 0.5 * anchor_sizes + deltas[..., :2] * anchor_sizes
    half_sizes = 0.5 * anchor_sizes * ops.exp(ops.minimum(deltas[..., 2:], max_log_size))
    return ops.concatenate([centers - half_sizes, centers + half_sizes], axis=-1)

"""Soft, Fast and Matrix NMS; `kerasvision.ops.nms` is the door to them.

All take boxes that are finite with x1 <= x2 and y1 <= y2, and scores that are never NaN, -inf for boxes that are not
to be kept; all return (indices, valid, scores), each (B, D), as `kerasvision.ops.nms.Kept`.
"""

import keras
from keras import ops

from kerasvision.ops.compilers import under_tensorflow_xla
from kerasvision.ops.greedy_nms import image_by_image, pairwise_areas, separate_classes, with_labels
from kerasvision.ops.rows import take_rows


def soft_nms(boxes_xyxy, scores, labels, decay, max_detections, lowest, *, exportable=False):
    """Take the best box D times, and play down what overlaps it.

    Args:
        boxes_xyxy: float32 (B, N, 4).
        scores: float32 (B, N).
        labels: (B, N) or ``None``.
        decay: ("linear", iou_threshold) or ("gaussian", sigma).
        max_detections: D.
        lowest: Decayed scores must be above this.
        exportable: Use plain Keras operations only.

    Returns:
        (indices, valid, scores).

    TensorFlow has a native kernel for the Gaussian, which XLA does not compile. It decays a box's score when that
    comes to the front of a queue, not all scores at every step.
    """
    if (
        decay[0] == "gaussian"
        and keras.backend.backend() == "tensorflow"
        and not exportable
        and not under_tensorflow_xla()
    ):
        return _native_gaussian(boxes_xyxy, scores, labels, decay[1], max_detections, lowest)
    return _soft_loop(boxes_xyxy, scores, labels, decay, max_detections, lowest)


def _native_gaussian(boxes_xyxy, scores, labels, sigma, max_detections, lowest):
    """Call NonMaxSuppressionV5 image by image; no gradient flows through it."""
    import tensorflow as tf

    if labels is not None:
        boxes_xyxy = separate_classes(boxes_xyxy, labels)

    def one_image(inputs):
        indices, found, count = tf.raw_ops.NonMaxSuppressionV5(
            boxes=inputs[0],
            scores=inputs[1],
            max_output_size=max_detections,
            iou_threshold=1.0,  # nothing is dropped
            score_threshold=max(lowest, tf.float32.min),  # scores of -inf are not to be kept
            soft_nms_sigma=sigma / 2,  # its decay is exp(-o^2 / (2 sigma))
            pad_to_max_output_size=True,
        )
        return indices, tf.range(max_detections) < count, found

    inputs = (ops.stop_gradient(boxes_xyxy), ops.stop_gradient(scores))
    return image_by_image(one_image, inputs, (tf.int32, tf.bool, tf.float32))


def _soft_loop(boxes_xyxy, scores, labels, decay, max_detections, lowest):
    """Do so in Keras operations, all images at once."""
    rows = with_labels(boxes_xyxy, labels)  # (B, N, 5)
    batch, count = ops.shape(scores)[0], ops.shape(scores)[1]
    # Taken apart once: each step then works on contiguous rows of numbers.
    x1, y1, x2, y2, classes = (ops.squeeze(column, -1) for column in ops.split(rows, 5, axis=-1))  # (B, N) each
    areas = (x2 - x1) * (y2 - y1)
    positions = ops.expand_dims(ops.arange(count, dtype="int32"), 0)
    slots = ops.expand_dims(ops.arange(max_detections, dtype="int32"), 0)

    def keep_going(step, remaining, *found):
        return ops.logical_and(step < max_detections, ops.any(remaining > lowest))

    def take_one(step, remaining, indices, valid, final):
        best = ops.cast(ops.argmax(remaining, axis=1), "int32")  # (B,)
        best = ops.expand_dims(best, 1)  # (B, 1)
        score = take_rows(remaining, best)  # (B, 1)
        bx1, by1, bx2, by2, best_class = ops.split(take_rows(rows, best)[:, 0], 5, axis=-1)  # (B, 1) each
        width = ops.maximum(ops.minimum(x2, bx2) - ops.maximum(x1, bx1), 0)  # (B, N)
        height = ops.maximum(ops.minimum(y2, by2) - ops.maximum(y1, by1), 0)
        shared = ops.where(classes == best_class, width * height, 0.0)
        overlap = shared / ops.maximum(areas + (bx2 - bx1) * (by2 - by1) - shared, 1e-12)
        written = ops.logical_and(slots == step, score > lowest)  # (B, D)
        gone = ops.logical_or(positions == best, remaining == -float("inf"))  # 0 times infinity is NaN
        return (
            step + 1,
            ops.where(gone, -float("inf"), remaining * _decay(overlap, decay)),
            ops.where(written, best, indices),
            ops.logical_or(valid, written),
            ops.where(written, score, final),
        )

    state = (
        ops.zeros((), "int32"),
        scores,
        ops.zeros((batch, max_detections), "int32"),
        ops.zeros((batch, max_detections), "bool"),
        ops.zeros((batch, max_detections), "float32"),
    )
    _, _, indices, valid, final = ops.while_loop(keep_going, take_one, state)
    return indices, valid, final


def _decay(overlap, decay):
    """Return the factor for each overlap."""
    kind, number = decay
    if kind == "gaussian":
        return ops.exp(-ops.square(overlap) / number)
    return ops.where(overlap > number, 1 - overlap, 1.0)


def fast_nms(boxes_xyxy, scores, labels, iou_threshold, max_detections, max_candidates):
    """Drop every box that overlaps a better one, whether that one is kept or not.

    Args:
        boxes_xyxy: float32 (B, N, 4).
        scores: float32 (B, N).
        labels: (B, N) or ``None``.
        iou_threshold: Overlap above which a box is dropped.
        max_detections: D.
        max_candidates: K, how many of the best boxes take part.

    Returns:
        (indices, valid, scores).
    """
    order, rows, scores = _best_candidates(boxes_xyxy, scores, labels, max_candidates)
    worst = ops.max(_overlap_with_better(rows, scores), axis=1)  # (B, K)
    return _best(order, ops.where(worst > iou_threshold, -float("inf"), scores), max_detections)


def matrix_nms(boxes_xyxy, scores, labels, decay, max_detections, max_candidates, lowest):
    """Multiply every score by the least decay that a better box causes, all boxes at once.

    Args:
        boxes_xyxy: float32 (B, N, 4).
        scores: float32 (B, N).
        labels: (B, N) or ``None``.
        decay: ("linear", unused) or ("gaussian", sigma).
        max_detections: D.
        max_candidates: K, how many of the best boxes take part.
        lowest: Decayed scores must be above this.

    Returns:
        (indices, valid, scores).
    """
    order, rows, scores = _best_candidates(boxes_xyxy, scores, labels, max_candidates)
    overlap = _overlap_with_better(rows, scores)  # (B, K, K), of the row's box with a worse one of the column
    covered = ops.expand_dims(ops.max(overlap, axis=1), 2)  # (B, K, 1): of the row's box with a better one
    kind, sigma = decay
    if kind == "gaussian":
        # One exponent, as both exponentials may vanish.
        factor = ops.exp((ops.square(covered) - ops.square(overlap)) / sigma)
    else:
        # A box that coincides with a better one has nothing to say: that better one says it.
        factor = ops.where(covered < 1, (1 - overlap) / ops.where(covered < 1, 1 - covered, 1.0), 1.0)
    # The best box has no better one and its row is at most 1: no score grows.
    factor = ops.minimum(ops.min(factor, axis=1), 1.0)  # (B, K)
    scores = ops.where(scores > -float("inf"), scores * factor, scores)
    return _best(order, ops.where(scores > lowest, scores, -float("inf")), max_detections)


def _pairwise_iou(first, second):
    """Return the IoU (B, M, N) of boxes with classes (B, M, 5) and (B, N, 5); 0 for two classes or no area."""
    shared, areas = pairwise_areas(first, second)
    return shared / ops.maximum(areas - shared, 1e-12)  # without area `shared` is 0


def _best_candidates(boxes_xyxy, scores, labels, max_candidates):
    """Return the best K boxes, best first: positions (B, K), boxes and classes (B, K, 5), scores (B, K)."""
    order = ops.cast(ops.argsort(-scores, axis=1), "int32")[:, :max_candidates]
    return order, take_rows(with_labels(boxes_xyxy, labels), order), take_rows(scores, order)


def _overlap_with_better(rows, scores):
    """Return (B, K, K): IoU of row i with column j where i is better than j and counts, else 0."""
    index = ops.arange(ops.shape(rows)[1])
    better = ops.expand_dims(index, 1) < ops.expand_dims(index, 0)  # (K, K)
    better = ops.logical_and(better, ops.expand_dims(scores > -float("inf"), 2))  # (B, K, K)
    return ops.where(better, _pairwise_iou(rows, rows), 0.0)


def _best(order, scores, max_detections):
    """Return (indices, valid, scores) of the D highest scores, in the order of candidates where equal."""
    ranking = ops.cast(ops.argsort(-scores, axis=1), "int32")[:, :max_detections]  # (B, min(K, D))
    scores = take_rows(scores, ranking)
    indices = take_rows(order, ranking)
    batch, count = ops.shape(scores)[0], ops.shape(scores)[1]
    filling = (batch, max_detections - count)
    scores = ops.concatenate([scores, ops.full(filling, -float("inf"), "float32")], axis=1)  # (B, D)
    indices = ops.concatenate([indices, ops.zeros(filling, "int32")], axis=1)
    valid = scores > -float("inf")
    return ops.where(valid, indices, 0), valid, ops.where(valid, scores, 0.0)

"""Non-maximum suppression with a static output size."""

import keras
from keras import ops


def non_max_suppression(boxes_xyxy, scores, labels=None, *, iou_threshold, max_detections, score_threshold=None):
    """Greedily keep the best boxes and drop those that overlap a kept box of the same class.

    Args:
        boxes_xyxy: (B, N, 4) absolute pixels; a box with a NaN or infinite coordinate is never kept.
        scores: (B, N); a box of score -inf (or NaN) is never kept.
        labels: (B, N) non-negative integer classes; ``None`` suppresses across all classes.
        iou_threshold: Overlap above which the lower-scored box is dropped.
        max_detections: D, the static number of outputs for each image.
        score_threshold: Boxes must score more than this.

    Returns:
        (indices, valid): int32 (B, D) into the N boxes, highest score first, 0 where not valid; bool (B, D).

    On TensorFlow outside XLA this calls the native kernel, elsewhere a loop of D steps over whole arrays;
    both cost about N x D overlaps, whether boxes overlap or not.
    """
    scores = ops.cast(scores, "float32")
    boxes_xyxy = ops.cast(boxes_xyxy, "float32")
    finite = ops.all(ops.isfinite(boxes_xyxy), axis=-1)  # (B, N)
    dropped = ops.logical_or(ops.isnan(scores), ops.logical_not(finite))
    if score_threshold is not None:
        dropped = ops.logical_or(dropped, scores <= score_threshold)
    scores = ops.where(dropped, -float("inf"), scores)
    # One such box would otherwise reach all others: the tiles of the classes are as large as the largest.
    boxes_xyxy = ops.where(ops.expand_dims(finite, -1), boxes_xyxy, 0.0)
    if boxes_xyxy.shape[1] == 0:
        shape = (ops.shape(scores)[0], max_detections)
        return ops.zeros(shape, "int32"), ops.zeros(shape, "bool")
    if labels is not None:
        boxes_xyxy = _separate_classes(boxes_xyxy, labels)
    if keras.backend.backend() == "tensorflow":
        return _tensorflow_nms(boxes_xyxy, scores, iou_threshold, max_detections)
    return _portable_nms(boxes_xyxy, scores, iou_threshold, max_detections)


def _separate_classes(boxes_xyxy, labels):
    """Move the boxes of each class to a tile of their own, so that classes never overlap.

    The tiles form a square, not a row as in torchvision's `batched_nms`: coordinates grow by the square root of
    the number of classes only, and float32 keeps about 1/1000 pixel instead of 1/100.
    """
    labels = ops.cast(labels, "int32")
    columns = ops.cast(ops.ceil(ops.sqrt(ops.cast(ops.max(labels, initial=0) + 1, "float32"))), "int32")
    lowest = ops.min(boxes_xyxy, initial=0)  # with a start value, as N may turn out to be 0 in a graph
    extent = ops.max(boxes_xyxy, initial=0) - lowest + 1
    column = ops.cast(labels % columns, "float32") * extent
    row = ops.cast(labels // columns, "float32") * extent
    return boxes_xyxy - lowest + ops.stack([column, row, column, row], axis=-1)


def _tensorflow_nms(boxes_xyxy, scores, iou_threshold, max_detections):
    import tensorflow as tf

    def one_image(inputs):
        boxes, image_scores = inputs
        indices, count = tf.raw_ops.NonMaxSuppressionV4(
            boxes=boxes,
            scores=image_scores,
            max_output_size=max_detections,
            iou_threshold=iou_threshold,
            score_threshold=tf.float32.min,
            pad_to_max_output_size=True,
        )
        return indices, tf.range(max_detections) < count

    if boxes_xyxy.shape[0] == 1:
        indices, valid = one_image((boxes_xyxy[0], scores[0]))
        return indices[None], valid[None]
    return tf.map_fn(one_image, (boxes_xyxy, scores), fn_output_signature=(tf.int32, tf.bool))


def _portable_nms(boxes_xyxy, scores, iou_threshold, max_detections):
    batch, count = ops.shape(scores)[0], ops.shape(scores)[1]
    steps = ops.arange(max_detections)
    x1, y1, x2, y2 = ops.unstack(boxes_xyxy, 4, axis=-1)  # (B, N) each
    areas = (x2 - x1) * (y2 - y1)
    positions = ops.expand_dims(ops.arange(count), 0)

    def keep_going(step, remaining, indices, valid):
        return ops.logical_and(step < max_detections, ops.any(remaining > -float("inf")))

    def keep_one(step, remaining, indices, valid):
        best = ops.argmax(remaining, axis=1, keepdims=True)  # (B, 1)
        alive = ops.take_along_axis(remaining, best, axis=1) > -float("inf")  # (B, 1)

        def pick(values):
            return ops.take_along_axis(values, best, axis=1)

        width = ops.maximum(ops.minimum(x2, pick(x2)) - ops.maximum(x1, pick(x1)), 0)
        height = ops.maximum(ops.minimum(y2, pick(y2)) - ops.maximum(y1, pick(y1)), 0)
        intersection = width * height
        overlaps = intersection > iou_threshold * (areas + pick(areas) - intersection)
        suppressed = ops.logical_or(overlaps, positions == best)
        written = ops.expand_dims(steps == step, 0)  # (1, D)
        indices = ops.where(ops.logical_and(written, alive), ops.cast(best, "int32"), indices)
        valid = ops.logical_or(valid, ops.logical_and(written, alive))
        return step + 1, ops.where(suppressed, -float("inf"), remaining), indices, valid

    indices = ops.zeros((batch, max_detections), "int32")
    valid = ops.zeros((batch, max_detections), "bool")
    _, _, indices, valid = ops.while_loop(keep_going, keep_one, (0, scores, indices, valid))
    return indices, valid

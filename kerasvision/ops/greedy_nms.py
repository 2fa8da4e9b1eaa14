"""Greedy non-maximum suppression, three ways to the same result; `kerasvision.ops.nms` is the door to it."""

import keras
import numpy as np
from keras import ops

from kerasvision.ops.compilers import under_tensorflow_xla
from kerasvision.ops.rows import take_rows

# Candidates that are compared among each other at once: enough that most images need one or two rounds.
_SMALLEST_TILE = 128


def greedy_nms(boxes_xyxy, scores, labels, iou_threshold, max_detections, *, exportable=False):
    """Greedily keep the best boxes and drop those that overlap a kept box of the same class.

    Args:
        boxes_xyxy: float32 (B, N, 4), finite, with x1 <= x2 and y1 <= y2.
        scores: float32 (B, N), -inf for boxes that are not to be kept, never NaN.
        labels: (B, N) integers or ``None``.
        iou_threshold: Overlap above which the lower-scored box is dropped.
        max_detections: D.
        exportable: Use plain Keras operations only.

    Returns:
        (indices, valid, scores), each (B, D), as `kerasvision.ops.nms.Kept`.

    TensorFlow has a native kernel. PyTorch, which would take a while for every small operation, gets NumPy on the
    host, where arrays may shrink. JAX, and what is to be exported, gets a loop over tiles.
    """
    backend = keras.backend.backend()
    if exportable or backend not in ("tensorflow", "torch"):
        indices, valid = tiled(boxes_xyxy, scores, labels, iou_threshold, max_detections)
    elif backend == "tensorflow":
        indices, valid = native(boxes_xyxy, scores, labels, iou_threshold, max_detections)
    else:
        indices, valid = on_host(boxes_xyxy, scores, labels, iou_threshold, max_detections)
    return indices, valid, ops.where(valid, take_rows(scores, indices), 0.0)


def with_labels(boxes_xyxy, labels):
    """Return (B, N, 5): boxes and their classes in one array, so that both are picked at once; one class if None."""
    if labels is None:
        classes = ops.zeros_like(boxes_xyxy[..., :1])
    else:
        classes = ops.expand_dims(ops.cast(labels, "float32"), -1)
    return ops.concatenate([boxes_xyxy, classes], axis=-1)


def pairwise_areas(first, second):
    """Return the shared areas and the summed areas of all pairs of one class.

    Args:
        first: (B, M, 5) boxes and classes.
        second: (B, N, 5).

    Returns:
        Two (B, M, N): the intersections, 0 for two boxes of different classes; the sums of both areas.
    """
    ax1, ay1, ax2, ay2, a_class = ops.split(first, 5, axis=-1)  # (B, M, 1) each
    bx1, by1, bx2, by2, b_class = ops.split(ops.transpose(second, (0, 2, 1)), 5, axis=1)  # (B, 1, N) each
    width = ops.maximum(ops.minimum(ax2, bx2) - ops.maximum(ax1, bx1), 0)  # (B, M, N)
    height = ops.maximum(ops.minimum(ay2, by2) - ops.maximum(ay1, by1), 0)
    shared = ops.where(a_class == b_class, width * height, 0.0)
    return shared, (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1)


def _overlaps(first, second, iou_threshold):
    """Return bool (B, M, N): whether the IoU of a pair of one class is above the threshold."""
    shared, areas = pairwise_areas(first, second)
    return shared > iou_threshold * (areas - shared)


# --- TensorFlow's kernel


def native(boxes_xyxy, scores, labels, iou_threshold, max_detections):
    """Call NonMaxSuppressionV4, which XLA compiles too, image by image."""
    import tensorflow as tf

    if labels is not None:
        boxes_xyxy = separate_classes(boxes_xyxy, labels)

    if under_tensorflow_xla():  # whose kernel cannot take fewer boxes than it is to give
        missing = tf.maximum(max_detections - tf.shape(scores)[1], 0)
        boxes_xyxy = tf.pad(boxes_xyxy, [(0, 0), (0, missing), (0, 0)])
        scores = tf.pad(scores, [(0, 0), (0, missing)], constant_values=-float("inf"))

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
        kept = tf.range(max_detections) < count
        return tf.where(kept, indices, 0), kept  # XLA fills up with other indices

    return image_by_image(one_image, (boxes_xyxy, scores), (tf.int32, tf.bool))


def image_by_image(function, inputs, dtypes):
    """Apply a TensorFlow function of one image's tensors to each of a batch; a batch of one needs no loop."""
    import tensorflow as tf

    if inputs[0].shape[0] == 1:
        return tuple(output[None] for output in function(tuple(part[0] for part in inputs)))
    return tf.map_fn(function, inputs, fn_output_signature=dtypes)


def separate_classes(boxes_xyxy, labels):
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


# --- NumPy on the host


def on_host(boxes_xyxy, scores, labels, iou_threshold, max_detections):
    """Suppress in NumPy, in arrays that shrink with the candidates: only for backends that run eagerly."""
    rows = ops.convert_to_numpy(ops.stop_gradient(with_labels(boxes_xyxy, labels)))  # (B, N, 5)
    scores = ops.convert_to_numpy(ops.stop_gradient(scores))
    indices = np.zeros((len(scores), max_detections), np.int32)
    valid = np.zeros((len(scores), max_detections), bool)
    for image in range(len(scores)):
        kept = _host_image(rows[image], scores[image], iou_threshold, max_detections)
        indices[image, : len(kept)] = kept
        valid[image, : len(kept)] = True
    return ops.convert_to_tensor(indices), ops.convert_to_tensor(valid)


def _host_image(rows, scores, iou_threshold, max_detections):
    """Return the kept indices of one image, best first."""
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > -np.inf]
    kept: list[int] = []
    while len(order) and len(kept) < max_detections:
        tile = order[: max(_SMALLEST_TILE, max_detections - len(kept))]
        order = order[len(tile) :]
        overlaps = _host_overlaps(rows[tile], rows[tile], iou_threshold)
        dropped = np.zeros(len(tile), bool)
        for position in range(len(tile)):
            if not dropped[position]:
                dropped |= overlaps[position] & (np.arange(len(tile)) > position)
        new = tile[~dropped]
        kept.extend(new)
        if len(kept) < max_detections and len(order):
            order = order[~_host_overlaps(rows[new], rows[order], iou_threshold).any(axis=0)]
    return kept[:max_detections]


def _host_overlaps(first, second, iou_threshold):
    """Return bool (M, N), as `_overlaps`, for (M, 5) and (N, 5)."""
    first, second = first.T[:, :, None], second.T[:, None, :]  # (5, M, 1), (5, 1, N)
    shared = np.minimum(first[2], second[2]) - np.maximum(first[0], second[0])  # (M, N)
    np.maximum(shared, 0, out=shared)
    height = np.minimum(first[3], second[3]) - np.maximum(first[1], second[1])
    shared *= np.maximum(height, 0, out=height)
    areas = (first[2] - first[0]) * (first[3] - first[1]) + (second[2] - second[0]) * (second[3] - second[1])
    areas -= shared
    areas *= np.float32(iou_threshold)
    return (shared > areas) & (first[4] == second[4])


# --- a loop over tiles, for compilers


def tiled(boxes_xyxy, scores, labels, iou_threshold, max_detections):
    """Go through the sorted candidates tile by tile, all images at once, until D are kept or none is left.

    After the first tile, all candidates that its boxes suppress are sorted to the end: where everything overlaps,
    one tile is all the work.
    """
    tile_size = max(_SMALLEST_TILE, max_detections)
    rows = with_labels(boxes_xyxy, labels)  # (B, N, 5)
    batch, count = ops.shape(scores)[0], ops.shape(scores)[1]
    filling = (-count) % tile_size
    # By concatenation, as N may be unknown in a graph.
    rows = ops.concatenate([rows, ops.zeros((batch, filling, 5), "float32")], axis=1)
    scores = ops.concatenate([scores, ops.full((batch, filling), -float("inf"), "float32")], axis=1)
    positions = ops.broadcast_to(ops.expand_dims(ops.arange(count + filling, dtype="int32"), 0), ops.shape(scores))
    candidates = _sorted(rows, scores, positions)
    state = (
        ops.zeros((batch,), "int32"),  # how many are kept
        ops.zeros((batch, max_detections, 5), "float32"),  # the kept boxes
        ops.zeros((batch, max_detections), "int32"),  # their positions
    )
    state = _add_tile(0, candidates, state, tile_size, iou_threshold, first=True)
    candidates = ops.cond(
        _unfinished(tile_size, candidates, state, tile_size),
        lambda: _sorted(*_remaining(candidates, state, tile_size, iou_threshold)),
        lambda: (candidates[0], ops.full_like(candidates[1], -float("inf")), candidates[2]),
    )

    def keep_going(start, *state):
        return _unfinished(start, candidates, state, tile_size)

    def add(start, *state):
        return start + tile_size, *_add_tile(start, candidates, state, tile_size, iou_threshold)

    _, kept, _, indices = ops.while_loop(keep_going, add, (ops.zeros((), "int32"), *state))
    return indices, ops.expand_dims(ops.arange(max_detections), 0) < ops.expand_dims(kept, 1)


def _sorted(rows, scores, positions):
    """Return the three by falling score; equal scores stay in order."""
    order = ops.cast(ops.argsort(-scores, axis=1), "int32")
    return take_rows(rows, order), take_rows(scores, order), take_rows(positions, order)


def _unfinished(start, candidates, state, tile_size):
    """Return whether some image has room for more boxes, and candidates from `start` on."""
    scores, kept, slots = candidates[1], state[0], state[1]
    total = ops.shape(scores)[1]
    following = ops.take(scores, ops.minimum(start, total - tile_size), axis=1)  # (B,); no reading past the end
    wanted = ops.logical_and(kept < slots.shape[1], following > -float("inf"))
    return ops.logical_and(start < total, ops.any(wanted))


def _suppressed(rows, state, iou_threshold):
    """Return bool (B, M): whether each of `rows` (B, M, 5) overlaps a kept box."""
    kept, slots, _ = state
    filled = ops.expand_dims(ops.arange(slots.shape[1]), 0) < ops.expand_dims(kept, 1)  # (B, D)
    return ops.any(ops.logical_and(_overlaps(slots, rows, iou_threshold), ops.expand_dims(filled, 2)), axis=1)


def _remaining(candidates, state, tile_size, iou_threshold):
    """Return the candidates with scores of -inf for the first tile, and for what a kept box suppresses."""
    rows, scores, positions = candidates
    done = ops.expand_dims(ops.arange(ops.shape(scores)[1]) < tile_size, 0)
    done = ops.logical_or(done, _suppressed(rows, state, iou_threshold))
    return rows, ops.where(done, -float("inf"), scores), positions


def _add_tile(start, candidates, state, tile_size, iou_threshold, *, first=False):
    """Return the state after the candidates from `start` to `start + tile_size`."""
    kept, slots, indices = state
    members = start + ops.arange(tile_size, dtype="int32")
    rows, scores, positions = (ops.take(values, members, axis=1) for values in candidates)  # (B, T, 5), (B, T) twice
    alive = scores > -float("inf")
    if not first:
        alive = ops.logical_and(alive, ops.logical_not(_suppressed(rows, state, iou_threshold)))
    survives = _survivors(rows, alive, tile_size, iou_threshold)
    # Survivor number n of the tile goes to slot kept + n - 1.
    numbers = ops.cumsum(ops.cast(survives, "int32"), axis=1)  # (B, T)
    wanted = ops.expand_dims(ops.arange(1, slots.shape[1] + 1, dtype="int32"), 0) - ops.expand_dims(kept, 1)  # (B, D)
    new = ops.logical_and(wanted > 0, wanted <= numbers[:, -1:])
    source = ops.sum(ops.cast(ops.expand_dims(numbers, 1) < ops.expand_dims(wanted, 2), "int32"), axis=2)  # (B, D)
    source = ops.minimum(source, tile_size - 1)
    return (
        ops.minimum(kept + numbers[:, -1], slots.shape[1]),
        ops.where(ops.expand_dims(new, 2), take_rows(rows, source), slots),
        ops.where(new, take_rows(positions, source), indices),
    )


def _survivors(rows, alive, tile_size, iou_threshold):
    """Return bool (B, T): which of the sorted boxes of a tile greedy suppression among them keeps.

    Drop what a box that is still kept overlaps, and start over with the result until nothing changes: after as many
    rounds as the longest chain of boxes that depend on each other this is greedy suppression (Zheng et al. 2020,
    Cluster-NMS, https://arxiv.org/abs/2005.03572).
    """
    earlier = ops.expand_dims(ops.arange(tile_size), 1) < ops.expand_dims(ops.arange(tile_size), 0)
    overlaps = ops.logical_and(_overlaps(rows, rows, iou_threshold), earlier)  # (B, T, T)

    def drop(survives, changed):
        hit = ops.any(ops.logical_and(overlaps, ops.expand_dims(survives, 2)), axis=1)  # (B, T)
        after = ops.logical_and(alive, ops.logical_not(hit))
        return after, ops.any(ops.not_equal(after, survives))

    survives, _ = ops.while_loop(lambda survives, changed: changed, drop, (alive, ops.any(alive)))
    return survives

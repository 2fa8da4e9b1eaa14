"""Assigning ground-truth boxes to anchors.

All return int32 (..., A): for each anchor the index of its box, or a negative number, `BACKGROUND` or
`BETWEEN_THRESHOLDS`. Boxes are padded to a static number M and `valid` marks those that are none; padding may hold
anything, and is never matched. A NaN overlap counts as none.
"""

from keras import ops

from kerasvision.ops import boxes as box_ops
from kerasvision.ops.rows import mark_rows

BACKGROUND = -1
BETWEEN_THRESHOLDS = -2


def match_by_iou(iou, valid, *, foreground_iou, background_iou, force_best=True):
    """Assign at most one ground-truth box to each anchor by IoU thresholds.

    An anchor takes the box it overlaps most, if their IoU reaches `foreground_iou`; it is background if its
    best IoU is under `background_iou`; in between it is ignored. With `force_best`, the anchors that overlap
    a box as well as any anchor does are matched whatever their IoU ("low-quality matches").

    Args:
        iou: (..., M, A) IoU of M ground-truth boxes with A anchors.
        valid: (..., M) bool; False marks padding, which is never matched.
        foreground_iou: Lowest IoU of a match.
        background_iou: IoU under which an anchor is background.
        force_best: Whether every box gets its best anchors.

    Returns:
        int32 (..., A): the index of the matched box, `BACKGROUND` (-1) or `BETWEEN_THRESHOLDS` (-2).
        Without any valid box every anchor is background.

    Reference: torchvision/models/detection/_utils.py, `Matcher`. Differs from it: a box that overlaps no
    anchor at all is matched to none, where torchvision matches it to every anchor it misses equally.
    """
    if 0 in iou.shape:
        return _nothing(iou)
    anchors = ops.shape(iou)[-1]
    iou = _never_empty(_without_padding(iou, valid))
    return _by_thresholds(iou, foreground_iou, background_iou, force_best)[..., :anchors]


def _by_thresholds(iou, foreground_iou, background_iou, force_best):
    """Return the matches of `match_by_iou`, of overlaps without padding."""
    best_box = ops.cast(ops.argmax(iou, axis=-2), "int32")  # (..., A)
    best_iou = ops.max(iou, axis=-2)  # (..., A)
    matches = ops.where(best_iou < background_iou, BACKGROUND, BETWEEN_THRESHOLDS)
    matched = best_iou >= foreground_iou
    if force_best:
        best_of_box = ops.max(iou, axis=-1, keepdims=True)  # (..., M, 1)
        matched = ops.logical_or(matched, ops.any((iou == best_of_box) & (best_of_box > 0), axis=-2))
    return ops.where(matched, best_box, ops.cast(matches, "int32"))


def _nothing(iou):
    """Return `BACKGROUND` for every anchor where there is no box or no anchor: no backend takes the best of nothing."""
    return ops.cast(ops.any(iou > 0, axis=-2), "int32") + BACKGROUND  # (..., A)


def _without_padding(iou, valid):
    """Return overlaps (..., M, A) in float32, -1 for padding and where they are NaN."""
    iou = ops.cast(iou, "float32")
    return ops.where(ops.logical_and(ops.expand_dims(ops.cast(valid, "bool"), -1), iou >= 0), iou, -1.0)


def _never_empty(iou):
    """Append a box and an anchor that overlap nothing, where their numbers may turn out to be 0 in a graph."""
    if None not in iou.shape[-2:]:
        return iou
    return ops.pad(iou, [(0, 0)] * (len(iou.shape) - 2) + [(0, 1), (0, 1)], constant_values=-1.0)


def match_best_prior(iou, valid, *, foreground_iou=0.5, background_iou=None, prefer="last"):
    """Assign to each box its one best anchor, and to every other anchor the box it overlaps most by thresholds.

    Unlike `match_by_iou` with `force_best`, a box takes its best anchor even from a box that overlaps it more,
    and ties between anchors go to the first.

    Args:
        iou: (..., M, A) IoU of M ground-truth boxes with A anchors.
        valid: (..., M) bool; False marks padding.
        foreground_iou: Lowest IoU of the other matches.
        background_iou: IoU under which an anchor is background; ``None``: `foreground_iou`, so that none is between.
        prefer: Which of several boxes keeps an anchor that is the best of all of them: the ``"last"``, as torchvision's
            SSD has it, or the ``"first"``, as EfficientDet (the TensorFlow Object Detection API) has it.

    Returns:
        int32 (..., A): the index of the matched box, `BACKGROUND` (-1) or `BETWEEN_THRESHOLDS` (-2).

    Raises:
        ValueError: An unknown preference.

    Reference: torchvision/models/detection/_utils.py, `SSDMatcher`; effdet/object_detection/argmax_matcher.py. Differs
    from both: a box that overlaps no anchor at all gets none, where they give it the first anchor.
    """
    if prefer not in ("last", "first"):
        raise ValueError(f"`prefer` {prefer!r} must be 'last' or 'first'")
    background_iou = foreground_iou if background_iou is None else background_iou
    if 0 in iou.shape:
        return _nothing(iou)
    count_anchors = ops.shape(iou)[-1]
    iou = _never_empty(_without_padding(iou, valid))
    matches = _by_thresholds(iou, foreground_iou, background_iou, force_best=False)
    best_anchor = ops.cast(ops.argmax(iou, axis=-1), "int32")  # (..., M)
    anchors = ops.arange(ops.shape(iou)[-1], dtype="int32")
    forced = (ops.expand_dims(best_anchor, -1) == anchors) & (ops.max(iou, axis=-1, keepdims=True) > 0)  # (..., M, A)
    if prefer == "first":
        winner = ops.cast(ops.argmax(forced, axis=-2), "int32")  # (..., A)
    else:
        count = ops.shape(iou)[-2]
        winner = count - 1 - ops.cast(ops.argmax(ops.flip(forced, axis=-2), axis=-2), "int32")
    return ops.where(ops.any(forced, axis=-2), winner, matches)[..., :count_anchors]


def _rows_of_pairs(values):
    """Return (B, M, K) as (B * M, K)."""
    return ops.reshape(values, (-1, ops.shape(values)[-1]))


def match_atss(boxes_xyxy, valid, anchors_xyxy, *, level_sizes, candidates_per_level=9):
    """Assign boxes to anchors by Adaptive Training Sample Selection.

    The candidates of a box are, on each level, the anchors whose centres lie nearest to its own. It is matched to those
    whose IoU reaches the mean plus the standard deviation of the candidates' IoUs, and whose centre lies inside it (by
    more than 0.01 pixels). An anchor that several boxes want goes to the one it overlaps most.

    Args:
        boxes_xyxy: (B, M, 4) ground-truth boxes.
        valid: (B, M) bool; False marks padding.
        anchors_xyxy: (A, 4) anchors, level after level.
        level_sizes: Number of anchors of each level, integers of sum A.
        candidates_per_level: k of the paper; all anchors of a level that has fewer.

    Returns:
        int32 (B, A): the index of the matched box or `BACKGROUND` (-1). A box can be matched to no anchor at all.

    Raises:
        ValueError: If `level_sizes` do not sum to A.

    Of candidates at the same distance, those that the backend's `top_k` lists first are taken.

    Source: Zhang et al. 2020, https://arxiv.org/abs/1912.02424, algorithm 1; the standard deviation is the unbiased
    one, as in the authors' code, and 0 of a single candidate.
    """
    count = anchors_xyxy.shape[0]
    if count is not None and sum(level_sizes) != count:
        raise ValueError(f"`level_sizes` {tuple(level_sizes)!r} sum to {sum(level_sizes)}; there are {count} anchors")
    if 0 in boxes_xyxy.shape[:2] or sum(level_sizes) == 0:
        return _nothing(ops.zeros((ops.shape(boxes_xyxy)[0], 0, sum(level_sizes))))
    boxes_xyxy = ops.cast(boxes_xyxy, "float32")
    anchors_xyxy = ops.cast(anchors_xyxy, "float32")
    valid = ops.cast(valid, "bool")
    if boxes_xyxy.shape[1] is None:  # may be 0: one box more, which is padding
        boxes_xyxy = ops.pad(boxes_xyxy, ((0, 0), (0, 1), (0, 0)))
        valid = ops.pad(valid, ((0, 0), (0, 1)), constant_values=False)
    centers = 0.5 * (anchors_xyxy[:, :2] + anchors_xyxy[:, 2:])  # (A, 2)
    box_centers = 0.5 * (boxes_xyxy[..., :2] + boxes_xyxy[..., 2:])  # (B, M, 2)
    distances = ops.sum(ops.square(ops.expand_dims(box_centers, 2) - centers), axis=-1)  # (B, M, A)
    distances = ops.where(distances >= 0, distances, float("inf"))  # padding may be NaN

    chosen, start = [], 0
    for size in level_sizes:
        if size > 0:
            level = -distances[..., start : start + size]
            _, nearest = ops.top_k(level, min(candidates_per_level, size))  # (B, M, k)
            chosen.append(ops.cast(nearest, "int32") + start)
        start += size
    indices = _rows_of_pairs(ops.concatenate(chosen, axis=-1))  # (B M, K)
    candidates = mark_rows(indices, ops.ones_like(indices, "bool"), start)
    candidates = ops.reshape(candidates, ops.shape(distances))  # (B, M, A)

    iou = _without_padding(box_ops.pairwise_iou(boxes_xyxy, anchors_xyxy), valid)
    number = ops.cast(ops.shape(indices)[-1], "float32")
    mean = ops.sum(ops.where(candidates, iou, 0.0), axis=-1, keepdims=True) / number  # (B, M, 1)
    squares = ops.sum(ops.where(candidates, ops.square(iou - mean), 0.0), axis=-1, keepdims=True)
    threshold = mean + ops.sqrt(squares / ops.maximum(number - 1, 1))
    inside = ops.all(
        ops.concatenate(
            [
                centers - ops.expand_dims(boxes_xyxy[..., :2], 2) > 0.01,
                ops.expand_dims(boxes_xyxy[..., 2:], 2) - centers > 0.01,
            ],
            axis=-1,
        ),
        axis=-1,
    )  # (B, M, A)
    positive = candidates & inside & (iou >= threshold) & ops.expand_dims(valid, -1)
    overlap = ops.where(positive, iou, -1.0)
    return ops.where(ops.any(positive, axis=1), ops.cast(ops.argmax(overlap, axis=1), "int32"), BACKGROUND)


def simota_cost(labels, boxes_xyxy, probabilities, predicted_xyxy, *, iou_weight=3.0):
    """Return what SimOTA lets a match of each prediction with each true box cost, and their IoUs.

    Args:
        labels: (B, M) class indices; negative for padding.
        boxes_xyxy: (B, M, 4) ground-truth boxes.
        probabilities: (B, A, C) in [0, 1]: of a class given an object times that of an object.
        predicted_xyxy: (B, A, 4) predicted boxes.
        iou_weight: Factor of -log(IoU).

    Returns:
        cost and IoU, float32 (B, M, A), without gradient. The cost is the binary cross-entropy of the square roots of
        the probabilities (the geometric mean of the two, as in the authors' code), summed over classes, and
        `iou_weight` times -log(IoU + 1e-8).
    """
    probabilities = ops.stop_gradient(ops.cast(probabilities, "float32"))
    predicted = ops.stop_gradient(ops.cast(predicted_xyxy, "float32"))
    iou = box_ops.pairwise_iou(ops.cast(boxes_xyxy, "float32"), predicted)  # (B, M, A)
    scores = ops.sqrt(ops.clip(probabilities, 0.0, 1.0))
    # PyTorch's binary cross-entropy bounds its logarithms at -100, and so do the costs of the authors' code.
    present = ops.maximum(ops.log(scores), -100.0)  # (B, A, C)
    absent = ops.maximum(ops.log(1 - scores), -100.0)
    difference = ops.transpose(absent - present, (0, 2, 1))  # (B, C, A)
    of_class = ops.one_hot(ops.maximum(ops.cast(labels, "int32"), 0), ops.shape(scores)[-1])  # (B, M, C)
    classification = ops.matmul(of_class, difference) - ops.expand_dims(ops.sum(absent, axis=-1), 1)
    return classification - iou_weight * ops.log(iou + 1e-8), iou


def match_simota(cost, iou, valid, boxes_xyxy, centers_xy, strides, *, center_radius=2.5, candidates=10):
    """Assign boxes to predictions by YOLOX's simplified optimal transport.

    A box can be matched to predictions whose cell centre lies inside some box, or near the centre of one (within
    `center_radius` strides along both axes). It takes as many as the sum of its highest IoUs, rounded down, at least
    one: first those whose cell centre is both inside this box and near its centre, then others, each by cost. A
    prediction that several boxes take goes to the box for which it costs least, whether or not that one took it.

    Args:
        cost: (B, M, A); see `simota_cost`.
        iou: (B, M, A) of boxes and predictions.
        valid: (B, M) bool; False marks padding.
        boxes_xyxy: (B, M, 4) ground-truth boxes.
        centers_xy: (A, 2) centres of the predictions' cells in pixels.
        strides: (A,) strides of their levels in pixels.
        center_radius: How near is near, in strides.
        candidates: Number of highest IoUs whose sum counts.

    Returns:
        int32 (B, A): the index of the matched box or `BACKGROUND` (-1).

    Source: Ge et al. 2021, https://arxiv.org/abs/2107.08430, section 2.1; the authors' yolo_head.py,
    `get_assignments`. Differs from it: predictions outside are put last by order, not by 1e5 added to their costs, in
    which float32 would lose all but two digits.
    """
    if 0 in iou.shape[1:]:
        return _nothing(iou)
    boxes_xyxy = ops.cast(boxes_xyxy, "float32")
    anchors = ops.shape(iou)[2]
    if None in iou.shape[1:]:
        # There may be no box, or fewer predictions than candidates: more of them, which match nothing.
        cost, iou = (ops.pad(ops.cast(x, "float32"), ((0, 0), (0, 1), (0, candidates))) for x in (cost, iou))
        boxes_xyxy = ops.pad(boxes_xyxy, ((0, 0), (0, 1), (0, 0)))
        valid = ops.pad(ops.cast(valid, "bool"), ((0, 0), (0, 1)), constant_values=False)
        centers_xy = ops.pad(ops.cast(centers_xy, "float32"), ((0, candidates), (0, 0)), constant_values=float("inf"))
        strides = ops.pad(ops.cast(strides, "float32"), ((0, candidates),))
    valid = ops.expand_dims(ops.cast(valid, "bool"), -1)  # (B, M, 1)
    centers = ops.cast(centers_xy, "float32")
    inside = ops.all((centers > boxes_xyxy[:, :, None, :2]) & (centers < boxes_xyxy[:, :, None, 2:]), axis=-1)
    middles = 0.5 * (boxes_xyxy[..., :2] + boxes_xyxy[..., 2:])  # (B, M, 2)
    reach = center_radius * ops.cast(strides, "float32")  # (A,)
    near = ops.all(ops.abs(middles[:, :, None, :] - centers) < reach[:, None], axis=-1)  # (B, M, A)
    allowed = ops.any((inside | near) & valid, axis=1, keepdims=True) & valid  # (B, M, A)
    preferred = inside & near

    infinity = float("inf")
    cost = ops.cast(cost, "float32")
    cost = ops.where(allowed & (cost < infinity), cost, infinity)  # NaN too
    size = min(candidates, iou.shape[-1]) if iou.shape[-1] is not None else candidates
    best_ious, _ = ops.top_k(ops.where(allowed, _without_padding(iou, valid[..., 0]), 0.0), size)
    amount = ops.cast(ops.maximum(ops.sum(ops.maximum(best_ious, 0.0), axis=-1), 1.0), "int32")  # (B, M)

    first, first_index = ops.top_k(-ops.where(preferred, cost, infinity), size)  # (B, M, k), cheapest first
    second, second_index = ops.top_k(-ops.where(preferred, infinity, cost), size)
    usable = ops.concatenate([first, second], axis=-1) > -infinity  # (B, M, 2 k)
    indices = ops.concatenate([first_index, second_index], axis=-1)
    taken = usable & (ops.cumsum(ops.cast(usable, "int32"), axis=-1) <= ops.expand_dims(amount, -1))
    taken = mark_rows(_rows_of_pairs(indices), _rows_of_pairs(taken), ops.shape(cost)[-1])
    taken = ops.reshape(taken, ops.shape(cost))  # (B, M, A)

    # Several want it: the cheapest of all boxes, those that prefer it first.
    some_prefer = ops.any(preferred & (cost < infinity), axis=1, keepdims=True)
    cheapest = ops.argmin(ops.where(some_prefer & ops.logical_not(preferred), infinity, cost), axis=1)
    only = ops.argmax(taken, axis=1)
    wanted_by = ops.sum(ops.cast(taken, "int32"), axis=1)  # (B, A)
    matches = ops.where(wanted_by > 0, ops.cast(ops.where(wanted_by > 1, cheapest, only), "int32"), BACKGROUND)
    return matches[:, :anchors]

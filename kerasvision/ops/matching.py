"""Assigning ground-truth boxes to anchors."""

from keras import ops

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
    if iou.shape[-2] == 0:  # no backend takes the maximum of nothing
        return ops.cast(ops.any(iou > 0, axis=-2), "int32") + BACKGROUND  # (..., A)
    iou = ops.where(ops.expand_dims(valid, -1), iou, -1.0)
    best_box = ops.cast(ops.argmax(iou, axis=-2), "int32")  # (..., A)
    best_iou = ops.max(iou, axis=-2)  # (..., A)
    matches = ops.where(best_iou < background_iou, BACKGROUND, BETWEEN_THRESHOLDS)
    matched = best_iou >= foreground_iou
    if force_best:
        best_of_box = ops.max(iou, axis=-1, keepdims=True)  # (..., M, 1)
        matched = ops.logical_or(matched, ops.any((iou == best_of_box) & (best_of_box > 0), axis=-2))
    return ops.where(matched, best_box, ops.cast(matches, "int32"))

"""Non-maximum suppression with a static output size: greedy, soft, Fast and Matrix NMS."""

from typing import Literal, NamedTuple, get_args

from keras import ops

from kerasvision.ops.arguments import is_count
from kerasvision.ops.compilers import compiled_once
from kerasvision.ops.decaying_nms import fast_nms, matrix_nms, soft_nms
from kerasvision.ops.greedy_nms import greedy_nms

Method = Literal["greedy", "soft_linear", "soft_gaussian", "fast", "matrix_linear", "matrix_gaussian"]

# Fast and Matrix NMS compare all pairs: 1000 candidates make arrays of 4 MB, 5000 of 100 MB. YOLACT takes 200 of each
# class, SOLOv2 500 in all.
DENSE_CANDIDATES = 1000

# Coordinates are cut here. Areas stay far from overflow, and where classes are kept apart by moving them, one
# absurd box does not eat the precision of all the others.
LARGEST_COORDINATE = 1e5


class Kept(NamedTuple):
    """What `non_max_suppression` found.

    Args:
        indices: int32 (B, D) into the N boxes, highest final score first, 0 where not valid.
        valid: bool (B, D); the valid ones come first.
        scores: float32 (B, D) final scores, after the decay of soft and Matrix NMS; 0 where not valid.
    """

    indices: object
    valid: object
    scores: object


def non_max_suppression(
    boxes_xyxy,
    scores,
    labels=None,
    *,
    iou_threshold=0.5,
    max_detections,
    score_threshold=None,
    method: Method = "greedy",
    sigma=0.5,
    max_candidates=None,
    exportable=False,
):
    """Keep the best boxes, and drop or play down those that overlap a better box of the same class.

    Methods, s being scores and o the IoU of two boxes of one class:

    - ``"greedy"``: keep the best, drop all that overlap it by more than `iou_threshold`, go on with the rest.
    - ``"soft_linear"``: as greedy, but instead of being dropped, boxes with o > `iou_threshold` get s (1 - o).
    - ``"soft_gaussian"``: every box gets s exp(-o^2 / sigma); `iou_threshold` is not used.
    - ``"fast"``: drop what overlaps *any* better box by more than `iou_threshold`, also one that is dropped itself:
      a little stricter than greedy, no loop.
    - ``"matrix_linear"``, ``"matrix_gaussian"``: every box gets s times the least f(o) / f(m) over the better boxes,
      f(x) being 1 - x or exp(-x^2 / sigma), and m the largest overlap of that better box with one better still;
      no loop; `iou_threshold` is not used.

    Args:
        boxes_xyxy: (B, N, 4) absolute pixels. A box with a NaN or infinite coordinate is never kept, and harms no
            other. Coordinates beyond ±100,000 count as that. A box of negative or no width or height has no area:
            it overlaps nothing.
        scores: (B, N), 0 or more for the methods that multiply them. A box of score -inf or NaN is never kept.
        labels: (B, N) non-negative integer classes, below 2^24; ``None`` lets all classes compete.
        iou_threshold: In [0, 1]; a pair exactly on it is kept.
        max_detections: D, the static number of outputs for each image, 1 or more.
        score_threshold: Boxes must score more than this, also after their decay. Soft and Matrix NMS never drop
            a box otherwise.
        method: See above.
        sigma: Width of the Gaussian decays, above 0.
        max_candidates: Only so many boxes of the highest scores take part; default: all, but 1000 for Fast and
            Matrix NMS, which hold arrays of that number squared.
        exportable: Greedy and soft NMS in plain Keras operations only, so that a TensorFlow model exports to ONNX and
            LiteRT; soft NMS is a loop of D steps then. Fast and Matrix NMS always are, under every backend.

    Returns:
        `Kept`: indices (B, D), valid (B, D) and scores (B, D). Equal scores are taken in the order of the input.

    Raises:
        ValueError: An unknown method, or a number outside its range.

    Source: Soft-NMS, Bodla et al. 2017, https://arxiv.org/abs/1704.04503, equations 2 and 3; Fast NMS, YOLACT, Bolya
    et al. 2019, https://arxiv.org/abs/1904.02689, section 3.3; Matrix NMS, SOLOv2, Wang et al. 2020,
    https://arxiv.org/abs/2003.10152, equations 3 to 5 (sigma 0.5 is the 2.0 that its code multiplies by), here with
    the IoU of boxes.

    >>> import numpy as np
    >>> boxes = np.array([[[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10]]], "float32")
    >>> kept = non_max_suppression(boxes, np.array([[0.9, 0.8, 0.7]], "float32"), max_detections=2)
    >>> np.array(kept.indices).tolist()
    [[0, 2]]
    """
    max_detections, max_candidates = check_arguments(method, iou_threshold, max_detections, sigma, max_candidates)
    suppress = compiled_once(_suppress, 7)
    numbers = (iou_threshold, max_detections, score_threshold, method, sigma, max_candidates, exportable)
    return Kept(*suppress(boxes_xyxy, scores, labels, *numbers))


def _suppress(
    boxes_xyxy,
    scores,
    labels,
    iou_threshold,
    max_detections,
    score_threshold,
    method,
    sigma,
    max_candidates,
    exportable,
):
    """Return (indices, valid, scores): see `non_max_suppression`."""
    boxes_xyxy, scores = _clean(boxes_xyxy, scores, score_threshold)
    if 0 in boxes_xyxy.shape[:2]:
        shape = (ops.shape(scores)[0], max_detections)
        return ops.zeros(shape, "int32"), ops.zeros(shape, "bool"), ops.zeros(shape, "float32")
    if boxes_xyxy.shape[1] is None:  # may be 0: one box more, which is never kept
        boxes_xyxy = ops.pad(boxes_xyxy, ((0, 0), (0, 1), (0, 0)))
        scores = ops.pad(scores, ((0, 0), (0, 1)), constant_values=-float("inf"))
        labels = None if labels is None else ops.pad(labels, ((0, 0), (0, 1)))
    if max_candidates is None and method not in ("greedy", "soft_linear", "soft_gaussian"):
        max_candidates = DENSE_CANDIDATES
    if max_candidates is not None:
        scores = _keep_best(scores, max_candidates)
    lowest = -float("inf") if score_threshold is None else score_threshold
    if method == "greedy":
        return greedy_nms(boxes_xyxy, scores, labels, iou_threshold, max_detections, exportable=exportable)
    if method in ("soft_linear", "soft_gaussian"):
        decay = ("linear", iou_threshold) if method == "soft_linear" else ("gaussian", sigma)
        return soft_nms(boxes_xyxy, scores, labels, decay, max_detections, lowest, exportable=exportable)
    if method == "fast":
        return fast_nms(boxes_xyxy, scores, labels, iou_threshold, max_detections, max_candidates)
    decay = (method.removeprefix("matrix_"), sigma)
    return matrix_nms(boxes_xyxy, scores, labels, decay, max_detections, max_candidates, lowest)


def check_arguments(method, iou_threshold, max_detections, sigma, max_candidates):
    """Return `max_detections` and `max_candidates` of `non_max_suppression` as plain ints, the latter perhaps ``None``.

    Raises:
        ValueError: An argument is out of range, or no whole number, NumPy's included, where it must be one.
    """
    if method not in get_args(Method):
        raise ValueError(f"`method` {method!r} is unknown; use one of {', '.join(map(repr, get_args(Method)))}")
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"`iou_threshold` {iou_threshold} must be in [0, 1]; 0.5 is usual")
    if not is_count(max_detections):
        raise ValueError(f"`max_detections` {max_detections!r} must be 1 or more, a whole number; 100 is usual")
    if not sigma > 0:
        raise ValueError(f"`sigma` {sigma} must be above 0; 0.5 is usual")
    if max_candidates is not None and not is_count(max_candidates):
        raise ValueError(
            f"`max_candidates` {max_candidates!r} must be 1 or more, a whole number, or None for the default"
        )
    return int(max_detections), None if max_candidates is None else int(max_candidates)


def _clean(boxes_xyxy, scores, score_threshold):
    """Return finite float32 boxes of ordered corners, and float32 scores, -inf for what cannot be kept."""
    scores = ops.cast(scores, "float32")
    boxes_xyxy = ops.cast(boxes_xyxy, "float32")
    # NaN and infinity fail this; `isfinite` does not pass through LiteRT's built-in operations.
    finite = ops.all(ops.absolute(boxes_xyxy) <= 3.4e38, axis=-1)  # (B, N)
    lowest = -float("inf") if score_threshold is None else score_threshold
    scores = ops.where(ops.logical_and(scores > lowest, finite), scores, -float("inf"))  # NaN is above nothing
    boxes_xyxy = ops.where(ops.expand_dims(finite, -1), boxes_xyxy, 0.0)
    boxes_xyxy = ops.clip(boxes_xyxy, -LARGEST_COORDINATE, LARGEST_COORDINATE)
    corners = boxes_xyxy[..., :2]
    return ops.concatenate([corners, ops.maximum(corners, boxes_xyxy[..., 2:])], axis=-1), scores


def _keep_best(scores, count):
    """Return `scores` with all but the `count` highest of each image set to -inf."""
    order = ops.argsort(-scores, axis=1)  # (B, N)
    rank = ops.argsort(order, axis=1)  # (B, N), the inverse permutation
    return ops.where(rank < count, scores, -float("inf"))

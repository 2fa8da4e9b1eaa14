"""Batches of detections and ground truth, as metrics of the host take them: unpadded, one image at a time."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class ImageBoxes(NamedTuple):
    """One image, without padding; boxes float64, absolute `xyxy`.

    Attributes:
        boxes: (M, 4) ground truth.
        labels: (M,) its class ids.
        ignored: (M,) bool, COCO's crowds and VOC's difficult boxes.
        areas: (M,) square pixels; those of the boxes where the targets name no others.
        found_boxes: (D, 4) detections, finite.
        found_scores: (D,) their scores, none NaN.
        found_labels: (D,) their class ids.
    """

    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    areas: np.ndarray
    found_boxes: np.ndarray
    found_scores: np.ndarray
    found_labels: np.ndarray


def unpadded(detections, targets, num_classes=None) -> Iterator[ImageBoxes]:
    """Yield the images of a batch without the rows of label -1.

    Detections of a diverged model are measured as those of any other: a NaN score is -infinity, so that it comes last,
    and a box that is not finite is empty, so that it overlaps nothing; both are wrong detections.

    Args:
        detections: dict of `boxes` (B, D, 4), `scores` (B, D) and `labels` (B, D), label -1 being padding; or lists of
            B arrays.
        targets: dict of `boxes` (B, M, 4), `labels` (B, M), and optionally `ignored` (B, M) bool and `areas` (B, M).
        num_classes: Labels of C and above are errors; ``None`` allows any label.

    Raises:
        ValueError: A label is below -1, not below `num_classes` or no whole number, or both sides differ in their
            number of images.
    """
    count = len(targets["labels"])
    if len(detections["labels"]) != count:
        raise ValueError(
            f"`detections` holds {len(detections['labels'])} images, but `targets` {count}; pass both of the same batch"
        )
    for index in range(count):
        labels = _checked("targets", targets["labels"][index], num_classes)
        kept = labels >= 0
        boxes = np.asarray(targets["boxes"][index], np.float64).reshape(-1, 4)[kept]
        ignored, areas = targets.get("ignored"), targets.get("areas")
        found_labels = _checked("detections", detections["labels"][index], num_classes)
        found = found_labels >= 0
        found_boxes = np.asarray(detections["boxes"][index], np.float64).reshape(-1, 4)[found]
        # Such a box overlaps nothing; as NaN it would spread.
        found_boxes = np.where(np.isfinite(found_boxes).all(axis=1, keepdims=True), found_boxes, 0)
        found_scores = np.asarray(detections["scores"][index], np.float64)[found]
        yield ImageBoxes(
            boxes,
            labels[kept],
            np.zeros(len(boxes), bool) if ignored is None else np.asarray(ignored[index], bool)[kept],
            (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) if areas is None else np.asarray(areas[index], np.float64)[kept],
            found_boxes,
            np.where(np.isnan(found_scores), -np.inf, found_scores),
            found_labels[found],
        )


def _checked(name, labels, num_classes):
    """Return labels as (N,) int64, after a check of their values."""
    given = np.asarray(labels)
    fractions = given[~np.isfinite(given) | (given != np.floor(given))] if given.dtype.kind == "f" else given[:0]
    if len(fractions):
        raise ValueError(f"`{name}` holds the label {fractions[0]}, expected whole numbers; pass class ids")
    labels = given.astype(np.int64)
    top = np.iinfo(np.int64).max if num_classes is None else num_classes - 1
    wrong = labels[(labels < -1) | (labels > top)]
    if len(wrong):
        expected = "0 or above" if num_classes is None else f"0 to {top}"
        raise ValueError(
            f"`{name}` holds the label {wrong[0]}, expected {expected}, or -1 for padding; map the data set's ids first"
        )
    return labels

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
        found_boxes: (D, 4) detections.
        found_scores: (D,) their scores.
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

    Args:
        detections: dict of `boxes` (B, D, 4), `scores` (B, D) and `labels` (B, D), label -1 being padding; or lists of
            B arrays.
        targets: dict of `boxes` (B, M, 4), `labels` (B, M), and optionally `ignored` (B, M) bool and `areas` (B, M).
        num_classes: Labels of C and above are errors; ``None`` allows any label.

    Raises:
        ValueError: A label is below -1 or not below `num_classes`, or both sides differ in their number of images.
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
        yield ImageBoxes(
            boxes,
            labels[kept],
            np.zeros(len(boxes), bool) if ignored is None else np.asarray(ignored[index], bool)[kept],
            (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) if areas is None else np.asarray(areas[index], np.float64)[kept],
            np.asarray(detections["boxes"][index], np.float64).reshape(-1, 4)[found],
            np.asarray(detections["scores"][index], np.float64)[found],
            found_labels[found],
        )


def _checked(name, labels, num_classes):
    """Return labels as (N,) int64, after a check of their range."""
    labels = np.asarray(labels).astype(np.int64)
    top = np.iinfo(np.int64).max if num_classes is None else num_classes - 1
    wrong = labels[(labels < -1) | (labels > top)]
    if len(wrong):
        expected = "0 or above" if num_classes is None else f"0 to {top}"
        raise ValueError(
            f"`{name}` holds the label {wrong[0]}, expected {expected}, or -1 for padding; map the data set's ids first"
        )
    return labels

"""Average precision for detectors, confusion-matrix and boundary metrics for segmenters."""

from kerasvision.metrics.boundary import BoundaryF1, boundary_f1
from kerasvision.metrics.coco_ap import CocoAP
from kerasvision.metrics.segmentation import (
    SegmentationMetrics,
    confusion_matrix,
    figures_of,
    per_class_accuracy,
    per_class_dice,
    per_class_iou,
)
from kerasvision.metrics.voc_ap import VocAP

__all__ = [
    "BoundaryF1",
    "CocoAP",
    "SegmentationMetrics",
    "VocAP",
    "boundary_f1",
    "confusion_matrix",
    "figures_of",
    "per_class_accuracy",
    "per_class_dice",
    "per_class_iou",
]

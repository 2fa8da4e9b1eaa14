"""Average precision for detectors, and confusion-matrix metrics for segmenters."""

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
    "CocoAP",
    "SegmentationMetrics",
    "VocAP",
    "confusion_matrix",
    "figures_of",
    "per_class_accuracy",
    "per_class_dice",
    "per_class_iou",
]

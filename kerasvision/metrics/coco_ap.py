"""Average precision as COCO defines it, computed by faster-coco-eval."""

import keras
import numpy as np

from kerasvision.metrics.detections import unpadded

# Positions in COCOeval's `stats`, in the order pycocotools prints them.
_STATS = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)
# COCO's sizes, in square pixels; both ends belong to a size.
_AREAS = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}


@keras.saving.register_keras_serializable("kerasvision")
class CocoAP:
    """Average precision over a data set, as pycocotools computes it.

    Accumulates detections and ground truth on the host. Boxes are absolute `xyxy` pixels; detections and
    ground truth must share one pixel grid. NaN scores come last, boxes that are not finite overlap nothing, as in
    `VocAP`: a model that diverged is measured, too.

    Args:
        all_statistics: Report all twelve of COCO's figures instead of AP, AP50 and AP75: also those of objects below
            32^2, from there to 96^2 and above square pixels (`AP_small`, `AP_medium`, `AP_large`), and the average
            recall of at most 1, 10 and 100 detections an image (`AR_1` ...) and of 100 by size (`AR_small` ...).
        num_classes: C; labels must be below it. ``None`` allows any label.
    """

    def __init__(self, *, all_statistics=False, num_classes=None):
        self.all_statistics = all_statistics
        self.num_classes = num_classes
        self.reset()

    def get_config(self):
        """Return the constructor's arguments."""
        return {"all_statistics": self.all_statistics, "num_classes": self.num_classes}

    @classmethod
    def from_config(cls, config):
        """Return the metric of a configuration, with nothing added."""
        return cls(**config)

    def reset(self):
        """Forget everything added so far."""
        self._images = 0
        self._annotations = []
        self._detections = []

    def add(self, detections, targets):
        """Add a batch.

        Args:
            detections: dict of `boxes` (B, D, 4), `scores` (B, D) and `labels` (B, D), label -1 being padding.
            targets: dict of `boxes` (B, M, 4), `labels` (B, M), label -1 being padding, and optionally `ignored`
                (B, M) bool: regions in which detections count neither as right nor as wrong, and `areas` (B, M) in
                square pixels: COCO sorts its objects into sizes by the area of their masks; default: of their boxes.

        Raises:
            ValueError: A label is below -1, not below `num_classes` or no whole number, or numbers of images differ.
        """
        for image in list(unpadded(detections, targets, self.num_classes)):
            self._images += 1
            self._add_truth(image)
            number = np.full((len(image.found_labels), 1), self._images)
            scores, labels = image.found_scores[:, None], image.found_labels[:, None]
            self._detections.append(np.concatenate([number, to_xywh(image.found_boxes), scores, labels], axis=1))

    def _add_truth(self, image):
        columns = (to_xywh(image.boxes), image.labels, image.ignored, image.areas)
        for box, label, crowd, area in zip(*columns, strict=True):
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,  # COCO's evaluators take id 0 for unmatched
                    "image_id": self._images,
                    "category_id": int(label),
                    "bbox": box.tolist(),
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )

    def _evaluate(self):
        from faster_coco_eval import COCO, COCOeval_faster

        labels = sorted({annotation["category_id"] for annotation in self._annotations})
        truth = COCO(
            {
                "images": [{"id": image + 1} for image in range(self._images)],
                "annotations": self._annotations,
                "categories": [{"id": label, "name": str(label)} for label in labels],
            }
        )
        detections = np.concatenate(self._detections) if self._detections else np.zeros((0, 7))
        detections = detections[np.isin(detections[:, 6], labels)]
        evaluator = COCOeval_faster(truth, truth.loadRes(detections), "bbox", print_function=_silent)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
        return labels, evaluator

    def result(self):
        """Return a dict of float figures in [0, 1]; NaN where there is no ground truth to measure by."""
        names = _STATS if self.all_statistics else _STATS[:3]
        if not any(not annotation["iscrowd"] for annotation in self._annotations):
            return dict.fromkeys(names, float("nan"))
        if not sum(len(part) for part in self._detections):
            return self._figures_of_none_found({a["category_id"] for a in self._annotations}, names)
        _, evaluator = self._evaluate()
        return {
            name: float(value) if value >= 0 else float("nan")
            for name, value in zip(names, evaluator.stats, strict=False)
        }

    def per_class(self):
        """Return {label: {"AP": ..., "AP50": ...}} for every class of the ground truth; NaN if all of it is ignored.

        With `all_statistics` all twelve figures of each class; NaN where it has no object of that size.
        """
        names = _STATS if self.all_statistics else _STATS[:2]
        labels = sorted({annotation["category_id"] for annotation in self._annotations})
        if not labels:
            return {}
        if not sum(len(part) for part in self._detections):
            return {label: self._figures_of_none_found({label}, names) for label in labels}
        labels, evaluator = self._evaluate()
        precision = np.asarray(evaluator.eval["precision"])  # (IoU, recall, class, area, max detections)
        recall = np.asarray(evaluator.eval["recall"])  # (IoU, class, area, max detections)
        return {
            label: {name: _mean(_part(name, precision[:, :, index], recall[:, index])) for name in names}
            for index, label in enumerate(labels)
        }

    def _figures_of_none_found(self, labels, names):
        """Return 0 for the figures that have objects of these classes to measure by, NaN for the others."""
        areas = [a["area"] for a in self._annotations if a["category_id"] in labels and not a["iscrowd"]]
        figures = {}
        for name in names:
            low, high = _AREAS.get(name.partition("_")[2], (0, float("inf")))
            figures[name] = 0.0 if any(low <= area <= high for area in areas) else float("nan")
        return figures


def _part(name, precision, recall):
    """Return the entries of one class that a figure is the mean of; -1 where there is nothing to measure by.

    Args:
        name: One of `_STATS`.
        precision: (10 IoUs, 101 recalls, 4 areas, 3 maximal numbers of detections).
        recall: (10 IoUs, 4 areas, 3 maximal numbers of detections).
    """
    kind, _, rest = name.partition("_")
    area = list(_AREAS).index(rest) + 1 if rest in _AREAS else 0  # area 0 is all of them
    if kind == "AR":
        return recall[:, area, ("1", "10", "100").index(rest) if area == 0 else 2]
    if kind in ("AP50", "AP75"):
        return precision[0 if kind == "AP50" else 5, :, area, 2]
    return precision[:, :, area, 2]


def _mean(values):
    """Return the mean of the values that are not -1, NaN if there is none."""
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else float("nan")


def to_xywh(boxes_xyxy):
    """Convert (N, 4) boxes from corners to corner and size, as COCO files hold them."""
    return np.concatenate([boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]], axis=1)


def _silent(*_):
    """Print nothing."""

"""Average precision as COCO defines it, computed by faster-coco-eval."""

import numpy as np

# Positions in COCOeval's `stats`, in the order pycocotools prints them.
_STATS = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)


class CocoAP:
    """Average precision over a data set, as pycocotools computes it.

    Accumulates detections and ground truth on the host. Boxes are absolute `xyxy` pixels; detections and
    ground truth must share one pixel grid.

    Args:
        all_statistics: Report all twelve of COCO's figures instead of AP, AP50 and AP75.
    """

    def __init__(self, *, all_statistics=False):
        self.all_statistics = all_statistics
        self.reset()

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
                (B, M) bool: regions in which detections count neither as right nor as wrong.
        """
        ignored = targets.get("ignored")
        if ignored is None:
            ignored = [np.zeros(len(labels), bool) for labels in targets["labels"]]
        for index in range(len(targets["labels"])):
            self._images += 1
            kept = np.flatnonzero(np.asarray(targets["labels"][index]) >= 0)
            self._add_truth(*(np.asarray(part[index])[kept] for part in (targets["boxes"], targets["labels"], ignored)))
            kept = np.flatnonzero(np.asarray(detections["labels"][index]) >= 0)
            boxes, scores, labels = (
                np.asarray(detections[name][index], np.float64)[kept] for name in ("boxes", "scores", "labels")
            )
            columns = (np.full((len(kept), 1), self._images), to_xywh(boxes), scores[:, None], labels[:, None])
            self._detections.append(np.concatenate(columns, axis=1))  # (D', 7)

    def _add_truth(self, boxes, labels, ignored):
        for box, label, crowd in zip(to_xywh(boxes.astype(np.float64)), labels, ignored, strict=True):
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,  # COCO's evaluators take id 0 for unmatched
                    "image_id": self._images,
                    "category_id": int(label),
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3]),
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
            return dict.fromkeys(names, 0.0)
        _, evaluator = self._evaluate()
        return {
            name: float(value) if value >= 0 else float("nan")
            for name, value in zip(names, evaluator.stats, strict=False)
        }

    def per_class(self):
        """Return {label: {"AP": ..., "AP50": ...}} for every class of the ground truth; NaN if all of it is ignored."""
        if not sum(len(part) for part in self._detections):
            scored = {a["category_id"]: 0.0 for a in self._annotations if not a["iscrowd"]}
            labels = sorted({annotation["category_id"] for annotation in self._annotations})
            return {label: dict.fromkeys(("AP", "AP50"), scored.get(label, float("nan"))) for label in labels}
        labels, evaluator = self._evaluate()
        precision = np.asarray(evaluator.eval["precision"])  # (IoU, recall, class, area, max detections)
        figures = {}
        for index, label in enumerate(labels):
            by_iou = precision[:, :, index, 0, -1]
            valid = np.where(by_iou > -1, by_iou, np.nan)
            if np.isnan(valid).all():
                figures[label] = {"AP": float("nan"), "AP50": float("nan")}
            else:
                figures[label] = {"AP": float(np.nanmean(valid)), "AP50": float(np.nanmean(valid[0]))}
        return figures


def to_xywh(boxes_xyxy):
    """Convert (N, 4) boxes from corners to corner and size, as COCO files hold them."""
    return np.concatenate([boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]], axis=1)


def _silent(*_):
    """Print nothing."""

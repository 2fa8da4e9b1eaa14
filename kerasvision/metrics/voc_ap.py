"""Average precision as PASCAL VOC defines it: 11 points (2007) and area under the monotone curve (2010 on)."""

import keras
import numpy as np

from kerasvision.metrics.detections import unpadded

_RULES = ("AP_voc07", "AP_voc10")


@keras.saving.register_keras_serializable("kerasvision")
class VocAP:
    """Mean average precision over a data set by the rules of the VOC development kit (VOCevaldet.m, VOCap.m).

    Accumulates detections and ground truth on the host. Boxes are absolute `xyxy` pixels, `x2` and `y2` exclusive, so
    that width and height are plain differences; the kit's files hold inclusive corners and it adds 1, which is the
    same. Detections of a class, over all images, are taken from the highest score down. Each belongs to the box of
    its class that it overlaps most, difficult ones included: if it overlaps that by `iou_threshold` or more, it is
    right the first time and wrong from then on, and counts as neither if the box is difficult. Equal scores keep the
    order in which they were added; NaN scores come last, boxes that are not finite overlap nothing.

    Differs from the kit: 11-point recall is compared with 0, 0.1 ... 1 exactly, as fractions; in MATLAB's floating
    point a recall of 3 in 10 falls short of ``0:0.1:1``'s fourth number.

    Args:
        iou_threshold: Least overlap of a right detection, above 0 and at most 1.
        num_classes: C; labels must be below it. ``None`` allows any label.

    `result()` is a dict of `AP_voc07` and `AP_voc10`, each the mean over the classes that have ground truth which is
    not difficult; NaN if there is none. Detections of other classes do not count.

    Raises:
        ValueError: `iou_threshold` is out of range.

    Reference:
        Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2; for the rule of
        2010 on, the development kit's documentation (2012), section 3.4.1.
    """

    def __init__(self, *, iou_threshold=0.5, num_classes=None):
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"`iou_threshold` is {iou_threshold}, expected above 0 and at most 1; VOC's is 0.5")
        self.iou_threshold = iou_threshold
        self.num_classes = num_classes
        self.reset()

    def get_config(self):
        """Return the constructor's arguments."""
        return {"iou_threshold": self.iou_threshold, "num_classes": self.num_classes}

    @classmethod
    def from_config(cls, config):
        """Return the metric of a configuration, with nothing added."""
        return cls(**config)

    def reset(self):
        """Forget everything added so far."""
        self._positives = {}  # label: number of boxes that are not difficult; 0 if all of them are
        self._found = {}  # label: list of (D, 2) score and 1 (right), 0 (wrong) or NaN (neither), one an image

    def add(self, detections, targets):
        """Add a batch.

        Args:
            detections: dict of `boxes` (B, D, 4), `scores` (B, D) and `labels` (B, D), label -1 being padding.
            targets: dict of `boxes` (B, M, 4), `labels` (B, M), label -1 being padding, and optionally `ignored`
                (B, M) bool: the difficult boxes.

        Raises:
            ValueError: A label is below -1, not below `num_classes` or no whole number, or numbers of images differ.
        """
        for image in list(unpadded(detections, targets, self.num_classes)):
            for label, difficult in zip(image.labels.tolist(), image.ignored.tolist(), strict=True):
                self._positives[label] = self._positives.get(label, 0) + (not difficult)
            for label in np.unique(image.found_labels).tolist():
                present, found = image.labels == label, image.found_labels == label
                scores = image.found_scores[found]
                verdicts = self._verdicts(
                    image.found_boxes[found], scores, image.boxes[present], image.ignored[present]
                )
                self._found.setdefault(label, []).append(np.stack([scores, verdicts], axis=1))

    def _verdicts(self, found_boxes, scores, boxes, difficult):
        """Return for each detection (D,) of one class in one image: 1 right, 0 wrong, NaN neither."""
        verdicts = np.zeros(len(scores))
        if not len(boxes):
            return verdicts
        overlaps = _overlaps(found_boxes, boxes)  # (D, M)
        best = overlaps.argmax(axis=1)
        taken = np.zeros(len(boxes), bool)
        for index in np.argsort(-scores, kind="stable"):
            box = best[index]
            if overlaps[index, box] < self.iou_threshold:
                continue
            if difficult[box]:
                verdicts[index] = np.nan
            elif not taken[box]:
                taken[box] = True
                verdicts[index] = 1
        return verdicts

    def per_class(self):
        """Return {label: {"AP_voc07": ..., "AP_voc10": ...}} for every class of the ground truth.

        NaN for a class of which all boxes are difficult, 0 for one without detections.
        """
        return {label: self._figures(label, self._positives[label]) for label in sorted(self._positives)}

    def _figures(self, label, positives):
        if not positives:
            return dict.fromkeys(_RULES, float("nan"))
        found = np.concatenate(self._found.get(label, [np.zeros((0, 2))]))
        verdicts = found[np.argsort(-found[:, 0], kind="stable"), 1]
        verdicts = verdicts[~np.isnan(verdicts)]
        right = np.cumsum(verdicts).astype(np.int64)
        precision = right / np.arange(1, len(right) + 1)
        return {
            "AP_voc07": eleven_point_ap(right, precision, positives),
            "AP_voc10": area_ap(right, precision, positives),
        }

    def result(self):
        """Return a dict of float figures in [0, 1]; NaN where there is no ground truth to measure by."""
        figures = [self._figures(label, positives) for label, positives in self._positives.items() if positives]
        if not figures:
            return dict.fromkeys(_RULES, float("nan"))
        return {rule: float(np.mean([figure[rule] for figure in figures])) for rule in _RULES}


def eleven_point_ap(right, precision, positives):
    """Return VOC 2007's average precision: the mean over recalls r of 0, 0.1 ... 1 of the best precision from r on.

    Args:
        right: (D,) int, right detections so far, from the highest score down.
        precision: (D,) right ones so far as part of all so far.
        positives: Number of boxes to be found, above 0.
    """
    best = [precision[10 * right >= tenths * positives].max(initial=0) for tenths in range(11)]
    return float(np.mean(best))


def area_ap(right, precision, positives):
    """Return VOC 2010's average precision: the area under the best precision from each recall on.

    The arguments are those of `eleven_point_ap`.
    """
    monotone = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(right, prepend=0) * monotone) / positives)


def _overlaps(boxes, others):
    """Return the IoU (N, M) of boxes (N, 4) and (M, 4), 0 where it is not defined."""
    corner = np.maximum(boxes[:, None, :2], others[None, :, :2])  # (N, M, 2)
    size = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - corner  # (N, M, 2)
    common = np.where((size > 0).all(axis=-1), size.prod(axis=-1), 0)  # (N, M)
    areas = [(part[:, 2:] - part[:, :2]).prod(axis=1) for part in (boxes, others)]
    union = areas[0][:, None] + areas[1][None] - common  # (N, M)
    return np.divide(common, union, out=np.zeros_like(common), where=(union > 0) & (common > 0))

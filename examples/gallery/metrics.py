"""Metrics: average precision by its three rules, the confusion matrix and boundary F1."""

import functools

import numpy as np
from scipy import ndimage

from examples.gallery import drawing as d
from examples.gallery.random_fields import _noisy_logits
from examples.gallery.registry import picture
from kerasvision.data.streets import MASK_CLASSES, Streets
from kerasvision.losses.boundary import class_boundaries
from kerasvision.metrics import (
    BoundaryF1,
    CocoAP,
    SegmentationMetrics,
    VocAP,
    boundary_f1,
    confusion_matrix,
    figures_of,
    per_class_accuracy,
    per_class_dice,
    per_class_iou,
)
from kerasvision.metrics.voc_ap import area_ap, eleven_point_ap
from kerasvision.ops.boxes import pairwise_iou

CLASSES = len(MASK_CLASSES)


@functools.cache
def _detections():
    """Return a list of (found boxes, scores, true boxes) of one class, of a detector that misses, errs and repeats."""
    rng, images = np.random.default_rng(3), []
    for sample in Streets("validation", count=40):
        true = sample.boxes[sample.labels == 0]
        seen = true[rng.uniform(size=len(true)) < 0.85]
        sizes = np.tile(seen[:, 2:] - seen[:, :2], 2)
        near = seen + rng.normal(0, 0.06, seen.shape) * sizes
        again = near[rng.uniform(size=len(near)) < 0.2] + 4
        wrong = rng.uniform(0, 200, (rng.integers(0, 2), 2))
        wrong = np.concatenate([wrong, wrong + rng.uniform(20, 60, wrong.shape)], axis=1)
        found = np.concatenate([near, again, wrong]).astype("float32")
        parts = ((len(near), 0.4, 1.0), (len(again), 0.2, 0.7), (len(wrong), 0.1, 0.9))
        images.append((found, np.concatenate([rng.uniform(low, high, count) for count, low, high in parts]), true))
    return images


def _measure(metric):
    for found, scores, true in _detections():
        detections = {"boxes": found[None], "scores": scores[None], "labels": np.zeros((1, len(found)), np.int32)}
        metric.add(detections, {"boxes": true[None], "labels": np.zeros((1, len(true)), np.int32)})
    return metric.result()


def _curve(iou_threshold=0.5):
    """Return right detections so far (D,), precision (D,) and the number of true boxes."""
    rows = []
    for found, scores, true in _detections():
        taken = set()
        overlaps = d.array(pairwise_iou(found, true)) if len(true) else np.zeros((len(found), 1))
        for index in np.argsort(-scores):
            best = int(overlaps[index].argmax())
            is_right = overlaps[index, best] >= iou_threshold and best not in taken
            taken |= {best} if is_right else set()
            rows.append((scores[index], is_right))
    right = np.cumsum([is_right for _, is_right in sorted(rows, key=lambda row: -row[0])])
    return right, right / np.arange(1, len(right) + 1), sum(len(true) for _, _, true in _detections())


@picture("Metrics", "metrics.VocAP", "metrics.CocoAP")
def average_precision():
    """Average precision, by three rules.

    Precision and recall of a made-up car detector on 40 scenes as its score threshold falls (grey). VOC 2007 averages
    the best precision from each of 11 recalls on; VOC 2010 takes the whole area under that staircase; COCO takes 101
    recalls. Right: the stricter the overlap that counts as found, the lower; COCO's AP is the mean over ten thresholds.
    """
    right, precision, positives = _curve()
    recall = right / positives
    voc, coco = _measure(VocAP()), _measure(CocoAP())
    assert abs(eleven_point_ap(right, precision, positives) - voc["AP_voc07"]) < 1e-9
    assert abs(area_ap(right, precision, positives) - voc["AP_voc10"]) < 1e-9
    figure, axes = d.panels(1, 4, height=2.8)
    best = np.maximum.accumulate(precision[::-1])[::-1]

    def best_from(recalls):
        return np.array([precision[recall >= at - 1e-9].max(initial=0) for at in recalls])

    for place in axes[:3]:
        place.plot(recall, precision, color=d.FAINT, linewidth=1.3)
        place.set(xlabel="recall", xlim=(0, 1.02), ylim=(0, 1.05))
    tenths, hundredths = np.linspace(0, 1, 11), np.linspace(0, 1, 101)
    axes[0].vlines(tenths, 0, best_from(tenths), color=d.BLUE, linewidth=1)
    axes[0].plot(tenths, best_from(tenths), "o", color=d.BLUE, markersize=5)
    axes[0].set(title=f"VocAP, 2007: {voc['AP_voc07']:.3f}", ylabel="precision")
    axes[1].fill_between(np.append(0, recall), np.append(best[0], best), step="pre", color=d.ORANGE, alpha=0.35)
    axes[1].step(np.append(0, recall), np.append(best[0], best), where="pre", color=d.ORANGE)
    axes[1].set_title(f"VocAP, 2010: {voc['AP_voc10']:.3f}")
    axes[2].vlines(hundredths, 0, best_from(hundredths), color=d.TRUTH, linewidth=0.8)
    axes[2].plot(hundredths, best_from(hundredths), ".", color=d.TRUTH, markersize=3)
    axes[2].set_title(f"CocoAP, AP50: {coco['AP50']:.3f}")
    thresholds = np.arange(0.5, 1, 0.05)
    by_threshold = [_measure(VocAP(iou_threshold=float(round(at, 2))))["AP_voc10"] for at in thresholds]
    axes[3].plot(thresholds, by_threshold, "o-", color=d.PURPLE, markersize=4)
    axes[3].axhline(coco["AP"], color=d.TRUTH, linestyle="--", label=f"CocoAP, AP: {coco['AP']:.3f}")
    axes[3].set(xlabel="IoU that counts as found", ylim=(0, 1.05), title="area by threshold")
    axes[3].legend(loc="lower left")
    return figure


@picture(
    "Metrics",
    "metrics.SegmentationMetrics",
    "metrics.confusion_matrix",
    "metrics.figures_of",
    "metrics.per_class_iou",
    "metrics.per_class_dice",
    "metrics.per_class_accuracy",
)
def segmentation_metrics():
    """One confusion matrix, and all figures from it.

    Left: which class pixels were taken for, as shares of the true class, for the coarse and noisy prediction that the
    random fields above start from. Right: accuracy, Dice and IoU of each class, all worked out from that matrix. Thin
    things - lane markings, poles - suffer most, and the mean over classes shows it while the share of right pixels does
    not.
    """
    truth, logits = d.scene().mask, _noisy_logits()
    confusion = confusion_matrix(truth, logits.argmax(axis=-1), CLASSES)
    metric = SegmentationMetrics(CLASSES, all_statistics=True)
    metric.update_state(truth[None], logits[None])
    measured = {name: float(value) for name, value in metric.result().items()}
    assert all(abs(measured[name] - value) < 1e-5 for name, value in figures_of(confusion, all_statistics=True).items())
    present = np.flatnonzero(confusion.sum(axis=1))
    names = [MASK_CLASSES[index] for index in present]
    figure, (left, right) = d.panels(1, 2, height=4.0, width_ratios=(1, 1.25))
    shares = confusion[np.ix_(present, present)] / confusion.sum(axis=1, keepdims=True)[present]
    d.heat(left, shares, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.03:
            text = f"{share:.2f}".removeprefix("0")
            left.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if share > 0.5 else d.INK)
    left.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
    left.set_yticks(range(len(names)), names)
    left.set(xlabel="predicted", ylabel="true")
    places = np.arange(len(names))
    figures = (("accuracy", per_class_accuracy), ("Dice", per_class_dice), ("IoU", per_class_iou))
    for number, (name, function) in enumerate(figures):
        values = function(confusion)[present]
        right.barh(places + 0.27 * (number - 1), values, 0.27, color=d.COLOURS[number], label=name)
    right.set_yticks(places, names)
    right.invert_yaxis()
    right.set_xlim(0, 1)
    right.legend(loc="upper center", bbox_to_anchor=(0.4, -0.06), ncols=3)
    right.set_title(
        "   ".join(f"{name} {measured[name]:.3f}" for name in ("mIoU", "dice", "mean_accuracy", "pixel_accuracy"))
    )
    return figure


@picture("Metrics", "metrics.BoundaryF1", "metrics.boundary_f1")
def boundary_quality():
    """Boundary F1: contours within a tolerance.

    A mask whose edges are rounded to cells of 8 x 8 pixels. Left: the band of the tolerance around the true contours
    (grey) and the contour pixels of the prediction, green inside the band and red outside of it. Right: boundary F1 of
    some classes and of the whole image by the tolerance. IoU hardly notices such edges on large things.
    """
    scene, tolerance = d.scene(), 0.005
    height, width = scene.size_hw
    predicted = scene.mask[4::8, 4::8].repeat(8, axis=0).repeat(8, axis=1)
    predicted = np.where(predicted < CLASSES, predicted, 0)
    # As the metric has it, contours are taken of the counted pixels alone.
    counted = np.where(scene.mask < CLASSES, predicted, 255)
    contours = [d.array(class_boundaries(mask[None].astype(np.int32)))[0] for mask in (scene.mask, counted)]
    near = ndimage.distance_transform_edt(~contours[0]) < tolerance * np.hypot(height, width)
    drawn = np.full((height, width, 3), 255, np.uint8)
    drawn[near] = 205
    for where, colour in ((contours[1] & near, d.TRUTH), (contours[1] & ~near, d.RED)):
        drawn[where] = np.array(d.matplotlib.colors.to_rgb(colour)) * 255
    figure, axes = d.panels(1, 3, height=2.7, width_ratios=(1, 1, 0.95))
    d.show_mask(axes[0], counted, "prediction")
    d.show(axes[1], drawn, f"its contours, tolerance {tolerance * np.hypot(height, width):.1f} pixels")
    tolerances = np.array([0.0025, 0.005, 0.0075, 0.01, 0.015])
    figures = np.stack([boundary_f1(scene.mask, predicted, CLASSES, tolerance=float(at)) for at in tolerances])
    overlaps = per_class_iou(confusion_matrix(scene.mask, predicted, CLASSES))
    pixels = tolerances * np.hypot(height, width)
    for number, name in enumerate(("car", "bus", "cyclist", "lane marking")):
        index = MASK_CLASSES.index(name)
        axes[2].plot(
            pixels, figures[:, index], "o-", color=d.COLOURS[number], label=f"{name} (IoU {overlaps[index]:.2f})"
        )
    whole = []
    for at in tolerances:
        metric = BoundaryF1(CLASSES, tolerance=float(at))
        metric.update_state(scene.mask[None], d.one_hot(predicted, CLASSES)[None])
        whole.append(float(metric.result()))
    axes[2].plot(pixels, whole, "--", color=d.INK, label="BoundaryF1")
    axes[2].set(xlabel="tolerance in pixels", ylim=(0, 1.03), title="boundary F1")
    axes[2].legend(loc="lower right", fontsize=8)
    return figure

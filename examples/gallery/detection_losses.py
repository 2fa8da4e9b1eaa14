"""Losses of detectors: of classes, of deltas, of boxes."""

import numpy as np

from examples.gallery import drawing as d
from examples.gallery.registry import picture
from kerasvision import losses


def _logit(probabilities):
    return np.log(probabilities / (1 - probabilities))


def _each(loss, targets, predictions):
    """Return the loss of each element of (N, 1) targets and predictions: (N,)."""
    return d.array(loss(np.asarray(targets, np.float32), np.asarray(predictions, np.float32)))


@picture(
    "Losses of detectors",
    "losses.get",
    "losses.CrossEntropyLoss",
    "losses.SigmoidFocalLoss",
    "losses.SoftmaxFocalLoss",
    "losses.QualityFocalLoss",
    "losses.VarifocalLoss",
    "losses.DistributionFocalLoss",
)
def classification_losses():
    """Cross-entropy and the focal losses.

    Left: focal losses by the probability of the true class; with gamma 0 it is cross-entropy (dotted:
    `CrossEntropyLoss`, white dots: `SoftmaxFocalLoss` with gamma 2 and two classes), and the larger gamma, the less do
    easy examples count. Middle: losses for a positive whose box has an IoU of 0.8: cross-entropy and quality focal loss
    are least at 0.8, so that scores learn the quality; varifocal loss is cross-entropy times 0.8. Dashed: for a
    negative. Right: distribution focal loss of three predictions for a side that lies at 4.3 bins: best is what has its
    mass on the two bins beside it.
    """
    figure, (left, middle, right) = d.panels(1, 3, height=3.2)
    shares = np.linspace(0.01, 0.99, 99)[:, None]
    ones = np.ones_like(shares)
    for number, gamma in enumerate((0, 0.5, 1, 2, 5)):
        focal = losses.get("focal", alpha=-1, gamma=gamma, reduction="none")
        left.plot(shares, _each(focal, ones, _logit(shares)), color=d.COLOURS[number], label=f"gamma {gamma:g}")
    two_classes = np.concatenate([np.zeros_like(shares), _logit(shares)], axis=1)
    entropy = losses.CrossEntropyLoss(reduction="none")
    left.plot(shares, _each(entropy, ones[:, 0], two_classes), ":", color=d.INK)
    softmax = losses.get("softmax_focal", gamma=2, reduction="none")
    left.plot(shares[::7], _each(softmax, ones[:, 0], two_classes)[::7], ".", color="white", markeredgecolor=d.RED)
    left.set(xlabel="probability of the true class", ylim=(0, 4), title="focal loss")
    left.legend()

    quality = 0.8
    entropy = losses.get("quality_focal", beta=0, reduction="none")
    ways = (
        ("cross-entropy", entropy, 0),
        ("quality_focal, beta 2", losses.get("quality_focal", reduction="none"), 1),
        ("varifocal", losses.get("varifocal", reduction="none"), 2),
    )
    for name, loss, number in ways:
        middle.plot(shares, _each(loss, quality * ones, _logit(shares)), color=d.COLOURS[number], label=name)
        middle.plot(shares, _each(loss, 0 * ones, _logit(shares)), "--", color=d.COLOURS[number], linewidth=1.1)
    middle.axvline(quality, color=d.FAINT, linewidth=1)
    middle.set(xlabel="predicted probability", ylim=(0, 2.5), title="quality 0.8 (dashed: a negative)")
    middle.legend(loc="upper center")

    bins, target = np.arange(9), 4.3
    distribution = losses.DistributionFocalLoss(reduction="none")
    for number, (name, logits) in enumerate(
        (
            ("flat", np.zeros(9)),
            ("around 3", -0.8 * (bins - 3.0) ** 2),
            ("around 4.3", -1.6 * (bins - target) ** 2),
        )
    ):
        value = _each(distribution, [target], logits[None])[0]
        probabilities = np.exp(logits) / np.exp(logits).sum()
        right.bar(
            bins + 0.27 * (number - 1), probabilities, 0.27, color=d.COLOURS[number], label=f"{name}: {value:.2f}"
        )
    right.axvline(target, color=d.INK, linestyle=":", linewidth=1.4)
    right.set(xlabel="bin", ylim=(0, 0.95), title="distribution_focal, three predictions")
    right.set_xticks(bins)
    right.legend(loc="upper left")
    return figure


@picture("Losses of detectors", "losses.SmoothL1Loss", "losses.HuberLoss", "losses.BalancedL1Loss")
def delta_losses():
    """Smooth L1, Huber and balanced L1.

    The losses of one coordinate by its error, and their slopes, which are what drives learning. Smooth L1 and Huber are
    quadratic up to beta or delta; below 1, smooth L1 stays at a slope of 1 while Huber's falls to delta. Balanced L1
    raises the slope of small errors, so that boxes that are nearly right count for more.
    """
    errors = np.linspace(-2.5, 2.5, 501)[:, None]
    ways = (
        ("SmoothL1Loss(beta=1)", losses.SmoothL1Loss(reduction="none"), "-"),
        ("SmoothL1Loss(beta=0.2)", losses.SmoothL1Loss(0.2, reduction="none"), "-"),
        ("HuberLoss(delta=1)", losses.HuberLoss(reduction="none"), ":"),
        ("HuberLoss(delta=0.2)", losses.HuberLoss(0.2, reduction="none"), "-"),
        ("BalancedL1Loss()", losses.BalancedL1Loss(reduction="none"), "-"),
    )
    figure, (left, right) = d.panels(1, 2, height=3.2)
    for number, (name, loss, style) in enumerate(ways):
        values = _each(loss, np.zeros_like(errors), errors)
        width = 3.2 if style == ":" else 1.8
        left.plot(errors, values, style, label=name, color=d.COLOURS[number], linewidth=width)
        slopes = np.gradient(values, errors[:, 0])
        right.plot(errors, slopes, style, color=d.COLOURS[number], linewidth=width)
    for place, title in ((left, "loss"), (right, "slope")):
        place.set(xlabel="error", title=title)
        place.grid(True)
    left.legend(loc="upper center")
    return figure


@picture("Losses of detectors", "losses.IoULoss", "losses.GIoULoss", "losses.DIoULoss", "losses.CIoULoss")
def box_losses():
    """IoU, GIoU, DIoU and CIoU loss: how each draws a box to its target.

    A box (dashed) that does not touch its target (green) walks down the slope of each loss, by the same rule for all;
    outlines get darker with time, and the IoU is plotted below, by steps. The IoU loss has no slope where boxes do not
    touch, and the box stays. GIoU first grows it until it touches; DIoU and CIoU pull its centre over as well. All
    three end on the target.
    """
    target = np.array([62, 30, 102, 90], np.float32)
    start = np.array([8, 62, 44, 86], np.float32)
    figure, axes = d.panels(2, 4, height=4.2, height_ratios=(1.4, 1))
    ways = (losses.IoULoss, losses.GIoULoss, losses.DIoULoss, losses.CIoULoss)
    for number, kind in enumerate(ways):
        track, overlap = _descend(kind(reduction="none"), start, target)
        place, below = axes[:, number]
        d.bare(place)
        d.box(place, target, d.TRUTH, fill=0.25, width=2.4)
        for step in (0, 10, 25, 50, 100, 250):
            d.box(place, track[step], d.INK, linestyle="--" if step == 0 else "-", width=1.2, alpha=0.35 + step / 400)
        place.set_xlim(0, 130)
        place.set_ylim(110, 10)
        place.set_aspect("equal")
        place.set_title(kind.__name__)
        below.plot(overlap, color=d.COLOURS[number])
        below.set(ylim=(-0.03, 1.03), xlabel="steps")
    axes[1, 0].set_ylabel("IoU")
    return figure


def _descend(loss, start, target, *, steps=250, rate=110.0):
    """Return boxes (steps + 1, 4) on the way down a loss, by central differences, and their IoUs with the target."""
    half = 0.05  # pixels
    nudges = np.concatenate([half * np.eye(4), -half * np.eye(4)])
    track = [start.astype(np.float64)]
    for step in range(steps):
        around = track[-1] + nudges
        values = d.array(loss(np.tile(target, (8, 1)).astype(np.float64), around)).astype(np.float64)
        slope = (values[:4] - values[4:]) / (2 * half)
        track.append(track[-1] - rate * (1 - 0.9 * step / steps) * slope)
    track = np.stack(track)
    return track, 1 - d.array(losses.IoULoss(reduction="none")(np.tile(target, (len(track), 1)), track))

"""Assignment: which anchor learns which object, and which of them are trained on."""

import functools

import numpy as np
from matplotlib import patches

from examples.gallery import drawing as d
from examples.gallery.registry import picture
from kerasvision.layers import AnchorGenerator
from kerasvision.losses.set_loss import TERMS, SetLoss, matching_cost, set_losses
from kerasvision.ops import boxes as box_ops
from kerasvision.ops.hungarian import assign
from kerasvision.ops.matching import (
    BACKGROUND,
    BETWEEN_THRESHOLDS,
    match_atss,
    match_best_prior,
    match_by_iou,
    match_simota,
    simota_cost,
)
from kerasvision.ops.sampling import mine_hard_negatives, sample_balanced

STRIDES = (16, 32, 64)
SIZES = ((32, 45), (64, 90), (128, 181))


@functools.cache
def _scene():
    """Return the scene, its anchors (A, 4), the number of each level's, and IoUs (1, M, A)."""
    scene = d.scene()
    grids = [(scene.size_hw[0] // stride, scene.size_hw[1] // stride) for stride in STRIDES]
    levels = [d.array(level) for level in AnchorGenerator(SIZES)(grids, scene.size_hw)]
    anchors = np.concatenate(levels)
    return scene, anchors, [len(level) for level in levels], d.array(box_ops.pairwise_iou(scene.boxes[None], anchors))


def _draw_matches(axes, matches, title, *, outlines=True, anchors=None):
    scene, own_anchors, _, _ = _scene()
    anchors = own_anchors if anchors is None else anchors
    matches = d.array(matches)[0]
    d.show(axes, scene.image, faded=0.6)
    for number, truth in enumerate(scene.boxes):
        d.box(axes, truth, d.COLOURS[number], width=2.6)
    x, y = (anchors[:, :2] + anchors[:, 2:]).T / 2
    if outlines:
        for index in np.flatnonzero(matches >= 0):
            d.box(axes, anchors[index], d.COLOURS[matches[index]], width=0.7, linestyle="--")
    for number in range(len(scene.boxes)):
        mine = matches == number
        axes.plot(x[mine], y[mine], "o", color=d.COLOURS[number], markersize=5, markeredgecolor="white")
    between = matches == BETWEEN_THRESHOLDS
    axes.plot(x[between], y[between], "x", color=d.INK, markersize=5, markeredgewidth=1.3)
    axes.set_xlim(0, scene.size_hw[1])
    axes.set_ylim(scene.size_hw[0], 0)
    left_out = set(range(len(scene.boxes))) - set(matches.tolist())
    counts = f"{(matches >= 0).sum()} matched, {between.sum()} ignored, {(matches == BACKGROUND).sum()} background"
    axes.set_title(title)
    d.note(axes, f"{counts}\nobjects without any anchor: {len(left_out)}")


@picture("Assignment", "ops.matching.match_by_iou", "ops.matching.match_best_prior")
def matching_by_iou():
    """Matching anchors by IoU thresholds.

    Dashed outlines with a dot in their middle are anchors that learn the object of their colour, crosses are anchors
    whose IoU lies between the thresholds and which teach nothing; all others are background. Thresholds alone (left,
    0.5 and 0.4) leave small and odd-shaped objects without any anchor. Low-quality matches (middle) give each object
    the anchors that overlap it most, whatever the IoU. SSD's rule (right) takes the one best anchor of each object and
    all others above one threshold, so that nothing is ignored.
    """
    _, _, _, iou = _scene()
    valid = np.ones(iou.shape[:2], bool)
    figure, axes = d.panels(1, 3, height=2.85)
    for place, force in ((0, False), (1, True)):
        matches = match_by_iou(iou, valid, foreground_iou=0.5, background_iou=0.4, force_best=force)
        _draw_matches(axes[place], matches, f"match_by_iou, force_best={force}")
    _draw_matches(axes[2], match_best_prior(iou, valid, foreground_iou=0.5), "match_best_prior")
    return figure


@picture("Assignment", "ops.matching.match_atss", "ops.matching.match_simota", "ops.matching.simota_cost")
def dynamic_assignment():
    """ATSS and SimOTA: thresholds that each object sets for itself.

    ATSS takes the anchors near an object's centre and keeps those above the mean plus the standard deviation of their
    IoUs; no threshold is given, and an object may get none, like the left traffic light. SimOTA looks at predictions,
    here true boxes shifted at random by up to 20 % of their size, with matching class probabilities: each object takes
    as many of the cheapest as its best IoUs sum up to, from cells inside its box or near its centre. Dots are the
    centres of anchors or cells, of strides 16, 32 and 64.
    """
    scene = d.scene()
    valid = np.ones((1, len(scene.boxes)), bool)
    figure, axes = d.panels(1, 2, height=3.6)
    # ATSS has one square anchor a cell, of 8 strides in the paper; here 4, for scenes this small.
    cells = [AnchorGenerator([(4 * stride,)], (1.0,)) for stride in STRIDES]
    grids = [(scene.size_hw[0] // stride, scene.size_hw[1] // stride) for stride in STRIDES]
    levels = [d.array(cell([grid], scene.size_hw)[0]) for cell, grid in zip(cells, grids, strict=True)]
    squares = np.concatenate(levels)
    matches = match_atss(scene.boxes[None], valid, squares, level_sizes=[len(level) for level in levels])
    _draw_matches(axes[0], matches, "match_atss", anchors=squares)

    centers = (squares[:, :2] + squares[:, 2:]) / 2 + np.repeat(STRIDES, [len(level) for level in levels])[:, None] / 2
    strides = np.repeat(STRIDES, [len(level) for level in levels])
    rng = np.random.default_rng(1)
    middles = (scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2
    nearest = ((centers[:, None] - middles) ** 2).sum(axis=2).argmin(axis=1)
    sizes = scene.boxes[nearest, 2:] - scene.boxes[nearest, :2]
    predicted = scene.boxes[nearest] + np.tile(rng.uniform(-0.2, 0.2, sizes.shape) * sizes, 2)
    probabilities = np.full((1, len(squares), 7), 0.05, np.float32)
    probabilities[0, np.arange(len(squares)), scene.labels[nearest]] = rng.uniform(0.3, 0.9, len(squares))
    cost, iou = simota_cost(scene.labels[None], scene.boxes[None], probabilities, predicted[None])
    matches = match_simota(cost, iou, valid, scene.boxes[None], centers, strides)
    at_centers = np.concatenate([centers, centers], axis=1)
    _draw_matches(axes[1], matches, "match_simota", anchors=at_centers, outlines=False)
    for index in np.flatnonzero(d.array(matches)[0] >= 0):
        d.box(axes[1], predicted[index], d.COLOURS[d.array(matches)[0, index]], width=0.7, linestyle="--")
    return figure


@picture("Assignment", "ops.sampling.sample_balanced", "ops.sampling.mine_hard_negatives")
def sampling():
    """Which anchors are trained on: a random sample, or the hardest negatives.

    Nearly all anchors are background. `sample_balanced` (left) draws 64 of them at random, at most a quarter positive
    (green): the negatives (red) lie anywhere. `mine_hard_negatives` (middle) takes the three negatives with the highest
    loss for each positive. The losses here are the anchors' best IoU with an object plus noise, as those of a network
    that cannot yet tell a shifted box from a good one: the hard negatives crowd around the objects. Right: losses of
    all negatives from the highest down, and which of them each chooses.
    """
    scene, anchors, _, iou = _scene()
    valid = np.ones(iou.shape[:2], bool)
    matches = d.array(match_by_iou(iou, valid, foreground_iou=0.5, background_iou=0.4))
    positives, negatives = matches >= 0, matches == BACKGROUND
    losses = iou.max(axis=1) + np.random.default_rng(0).uniform(0, 0.15, matches.shape)
    sampled = [
        d.array(part)[0] for part in sample_balanced(positives, negatives, size=64, positive_fraction=0.25, seed=3)
    ]
    mined = d.array(mine_hard_negatives(losses, positives, negatives, ratio=3.0))[0]
    figure, axes = d.panels(1, 3, height=2.9, width_ratios=(1.15, 1.15, 1))
    chosen = (("sample_balanced", *sampled), ("mine_hard_negatives, ratio=3", positives[0], mined))
    x, y = (anchors[:, :2] + anchors[:, 2:]).T / 2
    for place, (title, right, wrong) in zip(axes, chosen, strict=False):
        d.show(place, scene.image, title, faded=0.55)
        d.note(place, f"{right.sum()} positive, {wrong.sum()} negative")
        jitter = np.random.default_rng(2).uniform(-4, 4, (2, len(x)))  # anchors of one cell share their centre
        for mask, colour in ((wrong, d.RED), (right, d.TRUTH)):
            place.plot(x[mask] + jitter[0, mask], y[mask] + jitter[1, mask], "o", color=colour, markersize=4.5)
            place.lines[-1].set_markeredgecolor("white")
        place.set_xlim(0, scene.size_hw[1])
        place.set_ylim(scene.size_hw[0], 0)
    order = np.argsort(-np.where(negatives[0], losses[0], -1))[: negatives.sum()]
    axes[2].plot(losses[0, order], color=d.FAINT)
    for height, (mask, colour, name) in enumerate(
        ((sampled[1], d.BLUE, "sample_balanced"), (mined, d.RED, "mine_hard_negatives"))
    ):
        ranks = np.flatnonzero(mask[order])
        axes[2].vlines(ranks, -0.16 - 0.1 * height, -0.08 - 0.1 * height, color=colour, linewidth=1, label=name)
    axes[2].set(xlabel="negatives by falling loss", ylabel="loss", title="chosen by rank")
    axes[2].legend(loc="upper right")
    return figure


def _predictions():
    """Return labels, boxes, logits and predicted boxes of seven DETR-like queries over the scene, `rel_cxcywh`."""
    scene = d.scene()
    true_boxes = d.array(box_ops.convert(scene.boxes, "xyxy", "rel_cxcywh", sizes_hw=np.array(scene.size_hw)))
    rng = np.random.default_rng(4)
    chosen = np.array([5, 0, 4, 4, 1, 2, 5])  # the object that each query is a guess at
    predicted = true_boxes[chosen] + rng.normal(0, 0.12, (7, 4)) * np.tile(true_boxes[chosen, 2:], 2)
    logits = rng.normal(0, 0.3, (7, 8))
    logits[np.arange(7), scene.labels[chosen]] += 2
    # Query 2 lies between the cyclist and the large bus, and fits both; query 3 fits the cyclist alone, a bit less.
    predicted[2] = 0.65 * true_boxes[4] + 0.35 * true_boxes[3]
    predicted[3] = true_boxes[4] + np.array([-0.09, 0.06, 0, 0])
    logits[2, scene.labels[3]] += 2
    return scene.labels[None], true_boxes[None], logits[None].astype("float32"), predicted[None].astype("float32")


@picture(
    "Assignment",
    "ops.hungarian.assign",
    "losses.SetLoss",
    "losses.set_loss.matching_cost",
    "losses.set_loss.set_losses",
)
def hungarian():
    """Hungarian matching and DETR's set loss.

    Seven predictions (dashed) for six objects (solid). Each pair has a cost of class, L1 and GIoU; `assign` finds the
    one-to-one pairs of the lowest total (framed). Taking the cheapest pair first, and so on (dotted), ends dearer: it
    gives prediction 2 to the cyclist, which it fits best, and nothing good is left for the large bus. One prediction
    stays without an object (black) and learns "no object". Right: the terms of the loss over the matched pairs,
    weighted as `SetLoss` adds them up.
    """
    scene = d.scene()
    labels, true_boxes, logits, predicted = _predictions()
    cost = d.array(matching_cost(labels, true_boxes, logits, predicted))
    rows = d.array(assign(cost))[0]
    figure, (left, middle, right) = d.panels(1, 3, height=3.0, width_ratios=(1.5, 1.1, 0.8))
    d.show(left, scene.image, "predictions, numbered, and objects", faded=0.55)
    corners = d.array(box_ops.convert(predicted[0], "rel_cxcywh", "xyxy", sizes_hw=np.array(scene.size_hw)))
    for column, truth in enumerate(scene.boxes):
        d.box(left, truth, d.COLOURS[column], width=2.4)
    for row, one in enumerate(corners):
        column = np.flatnonzero(rows == row)
        colour = d.COLOURS[column[0]] if len(column) else d.INK
        d.box(left, one, colour, width=1.3, linestyle="--", text=str(row))
    left.set_xlim(0, scene.size_hw[1])
    left.set_ylim(scene.size_hw[0], 0)

    drawn = middle.imshow(cost[0], cmap="RdYlBu_r", aspect="auto")
    figure.colorbar(drawn, ax=middle, shrink=0.8)
    remaining, greedy = cost[0].copy(), []
    while np.isfinite(remaining).any():
        row, column = np.unravel_index(np.argmin(remaining), remaining.shape)
        greedy.append((row, column))
        remaining[row], remaining[:, column] = np.inf, np.inf
    for row, column in greedy:
        middle.add_patch(patches.Rectangle((column - 0.38, row - 0.38), 0.76, 0.76, fill=False, ls=":", lw=1.8))
    for column, row in enumerate(rows):
        middle.add_patch(patches.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, lw=2.2))
    middle.set_xticks(range(6), [f"{name}" for name in range(6)])
    for tick, colour in zip(middle.get_xticklabels(), d.COLOURS, strict=False):
        tick.set_color(colour)
        tick.set_fontweight("bold")
    middle.set(xlabel="object", ylabel="prediction")
    total = cost[0, rows, np.arange(6)].sum()
    middle.set_title(f"costs: assigned {total:.2f}, greedy {sum(cost[0][pair] for pair in greedy):.2f}")

    loss = SetLoss()
    terms = set_losses(labels, true_boxes, logits, predicted)
    weighted = [loss.weights[name] * float(d.array(terms[name]).sum()) for name in TERMS]
    right.bar(TERMS, weighted, color=[d.BLUE, d.ORANGE, d.PURPLE], width=0.6)
    right.tick_params(axis="x", labelsize=7.5)
    whole = float(loss({"labels": labels, "boxes": true_boxes}, {"logits": logits, "boxes": predicted}))
    right.set_title(f"SetLoss {whole:.2f} = sum of terms")
    return figure

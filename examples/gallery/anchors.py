"""Anchors: the conventions side by side, and anchors for a data set."""

import numpy as np
from matplotlib import patheffects

from examples.gallery import drawing as d
from examples.gallery.registry import picture
from kerasvision.data.anchor_clustering import cluster_anchors, cluster_sizes, size_iou
from kerasvision.data.streets import Streets
from kerasvision.layers import AnchorGenerator, DefaultBoxGenerator, OctaveAnchorGenerator, PriorBoxGenerator

SIZE = 384  # of the image, in pixels
PYRAMID = [(SIZE // stride, SIZE // stride) for stride in (8, 16, 32, 64, 128)]


def _conventions():
    third, two_thirds = 2 ** (1 / 3), 2 ** (2 / 3)
    sizes = [(size, int(size * third), int(size * two_thirds)) for size in (32, 64, 128, 256, 512)]
    octaves = OctaveAnchorGenerator()
    ssd = DefaultBoxGenerator(
        [[2], [2, 3], [2, 3], [2, 3], [2], [2]], scales=(0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
    )
    streets = Streets("train", count=60, size_hw=(SIZE, SIZE))
    priors = cluster_anchors(streets, 9).by_level(3)
    grids = {"ssd": [(side, side) for side in (38, 19, 10, 5, 3, 1)], "yolo": PYRAMID[:3]}
    return (
        ("AnchorGenerator: RetinaNet, P3-P7", AnchorGenerator(sizes), PYRAMID, 3),
        ("OctaveAnchorGenerator: EfficientDet, P3-P7", octaves, PYRAMID, 3),
        ("DefaultBoxGenerator: SSD300, six maps", ssd, grids["ssd"], 2),
        ("PriorBoxGenerator: YOLO, k-means of streets", PriorBoxGenerator(priors), grids["yolo"], 3),
    )


@picture(
    "Anchors",
    "layers.AnchorGenerator",
    "layers.OctaveAnchorGenerator",
    "layers.DefaultBoxGenerator",
    "layers.PriorBoxGenerator",
    "ops.anchors.cell_anchors",
    "ops.anchors.octave_cells",
    "ops.anchors.default_box_cells",
    "ops.anchors.prior_cells",
    "ops.anchors.grid_anchors",
)
def anchor_conventions():
    """Anchors of one cell of each level, in four conventions.

    All anchors of the middle cell of each level over the same image (framed), one colour a level from fine (blue) to
    coarse. Dots are the centres of all anchors of one level. RetinaNet and EfficientDet have nine of three sizes and
    three shapes on each of five levels, and the largest reach far beyond the image; SSD's are cut to it in width and
    height; YOLO's are the data set's own clusters, three a level. RetinaNet's dots lie on the cells' upper left
    corners, the others' in the middle of the cells.
    """
    image = d.scene(2, (SIZE, SIZE)).image
    figure, axes = d.panels(2, 2, height=7.6)
    for place, (title, layer, grids, dotted) in zip(axes.flat, _conventions(), strict=True):
        d.show(place, image, title, faded=0.72)
        d.box(place, (0, 0, SIZE, SIZE), d.INK, width=1)
        levels = [d.array(level) for level in layer(grids, (SIZE, SIZE))]
        for number, (anchors, (rows, columns)) in enumerate(zip(levels, grids, strict=True)):
            cell = anchors.reshape(rows, columns, -1, 4)[rows // 2, columns // 2]
            for one in cell:
                d.box(place, one, d.COLOURS[number], width=1.1)
            if number == min(dotted, len(levels) - 1):
                x, y = (anchors[:, :2] + anchors[:, 2:]).T / 2
                place.plot(x, y, ".", color=d.COLOURS[number], markersize=4, clip_on=False)
        margin = (1.68 if len(grids) == 5 else 0.56) * SIZE
        place.set_xlim(SIZE / 2 - margin, SIZE / 2 + margin)
        place.set_ylim(SIZE / 2 + margin, SIZE / 2 - margin)
        d.note(place, f"{sum(map(len, levels)):,} anchors in all")
    names = ["finest level", "second", "third", "fourth", "fifth", "sixth"]
    d.legend(figure, list(zip(names, d.COLOURS, strict=False)))
    return figure


@picture("Anchors", "data.anchor_clustering.cluster_anchors", "data.anchor_clustering.cluster_sizes")
def anchor_clustering():
    """Anchors for a data set, by k-means.

    Widths and heights of the boxes of 120 `streets` scenes, coloured by the cluster whose centre (cross) they overlap
    most: nine anchors that suit tall pedestrians as well as wide cars. On the right, how much a box overlaps its best
    anchor by the number of anchors; RetinaNet's nine on five levels are 45, the smallest of 32 x 32 pixels, too large
    for many boxes here.
    """
    sizes = np.concatenate([sample.boxes[:, 2:] - sample.boxes[:, :2] for sample in Streets("train", count=120)])
    found = cluster_sizes(sizes, 9)
    figure, (left, right) = d.panels(1, 2, height=3.4, width_ratios=(1.5, 1))
    halo = {"path_effects": [patheffects.withStroke(linewidth=2.5, foreground="white")]}
    nearest = size_iou(sizes, found.sizes_wh).argmax(axis=1)
    for number, (width, height) in enumerate(found.sizes_wh):
        colour = (*d.COLOURS, d.YELLOW)[number]
        left.plot(*sizes[nearest == number].T, ".", color=colour, markersize=4, alpha=0.7)
        left.plot(width, height, "P", color=colour, markersize=10, markeredgecolor="white")
        left.annotate(
            f"{width:.0f} x {height:.0f}", (width, height), (6, 5), textcoords="offset points", fontsize=8, **halo
        )
    left.set(xscale="log", yscale="log", xlabel="width in pixels", ylabel="height in pixels")
    ticks = (10, 20, 50, 100, 200)
    left.set_xticks(ticks, ticks)
    left.set_yticks(ticks[:4], ticks[:4])
    left.minorticks_off()
    left.set_title(f"{len(sizes)} boxes in 9 clusters, mean IoU {found.mean_iou:.2f}")
    numbers = (1, 2, 3, 4, 6, 9, 12, 15)
    right.plot(numbers, [cluster_sizes(sizes, k, restarts=3).mean_iou for k in numbers], "o-", label="clusters")
    retinanet = np.concatenate([np.diff(level.reshape(-1, 2, 2), axis=1)[:, 0] for level in _cells()])
    best = size_iou(sizes, retinanet).max(axis=1).mean()
    right.axhline(best, color=d.ORANGE, linestyle="--", label="RetinaNet's 45 anchors")
    right.set(xlabel="number of anchors", ylim=(0, 1), title="mean IoU of boxes with their best anchor")
    right.legend(loc="lower right")
    return figure


def _cells():
    """Return RetinaNet's anchors of one cell of each level."""
    layer = _conventions()[0][1]
    return [d.array(level) for level in layer([(1, 1)] * 5, (8, 8))]

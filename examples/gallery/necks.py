"""Necks: which level of a pyramid hears which, measured by touching one pixel or one level at a time."""

import keras
import numpy as np

from examples.gallery import drawing as d
from examples.gallery.registry import picture
from kerasvision.layers import BiFPN, CSPPathAggregation, FeaturePyramid, PathAggregation, WeightedFusion

FILTERS = 24
SIZES = [(32, 48), (16, 24), (8, 12)]  # of C3 to C5, for an image of 256 x 384


def _features(rng, filters=FILTERS):
    return [rng.normal(size=(1, *size, filters)).astype("float32") for size in SIZES]


def _impulse_responses(neck, *, tries=3):
    """Return for each input level a list of maps (H, W): how far each output moves if the input's middle pixel does.

    The root mean square over channels and several random inputs, as a share of what the output holds.
    """
    rows = []
    for level in range(len(SIZES)):
        squares, rng = None, np.random.default_rng(level)
        for _ in range(tries):
            features = _features(rng)
            touched = [feature.copy() for feature in features]
            height, width = SIZES[level]
            touched[level][0, height // 2, width // 2] += 2 * rng.normal(size=FILTERS)
            before, after = ([d.array(output)[0] for output in neck(maps)] for maps in (features, touched))
            moved = [((b - a) ** 2).mean(axis=-1) / (a**2).mean() for a, b in zip(before, after, strict=True)]
            squares = moved if squares is None else [one + more for one, more in zip(squares, moved, strict=True)]
        rows.append([np.sqrt(one / tries) for one in squares])
    return rows


def _draw_responses(axes, rows):
    """Draw maps of responses: a row for each input level, a column for each output level."""
    for row, maps in enumerate(rows):
        for column, values in enumerate(maps):
            place = axes[row, column]
            largest = values.max()
            d.heat(place, np.sqrt(values / largest) if largest > 0 else values, vmax=1)
            reached = int((values > 1e-6).sum())
            text = "nothing" if reached == 0 else f"{reached} of {values.size} pixels"
            place.set_xlabel(text, fontsize=8, color="#57606a")
            if row == 0:
                place.set_title(f"P{column + 3}")
        axes[row, 0].set_ylabel(f"one pixel\nof C{row + 3}", fontsize=9)


@picture("Necks", "layers.FeaturePyramid")
def feature_pyramid():
    """Feature pyramid: the way down.

    One pixel in the middle of an input level (rows) is changed, and the maps show where each output level (columns)
    changes, on a random network, each map on a scale of its own. What the coarse C5 sees reaches every level, as a
    patch of repeated pixels on the fine ones; what the fine C3 sees stays on P3. P6 and P7 are made of P5.
    """
    figure, axes = d.panels(3, 5, height=4.6)
    _draw_responses(axes, _impulse_responses(FeaturePyramid(FILTERS)))
    return figure


@picture("Necks", "layers.PathAggregation", "layers.CSPPathAggregation")
def path_aggregation():
    """Path aggregation: the way down, and up again.

    As above, for PANet's second path over a feature pyramid (left) and for the neck of YOLOv5 and YOLOX (right), which
    concatenates where PANet adds. Now a pixel of the fine C3 reaches the coarse levels too: no cell below is empty.
    """
    pyramid, up = FeaturePyramid(FILTERS, coarse_levels=None), PathAggregation(FILTERS)
    csp = CSPPathAggregation((FILTERS,) * 3, repeats=1)
    figure = d.pyplot.figure(figsize=(d.WIDTH, 4.4), layout="constrained")
    for half, neck, title in zip(
        figure.subfigures(1, 2, wspace=0.06),
        (lambda maps: up(pyramid(maps)), csp),
        ("FeaturePyramid, then PathAggregation", "CSPPathAggregation"),
        strict=True,
    ):
        axes = half.subplots(3, 3)
        _draw_responses(axes, _impulse_responses(neck))
        half.suptitle(title, fontsize=10)
    return figure


@picture("Necks", "layers.BiFPN")
def bifpn():
    """BiFPN: down and up, three times, with weights.

    As above, for EfficientDet's neck: one cell (above) and three (below). Every level reaches every other in one cell
    already. A pixel of C5 even reaches nearly all of the fine maps: P6 and P7 are made of C5 and come down again.
    Further cells spread what a pixel of the fine levels knows as far.
    """
    figure = d.pyplot.figure(figsize=(d.WIDTH, 8.4), layout="constrained")
    for half, repeats in zip(figure.subfigures(2, 1), (1, 3), strict=True):
        axes = half.subplots(3, 5)
        _draw_responses(axes, _impulse_responses(BiFPN(FILTERS, repeats)))
        half.suptitle(f"BiFPN, repeats={repeats}", fontsize=10)
    return figure


def _influence(neck, *, tries=3):
    """Return (inputs, outputs): each output level's change when all of an input level changes, as shares of the sum."""
    rng = np.random.default_rng(0)
    moved = 0
    for _ in range(tries):
        features = _features(rng)
        before = [d.array(output) for output in neck(features)]
        rows = []
        for level in range(len(SIZES)):
            touched = list(features)
            touched[level] = features[level] + 0.05 * rng.normal(size=features[level].shape).astype("float32")
            after = [d.array(output) for output in neck(touched)]
            rows.append([float(((b - a) ** 2).mean()) for a, b in zip(before, after, strict=True)])
        moved = moved + np.array(rows)
    moved = np.sqrt(moved)
    return moved / moved.sum(axis=0)


@picture("Necks", "layers.FeaturePyramid", "layers.PathAggregation", "layers.CSPPathAggregation", "layers.BiFPN")
def neck_influence():
    """Which level hears which: the necks side by side.

    A little noise is added to one input level (row); the number is the share that it has in what moves at an output
    level (column), on random networks. The feature pyramid passes on downwards only: below the diagonal, finer outputs
    hear coarser inputs; above it is nothing. The other necks fill the matrix.
    """
    pyramid, up = FeaturePyramid(FILTERS, coarse_levels=None), PathAggregation(FILTERS)
    necks = (
        ("FeaturePyramid", pyramid),
        ("+ PathAggregation", lambda maps: up(pyramid(maps))),
        ("CSPPathAggregation", CSPPathAggregation((FILTERS,) * 3, repeats=1)),
        ("BiFPN, 1 cell", BiFPN(FILTERS, 1, levels=3)),
        ("BiFPN, 3 cells", BiFPN(FILTERS, 3, levels=3)),
    )
    figure, axes = d.panels(1, 5, height=2.5)
    for place, (title, neck) in zip(axes, necks, strict=True):
        shares = _influence(neck)
        d.heat(place, shares, title, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            text = f"{share:.2f}" if share > 0 else "0"
            place.text(column, row, text, ha="center", va="center", color="white" if share > 0.6 else d.INK)
        place.set_xticks(range(3), ["P3", "P4", "P5"])
        place.set_yticks(range(3), ["C3", "C4", "C5"] if place is axes[0] else [])
    return figure


@picture("Necks", "layers.WeightedFusion")
def weighted_fusion():
    """Weighted fusion of feature maps.

    Two maps, here two scenes, are added with learned weights. Left: the share of the first by its weight, that of the
    second being 1. "fast" takes w / (sum of w + 0.0001), weights below 0 counting as 0; "softmax" is smooth and dearer;
    "sum" adds both whole, with nothing to learn. Right: what comes out of "fast" for three weights.
    """
    first, second = (d.scene(index).image / 255 for index in (2, 9))
    maps = [d.batch(first), d.batch(second)]
    figure, axes = d.panels(1, 4, height=2.3, width_ratios=(1.1, 1, 1, 1))
    weights = np.linspace(-2, 4, 61)
    spot = [np.ones((1, 1, 1, 1), np.float32), np.zeros((1, 1, 1, 1), np.float32)]
    for method in ("fast", "softmax", "sum"):
        layer = WeightedFusion(method)
        layer.build([(None, None, None, 1)] * 2)
        shares = []
        for weight in weights:
            if layer.edge_weights is not None:
                layer.edge_weights.assign([weight, 1.0])
            shares.append(d.array(layer(spot)).item())
        axes[0].plot(weights, shares, label=method)
    axes[0].set(xlabel="weight of the first map", title="share of the first map", ylim=(-0.05, 1.1))
    axes[0].legend(loc="center right", fontsize=7.5)
    layer = WeightedFusion("fast")
    layer.build([(None, None, None, 3)] * 2)
    for place, weight in zip(axes[1:], (3.0, 1.0, 0.2), strict=True):
        layer.edge_weights.assign([weight, 1.0])
        fused = d.array(layer(maps))[0]
        d.show(place, (np.clip(fused, 0, 1) * 255).astype(np.uint8), f"weights {weight:g} and 1")
    keras.backend.clear_session()
    return figure

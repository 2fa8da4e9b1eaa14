"""Features of regions: RoIPool, RoIAlign, the levels that boxes belong to, and what is read off a box's features."""

import keras
import numpy as np

from examples.gallery import drawing as d
from examples.gallery.registry import picture
from kerasvision.data.streets import CLASSES, Streets
from kerasvision.layers import BoxHead, BoxPredictor, RoIAlign, RoIPool
from kerasvision.losses.box import smooth_l1
from kerasvision.ops.boxes import decode_deltas, encode_deltas, iou
from kerasvision.ops.roi_align import assign_levels

STRIDE, CELLS, BINS = 16, 10, 3
BOX = np.array([37, 43, 120, 110], np.float32)  # pixels


def _layers():
    return (
        ("RoIPool", RoIPool(BINS, STRIDE)),
        ("RoIAlign, aligned=False", RoIAlign(BINS, STRIDE)),
        ("RoIAlign, aligned=True", RoIAlign(BINS, STRIDE, aligned=True)),
    )


def _cells_read(layer):
    """Return (P, P, H, W): how much of each cell reaches each bin, by an impulse in one cell at a time."""
    impulses = np.eye(CELLS * CELLS, dtype=np.float32).reshape(CELLS, CELLS, CELLS * CELLS)
    return d.array(layer(impulses[None], BOX[None, None]))[0, 0].reshape(BINS, BINS, CELLS, CELLS)


def _samples(layer):
    """Return (x, y) in cells of all samples that a layer of P bins and S samples a bin takes, from P S bins of one."""
    once = RoIAlign(BINS * layer.sampling_ratio, STRIDE, sampling_ratio=1, aligned=layer.aligned)
    places = np.stack(np.meshgrid(np.arange(CELLS), np.arange(CELLS)), axis=-1).astype(np.float32) + 0.5
    return d.array(once(places[None], BOX[None, None]))[0, 0].reshape(-1, 2)


def _draw_cells(axes, read):
    """Colour the cells (P, P, H, W) that the four bins in the corners and the one in the middle read."""
    total, colour = np.zeros((CELLS, CELLS, 1)), np.zeros((CELLS, CELLS, 3))
    for number, place in enumerate(((0, 0), (0, 2), (2, 0), (2, 2), (1, 1))):
        share = read[place][..., None] / read[place].max()
        total = total + share
        colour = colour + share * np.array(d.matplotlib.colors.to_rgb(d.COLOURS[number]))
    strength = 0.8 * np.minimum(total, 1)
    axes.imshow(1 - strength + strength * colour / np.maximum(total, 1e-9), extent=(0, CELLS, CELLS, 0))
    axes.set_xticks(range(CELLS + 1), [])
    axes.set_yticks(range(CELLS + 1), [])
    axes.tick_params(length=0)
    axes.grid(True, color=d.FAINT, linewidth=0.5)
    corners = BOX / STRIDE
    for part in range(BINS + 1):
        x, y = corners[:2] + (corners[2:] - corners[:2]) * part / BINS
        width = 2 if part in (0, BINS) else 0.9
        axes.plot([x, x], corners[[1, 3]], color=d.INK, linewidth=width)
        axes.plot(corners[[0, 2]], [y, y], color=d.INK, linewidth=width)
    axes.set(xlim=(0, CELLS), ylim=(CELLS, 0))


@picture("Regions", "layers.RoIAlign", "layers.RoIPool", "ops.roi_align.roi_align", "ops.roi_pool.roi_pool")
def roi_align():
    """RoIPool and RoIAlign: which cells a bin reads, and what that does to small shifts.

    Above: a box (black) of 3 x 3 bins over a map of 10 x 10 cells, each of 16 pixels. Colours are the bins in the
    corners and in the middle: the stronger, the more of the cell reaches the bin, measured by impulses. RoIPool rounds
    the box to whole cells and takes maxima; RoIAlign averages bilinear samples, at the dots. Unaligned, it places the
    middle of a cell where its corner is, so that all is read half a cell too far right and down; aligned, it reads
    where the box is. Below: the map holds the x coordinate of its cells' middles, and the box slides right by two
    cells. RoIPool answers with the right edge of a bin, as it takes the maximum, and jumps; RoIAlign follows.
    """
    figure, axes = d.panels(2, 3, height=5.9, height_ratios=(1.9, 1))
    for place, (title, layer) in zip(axes[0], _layers(), strict=True):
        _draw_cells(place, _cells_read(layer))
        if isinstance(layer, RoIAlign):
            x, y = _samples(layer).T
            place.plot(x, y, ".", color=d.INK, markersize=5)
        place.set_title(title)

    middles = np.tile((np.arange(CELLS, dtype=np.float32) + 0.5) * STRIDE, (CELLS, 1))[None, :, :, None]
    shifts = np.linspace(0, 2 * STRIDE - 0.1, 160, dtype=np.float32)
    sliding = BOX + shifts[:, None] * np.array([1, 0, 1, 0], np.float32)
    truth = sliding[:, :1] + (sliding[:, 2:3] - sliding[:, :1]) * (np.arange(BINS) + 0.5) / BINS
    for place, (_, layer) in zip(axes[1], _layers(), strict=True):
        pooled = d.array(layer(middles, sliding[None]))[0, :, 1, :, 0]  # (shifts, bins of the middle row)
        for number in range(BINS):
            place.plot(
                shifts, truth[:, number], "--", color=d.FAINT, label="middle of the bin" if number == 0 else None
            )
            place.plot(shifts, pooled[:, number], color=d.COLOURS[number + 3], label=f"bin {number + 1}")
        error = pooled - truth
        place.set_title(f"off by {abs(error).mean():.1f} pixels on average, {abs(error).max():.1f} at most")
        place.set(xlabel="shift of the box in pixels", ylim=(0, 160))
    axes[1, 0].set_ylabel("pooled x in pixels")
    axes[1, 2].legend(ncols=2, loc="lower right", fontsize=7.5)
    return figure


@picture("Regions", "ops.roi_align.assign_levels")
def level_assignment():
    """Which level of a pyramid a box belongs to.

    Boxes of 40 `streets` scenes, drawn at 800 x 1200, by width and height; their colour is the level that
    `assign_levels` picks. What counts is the area: the borders are hyperbolas, straight in this plot of logarithms, and
    a box of 224 x 224 belongs to P4. Right: the boxes of one scene, with their levels.
    """
    strides, size_hw = (4, 8, 16, 32), (800, 1200)
    boxes = np.concatenate([sample.boxes * (size_hw[0] / 256) for sample in Streets("validation", count=40)])
    levels = d.array(assign_levels(boxes, strides))
    sizes = boxes[:, 2:] - boxes[:, :2]
    figure, (left, right) = d.panels(1, 2, height=3.3, width_ratios=(1, 1.15))
    for level in range(len(strides)):
        left.plot(*sizes[levels == level].T, ".", color=d.COLOURS[level], markersize=5, label=f"P{level + 2}")
    left.plot(224, 224, "P", color=d.INK, markersize=9, label="224 x 224")
    left.set(xscale="log", yscale="log", xlabel="width in pixels", ylabel="height in pixels")
    left.set_xticks((50, 100, 200, 400), (50, 100, 200, 400))
    left.set_yticks((50, 100, 200, 400), (50, 100, 200, 400))
    left.minorticks_off()
    left.legend(loc="upper left", ncols=2)
    scene = d.scene()
    factor = size_hw[0] / scene.size_hw[0]
    d.show(right, scene.image, f"a scene of {size_hw[1]} x {size_hw[0]} pixels", faded=0.35, extent=(0, 1200, 800, 0))
    for one, level in zip(scene.boxes * factor, d.array(assign_levels(scene.boxes * factor, strides)), strict=True):
        d.box(right, one, d.COLOURS[level], text=f"P{level + 2}", width=2.4)
    return figure


def _shifted(boxes, generator, spread=0.18):
    """Return boxes (N, 4) whose corners have moved at random, by a share of their width and height."""
    sizes = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return (boxes + np.clip(generator.normal(0, spread, boxes.shape), -0.3, 0.3) * sizes).astype(np.float32)


def _regions(scenes, generator, repeats=6):
    """Return pooled pixels (N, 1, 7, 7, 3) of shifted boxes, and their classes and deltas (N, 1, 5)."""
    pool, pooled, wanted = RoIAlign(7, 1), [], []
    for scene in scenes:
        true = np.repeat(scene.boxes, repeats, axis=0)
        boxes = _shifted(true, generator)
        pooled.append(d.array(pool(d.batch(scene.image) / 255, boxes[None]))[0])
        deltas = d.array(encode_deltas(true, boxes, WEIGHTS))
        wanted.append(np.concatenate([np.repeat(scene.labels, repeats)[:, None], deltas], axis=1))
    return np.concatenate(pooled)[:, None], np.concatenate(wanted)[:, None].astype(np.float32)


WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the deltas, as in Faster R-CNN


@picture("Regions", "layers.BoxHead", "layers.BoxPredictor")
def box_head():
    """The second stage of a detector: from a box's features to its class and a better box.

    A `BoxHead` and a `BoxPredictor` were trained for some seconds on the pixels that RoIAlign reads in shifted boxes of
    200 `streets` scenes: small pictures of 7 x 7, such as those on the right. On a scene they have not seen, each
    orange box becomes the blue one, and gets the class under its picture with a probability. A detector has features of
    a deep network in place of pixels, and a background class.
    """
    generator = np.random.default_rng(0)
    inputs = keras.Input((1, 7, 7, 3))
    logits, deltas = BoxPredictor(len(CLASSES))(BoxHead((256, 128))(inputs))
    flat = keras.ops.reshape(deltas[:, 0], (-1, 4 * len(CLASSES)))
    model = keras.Model(inputs, keras.ops.concatenate([logits[:, 0], flat], axis=-1))

    def own_deltas(labels, outputs):
        every = keras.ops.reshape(outputs[:, 8:], (-1, 7, 4))
        return keras.ops.sum(every * keras.ops.expand_dims(keras.ops.one_hot(labels, 7), -1), axis=1)

    def loss(wanted, outputs):
        labels = keras.ops.cast(wanted[:, 0, 0], "int32")
        classes = keras.losses.sparse_categorical_crossentropy(labels + 1, outputs[:, :8], from_logits=True)
        return classes + keras.ops.mean(smooth_l1(wanted[:, 0, 1:], own_deltas(labels, outputs)), axis=-1)

    model.compile(keras.optimizers.Adam(2e-3), loss, jit_compile=keras.backend.backend() == "jax")
    model.fit(*_regions(Streets("train", count=200), generator), batch_size=128, epochs=25, verbose=0)

    scene = max(Streets("validation", count=12), key=lambda scene: len(scene.boxes))
    largest = np.argsort(-np.prod(scene.boxes[:, 2:] - scene.boxes[:, :2], axis=1))[:6]
    boxes = _shifted(scene.boxes[largest], generator)
    small = d.array(RoIAlign(7, 1)(d.batch(scene.image) / 255, boxes[None]))[0]
    outputs = model.predict(small[:, None], verbose=0)
    found = outputs[:, 1:8].argmax(axis=1)
    better = d.array(decode_deltas(own_deltas(found, outputs), boxes, WEIGHTS))
    chances = d.array(keras.ops.softmax(outputs[:, :8]))[np.arange(len(found)), found + 1]

    figure = d.pyplot.figure(figsize=(d.WIDTH, 3.1), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.25, 1))
    axes = left.subplots()
    before, after = (d.array(iou(some, scene.boxes[largest])).mean() for some in (boxes, better))
    d.show(axes, scene.image, f"mean IoU with the truth: {before:.2f} before, {after:.2f} after", faded=0.3)
    for old, new in zip(boxes, better, strict=True):
        d.box(axes, old, d.ORANGE, width=1.6)
        d.box(axes, new, d.BLUE, width=2)
    for place, picture_7x7, label, chance in zip(right.subplots(2, 3).flat, small, found, chances, strict=True):
        d.show(place, np.clip(picture_7x7 * 255, 0, 255).astype(np.uint8))
        place.set_xlabel(f"{CLASSES[label]} {chance:.2f}")
    return figure

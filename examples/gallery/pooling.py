"""Blocks that pool, and what stands on top of a backbone: SPP, CSP, SSD's extra layers, L2 normalisation."""

import numpy as np

from examples.gallery import drawing as d
from examples.gallery.registry import picture
from kerasvision.layers import (
    SPP,
    SPPF,
    CSPBlock,
    L2Normalization,
    MaxPooling,
    SpatialPyramidPooling,
    SSDExtraLayers,
    SSDLiteExtraLayers,
)
from kerasvision.layers.ssd_extra_layers import SSD300_BLOCKS, SSD512_BLOCKS


def _brightness(index=2, factor=4):
    return d.shrunk(d.scene(index).image.mean(axis=2) / 255, factor)


@picture("Pooling and extra levels", "layers.SPP", "layers.SPPF")
def spatial_pyramid_pooling_blocks():
    """SPP and SPPF: maxima of growing windows, side by side.

    The brightness of a scene (64 x 96 pixels) and the maxima of windows of 5, 9 and 13 pixels that `SPP` puts beside it
    as further channels: bright things spread over ever larger neighbourhoods. `SPPF` takes the window of 5 once, twice
    and three times: the difference (right) is exactly 0, for a window of 5 over maxima of 5 is one of 9.
    """
    image = d.batch(_brightness()[..., None])
    wide, chained = d.array(SPP()(image))[0], d.array(SPPF()(image))[0]
    figure, axes = d.panels(1, 5, height=1.6)
    for channel, title in enumerate(("input", "window 5", "window 9", "window 13")):
        d.heat(axes[channel], wide[..., channel], title, cmap="gray", vmax=1)
    d.heat(axes[4], abs(wide - chained).max(axis=-1), f"SPP - SPPF: {abs(wide - chained).max():g}", vmax=1)
    return figure


@picture("Pooling and extra levels", "layers.MaxPooling")
def max_pooling():
    """Max pooling: sizes rounded down, and rounded up.

    Seven columns of brightness 1 to 7, pooled by windows of two or three. PyTorch leaves the last column out where it
    fills no window; with `ceil_mode`, as Caffe has it, it gets one of its own. Padding is minus infinity, so that it
    never wins. Networks whose published weights come from Caffe need its sizes.
    """
    ramp = np.tile(np.arange(1, 8, dtype=np.float32), (3, 1))[None, ..., None]
    cases = (
        ("window 2, rounded down", {}),
        ("window 2, ceil_mode", {"ceil_mode": True}),
        ("window 3, padding 1", {"pool_size": 3, "padding": 1}),
        ("the same, strides 1", {"pool_size": 3, "padding": 1, "strides": 1}),
    )
    figure, axes = d.panels(1, 5, height=1.7)
    for place, (title, options) in zip(axes, (("input", None), *cases), strict=True):
        found = ramp if options is None else d.array(MaxPooling(**options)(ramp))
        d.heat(place, found[0, ..., 0], title, vmin=0, vmax=7)
        d.note(place, " ".join(f"{value:g}" for value in found[0, 0, :, 0]))
    return figure


@picture("Pooling and extra levels", "layers.SpatialPyramidPooling")
def spatial_pyramid_pooling():
    """Spatial pyramid pooling: a vector of one length from a map of any size.

    Three maps of other sizes and aspect ratios, and their maxima in grids of 1 x 1, 2 x 2, 3 x 3 and 6 x 6 bins. Each
    grid has the same number of bins whatever the map, so that the vectors (right) all have 50 numbers for each channel.
    """
    whole = _brightness(9)
    maps = (whole, whole[:, 20:60], whole[10:40, 10:])
    layer = SpatialPyramidPooling()
    figure, axes = d.panels(3, 6, height=4.2, width_ratios=(1.3, 0.8, 0.8, 0.8, 0.8, 2.2))
    for number, (row, values) in enumerate(zip(axes, maps, strict=True)):
        vector = d.array(layer(values[None, :, :, None]))[0]
        d.heat(row[0], values, f"map of {values.shape[0]} x {values.shape[1]}", cmap="gray", vmax=1)
        start = 0
        for place, bins in zip(row[1:], layer.bins, strict=False):
            part = vector[start : start + bins * bins].reshape(bins, bins)
            start += bins * bins
            d.heat(place, part, "" if number else f"{bins} x {bins}", cmap="gray", vmax=1)
            place.set_box_aspect(values.shape[0] / values.shape[1])
            place.set_aspect("auto")
        row[5].bar(range(len(vector)), vector, color=d.BLUE, width=0.8)
        row[5].set(ylim=(0, 1), title=f"{len(vector)} numbers")
    return figure


@picture("Pooling and extra levels", "layers.CSPBlock")
def csp_block():
    """Cross-stage partial block: a short way and a long way.

    Left: where the output of a block with random weights changes when the middle pixel of its input does (root mean
    square over channels, logarithmic scale). Every bottleneck on the long way lets a pixel reach one further; the short
    way keeps the middle strong. Right: weights of the block by the number of bottlenecks, beside a plain chain of as
    many bottlenecks over all channels (`expansion=1` less its short way): only half of the channels take the long way.
    """
    filters, side = 32, 13
    figure, axes = d.panels(1, 5, height=2.4, width_ratios=(1, 1, 1, 0.06, 1.7))
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1, side, side, filters)).astype("float32")
    touched = features.copy()
    touched[0, side // 2, side // 2] += rng.normal(size=filters)
    for place, repeats in zip(axes, (0, 1, 4), strict=False):
        block = CSPBlock(filters, repeats)
        moved = np.sqrt(((d.array(block(touched)) - d.array(block(features)))[0] ** 2).mean(axis=-1))
        shown = np.log10(np.maximum(moved / moved.max(), 1e-4))
        drawn = d.heat(place, shown, f"{repeats} bottlenecks", vmin=-4, vmax=0)
        reach = int(np.ptp(np.nonzero(moved > 1e-6)[0])) + 1
        d.note(place, f"reaches {reach} x {reach} pixels")
    bar = figure.colorbar(drawn, cax=axes[3])
    bar.set_ticks([-4, -2, 0], labels=["1e-4", "0.01", "1"])
    repeats = np.arange(6)
    partial = [_parameters(CSPBlock(filters, int(count)), filters) for count in repeats]
    full = [_parameters(CSPBlock(filters, int(count), expansion=1.0), filters) for count in repeats]
    short = filters * filters + 4 * filters + filters * filters  # the short way, and its half of the last convolution
    axes[4].plot(repeats, [count / 1e3 for count in partial], "o-", label="CSPBlock")
    axes[4].plot(repeats, [(count - short) / 1e3 for count in full], "o-", label="all channels, no short way")
    axes[4].set(xlabel="bottlenecks", title=f"thousands of weights, {filters} channels", ylim=(0, None))
    axes[4].legend()
    return figure


def _parameters(layer, channels):
    layer.build((None, 8, 8, channels))
    return layer.count_params()


def _positive(layer):
    """Make all kernels positive, so that no effect cancels another or is cut by a ReLU."""
    for weight in layer.weights:
        if weight.path.endswith("kernel"):
            weight.assign(np.full(weight.shape, 1 / np.prod(weight.shape[:3]), np.float32))


def _fields(layer, side, stride):
    """Return for each output level its side and the (x1, y1, x2, y2) pixels that its middle cell sees, by impulses."""
    impulses = np.eye(side * side, dtype=np.float32).reshape(side * side, side, side, 1)
    zero = [d.array(level) for level in layer(np.zeros((1, side, side, 1), np.float32))]
    fields = []
    for level, nothing in zip(layer(impulses), zero, strict=True):
        level = d.array(level)
        middle = level.shape[1] // 2
        seen = (abs(level - nothing)[:, middle, middle].sum(axis=-1) > 0).reshape(side, side)
        rows, columns = np.nonzero(seen)
        pixels = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) * stride
        fields.append((level.shape[1], pixels, seen))
    return fields


@picture(
    "Pooling and extra levels",
    "layers.SSDExtraLayers",
    "layers.SSDLiteExtraLayers",
    "layers.ssd_extra_layers.SSD300_BLOCKS",
    "layers.ssd_extra_layers.SSD512_BLOCKS",
)
def ssd_extra_layers():
    """SSD's extra layers: coarser and coarser maps.

    The grid of each output level over the image, and in colour what its middle cell sees of the layer's input, found by
    impulses in one input cell at a time; the backbone before it widens all of them further. conv7 is dilated six times:
    it sees nine places far apart, each widened to three cells by the pooling before it. The last level is a single cell
    that sees everything (SSD512's sixth, of 1 x 1, is not drawn). SSDlite halves with each of its four, and starts at
    stride 32.
    """
    figure, axes = d.panels(3, 5, height=6.4)
    small = tuple((4, *block[1:]) for block in SSD300_BLOCKS), tuple((4, *block[1:]) for block in SSD512_BLOCKS)
    rows = (
        ("SSD300", SSDExtraLayers(small[0], filters=4), 19, 300 / 19, 300),
        ("SSD512", SSDExtraLayers(small[1][:4], filters=4), 32, 16, 512),
        ("SSDlite 320", SSDLiteExtraLayers((4, 4, 4, 4), normalization=None), 10, 32, 320),
    )
    for row, (name, layer, side, stride, size) in zip(axes, rows, strict=True):
        layer.build((None, side, side, 1))
        _positive(layer)
        image = d.scene(2, (256, 256)).image
        fields = _fields(layer, side, stride)
        for place in row[len(fields) :]:
            place.axis("off")
        for number, (place, (cells, _, seen)) in enumerate(zip(row, fields, strict=False)):
            d.show(place, image, f"{name}: {cells} x {cells}", faded=0.5, extent=(0, size, size, 0))
            overlay = np.zeros((*seen.shape, 4))
            overlay[seen] = (*d.matplotlib.colors.to_rgb(d.COLOURS[number]), 0.6)
            place.imshow(overlay, extent=(0, size, size, 0))
            for line in np.arange(cells + 1) * size / cells:
                place.plot([line, line], [0, size], color=d.INK, linewidth=0.35)
                place.plot([0, size], [line, line], color=d.INK, linewidth=0.35)
            place.set_xlim(0, size)
            place.set_ylim(size, 0)
    return figure


@picture("Pooling and extra levels", "layers.L2Normalization")
def l2_normalization():
    """L2 normalisation: every pixel's features get one length.

    Two levels whose features are of very different size, as conv4_3 of VGG beside the layers above it. Their lengths
    before (left), and after the layer (middle): exactly 20, where it starts. Right: directions stay; three channels of
    some pixels, by their share of the length, before (circles) and after (dots).
    """
    rng = np.random.default_rng(0)
    levels = [np.maximum(rng.normal(0.2, 1, (1, 16, 16, 64)), 0).astype("float32") * size for size in (30, 3)]
    figure, (left, middle, right) = d.panels(1, 3, height=2.6)
    layer = L2Normalization()
    after = [d.array(layer(level)) for level in levels]
    for number, (name, level) in enumerate(zip(("fine level", "coarse level"), levels, strict=True)):
        lengths = np.linalg.norm(level, axis=-1).ravel()
        left.hist(lengths, bins=np.linspace(0, 260, 66), color=d.COLOURS[number], alpha=0.8, label=name)
    lengths = [np.linalg.norm(level, axis=-1).ravel() for level in after]
    middle.hist(lengths, bins=np.arange(41) - 0.5, color=d.COLOURS[:2], stacked=True)
    left.set(xlabel="length of a pixel's features", title="before", ylabel="pixels")
    left.legend()
    middle.set(xlabel="length of a pixel's features", title="after")
    shares = [
        level[0, 0, :12] / np.linalg.norm(level[0, 0, :12], axis=-1, keepdims=True) for level in (levels[0], after[0])
    ]
    for channel in range(3):
        right.plot(shares[0][:, channel], "o", color=d.COLOURS[channel], fillstyle="none", markersize=9)
        right.plot(shares[1][:, channel], ".", color=d.COLOURS[channel], label=f"channel {channel}")
    right.set(xlabel="pixel", title="share of the length", ylim=(-0.03, 0.55))
    right.legend(ncols=3, loc="upper left", columnspacing=0.8, handletextpad=0.1)
    return figure

"""Convolutions: what they see and what they cost; pyramids of dilations; channel attention."""

import keras
import numpy as np

from examples.gallery import drawing as d
from examples.gallery.registry import picture
from kerasvision.data.streets import Streets
from kerasvision.layers import (
    ASPP,
    AtrousPyramidClassifier,
    ConvolutionBlock,
    DepthwiseConvolutionBlock,
    InvertedResidual,
    SeparableConvolutionBlock,
    SqueezeExcitation,
)


def _impulse(side, channels=1):
    image = np.zeros((1, side, side, channels), np.float32)
    image[0, side // 2, side // 2] = 1
    return image


@picture("Convolutions and attention", "layers.ConvolutionBlock", "ops.atrous.atrous_convolution")
def atrous_convolution():
    """Atrous convolution: how far three layers see, by dilation.

    One pixel is lit, and three 3 x 3 convolutions of ones follow each other; the number of ways from the pixel to each
    place is drawn. Plain ones see 7 x 7. Dilations of 2 see 13 x 13 with as many weights, but only every second pixel
    (the "gridding" of DeepLab's critics); 1, 2 and 4 see 15 x 15 without gaps.
    """
    figure, axes = d.panels(1, 4, height=2.8)
    for place, dilations in zip(axes, ((1, 1, 1), (2, 2, 2), (1, 2, 4), (1, 6, 12)), strict=True):
        side = 43 if max(dilations) > 4 else 19
        features = _impulse(side)
        for dilation in dilations:
            features = ConvolutionBlock(1, 3, dilation=dilation, use_bias=False, kernel_initializer="ones")(features)
        ways = d.array(features)[0, ..., 0]
        d.heat(place, np.sqrt(ways), f"dilations {', '.join(map(str, dilations))}")
        rows = np.nonzero(ways)[0]
        d.note(place, f"{np.ptp(rows) + 1} x {np.ptp(rows) + 1}, of which {(ways > 0).sum()} pixels are seen")
    return figure


@picture(
    "Convolutions and attention",
    "layers.ConvolutionBlock",
    "layers.DepthwiseConvolutionBlock",
    "layers.SeparableConvolutionBlock",
    "ops.atrous.depthwise_convolution",
)
def separable_convolution():
    """Depthwise and separable convolution: who talks to whom, and what it costs.

    Left: how much an output channel (column) changes when an input channel (row) does, for random weights. In a plain
    convolution all channels mix; in a depthwise one each stays alone; a 1x1 convolution after it mixes them, pixel by
    pixel. Right: weights, which are also the products for each pixel of output, by the number of channels; the
    separable convolution needs about a ninth.
    """
    channels, side = 12, 9
    blocks = (
        ("ConvolutionBlock", lambda count: ConvolutionBlock(count, 3, use_bias=False)),
        ("DepthwiseConvolutionBlock", lambda count: DepthwiseConvolutionBlock(3, use_bias=False)),
        ("SeparableConvolutionBlock", lambda count: SeparableConvolutionBlock(count, 3, use_bias=False)),
    )
    figure, axes = d.panels(1, 4, height=2.7, width_ratios=(1, 1, 1, 1.35))
    impulses = np.zeros((channels, side, side, channels), np.float32)
    impulses[np.arange(channels), side // 2, side // 2, np.arange(channels)] = 1
    numbers = np.array([16, 32, 64, 128, 256])
    for place, (name, make) in zip(axes, blocks, strict=False):
        moved = np.sqrt((d.array(make(channels)(impulses)) ** 2).sum(axis=(1, 2)))  # (inputs, outputs)
        d.heat(place, moved / moved.max(), name, vmax=1)
        place.title.set_fontsize(8.5)
        place.set(xlabel="output channel", ylabel="input channel")
        weights = []
        for count in numbers:
            block = make(int(count))
            block.build((None, side, side, int(count)))
            weights.append(block.count_params())
        axes[3].plot(numbers, weights, "o-", label=name.removesuffix("ConvolutionBlock") or "plain")
    axes[3].set(xscale="log", yscale="log", xlabel="channels in and out", title="weights = products a pixel")
    axes[3].set_xticks(numbers, numbers)
    axes[3].minorticks_off()
    axes[3].grid(True)
    axes[3].legend(loc="upper left")
    return figure


def _set_kernels(layer, value):
    for weight in layer.weights:
        if weight.path.endswith("kernel"):
            weight.assign(np.full(weight.shape, value, np.float32))


@picture("Convolutions and attention", "layers.ASPP", "layers.AtrousPyramidClassifier")
def atrous_pyramids():
    """Atrous pyramids: ASPP and DeepLabV2's classifier.

    One pixel in the middle of a map of 65 x 65 is lit and all weights are ones: the maps show what reaches each place
    (square root; every pixel drawn three times as large). DeepLabV2 adds up four convolutions of rates 6, 12, 18 and
    24. ASPP takes the pixel itself, three dilations, and the mean over the whole map, which is why all of it is a
    little lit. A separable pyramid (right) sees the same places with fewer weights, here counted for 256 channels.
    """
    side = 65
    figure, axes = d.panels(1, 4, height=2.9)
    blocks = (
        ("AtrousPyramidClassifier", lambda filters: AtrousPyramidClassifier(filters)),
        ("ASPP, rates 6, 12, 18", lambda filters: ASPP(filters, (6, 12, 18), normalization=None)),
        ("ASPP, rates 12, 24, 36", lambda filters: ASPP(filters, normalization=None)),
        ("ASPP, 12, 24, 36, separable", lambda filters: ASPP(filters, separable=True, normalization=None)),
    )
    for place, (title, make) in zip(axes, blocks, strict=True):
        layer = make(1)
        layer.build((None, side, side, 1))
        _set_kernels(layer, 1.0)
        reached = d.array(layer(side * _impulse(side)))[0, ..., 0]
        enlarged = d.array(keras.ops.max_pool(reached[None, ..., None], 3, strides=1, padding="same"))[0, ..., 0]
        d.heat(place, np.sqrt(enlarged), title)
        place.title.set_fontsize(8.5)
        wide = make(256)
        wide.build((None, side, side, 256))
        d.note(place, f"{wide.count_params() / 1e6:.2f} million weights")
    return figure


@picture("Convolutions and attention", "layers.InvertedResidual")
def inverted_residual():
    """Inverted residual: narrow where blocks meet, wide where space is looked at.

    Two blocks with 32 channels in and out, as seen by the map between their parts: the height of a bar is its number
    of channels, the number on it the weights of the convolution that made it. MobileNetV2's `InvertedResidual` looks
    around in 192 channels, each by itself; the pair of plain 3x3 convolutions of a small ResNet, in 32 that all mix.
    Right: weights by the number of channels in and out; six times as wide inside, the block still has less.
    """
    figure, axes = d.panels(1, 3, height=2.9, width_ratios=(1.5, 1, 1.2))
    count, numbers = 32, np.array([16, 24, 32, 64, 96, 160])

    def inverted(channels):
        block = InvertedResidual(channels, 6 * channels, normalization=None)
        block.build((None, 16, 16, channels))
        return block.expand, block.depthwise, block.project

    def plain(channels):
        parts = [ConvolutionBlock(channels, 3, use_bias=False) for _ in range(2)]
        for part in parts:
            part.build((None, 16, 16, channels))
        return parts

    names = (("in", "1x1", "3x3, each\nby itself", "1x1"), ("in", "3x3", "3x3"))
    titles = ("InvertedResidual", "two ConvolutionBlocks")
    for place, make, ticks, title, colour in zip(
        axes, (inverted, plain), names, titles, (d.TRUTH, d.BLUE), strict=False
    ):
        parts = make(count)
        shape, widths = (1, 16, 16, count), [count]
        for part in parts:
            shape = part.compute_output_shape(shape)
            widths.append(shape[-1])
        place.bar(range(len(widths)), widths, color=colour, width=0.6)
        for at, (width, part) in enumerate(zip(widths[1:], parts, strict=True), 1):
            place.text(at, width + 4, f"{part.count_params():,}", ha="center", fontsize=8)
        place.set_xticks(range(len(widths)), ticks, fontsize=7.5)
        place.set(title=title, ylim=(0, 225), ylabel="channels")
        totals = [sum(part.count_params() for part in make(int(number))) for number in numbers]
        axes[2].plot(numbers, totals, "o-", color=colour, label=title)
    axes[2].set(xscale="log", yscale="log", xlabel="channels in and out", title="weights = products a pixel")
    axes[2].set_xticks(numbers, numbers, fontsize=7.5)
    axes[2].minorticks_off()
    axes[2].grid(True)
    axes[2].legend(loc="upper left")
    return figure


@picture("Convolutions and attention", "layers.SqueezeExcitation")
def squeeze_excitation():
    """Squeeze and excitation: channels opened and closed by what the image holds.

    Four channels hold how red, green, blue and dark a scene is, compared with all scenes. A `SqueezeExcitation` is
    trained for seconds on 200 `streets` scenes to keep the channel that stands out most and to close the others. Left:
    three unseen scenes. Then, for each channel, the mean over the map (squeeze) and the gate (excitation) that the
    whole map is multiplied by.
    """
    names = ("red", "green", "blue", "dark")

    def channels(image):
        rgb = d.shrunk(image, 8) / 255
        brightness = rgb.mean(axis=2, keepdims=True)
        return np.concatenate([np.maximum(rgb - brightness, 0) * 4, 1 - brightness], axis=2).astype("float32")

    features = np.stack([channels(sample.image) for sample in Streets("train", count=200, size_hw=(64, 96))])
    usual = features.mean(axis=(0, 1, 2))
    features = features / usual
    means = features.mean(axis=(1, 2))
    targets = features * (means == means.max(axis=1, keepdims=True))[:, None, None]
    layer = SqueezeExcitation(8)
    inputs = keras.Input((None, None, 4))
    model = keras.Model(inputs, layer(inputs))
    model.compile(keras.optimizers.Adam(0.04), "mse", jit_compile=keras.backend.backend() == "jax")
    model.fit(np.tile(features, (20, 1, 1, 1)), np.tile(targets, (20, 1, 1, 1)), batch_size=25, verbose=0)
    figure, axes = d.panels(3, 3, height=5.2, width_ratios=(1.1, 1, 1))
    for row, index in zip(axes, (3, 6, 10), strict=True):
        scene = d.scene(index)
        seen = channels(scene.image)[None] / usual
        outputs = d.array(layer(seen))
        gates = (outputs.sum(axis=(1, 2)) / np.maximum(seen.sum(axis=(1, 2)), 1e-9))[0]
        d.show(row[0], scene.image)
        row[1].bar(names, seen.mean(axis=(1, 2))[0], color=(d.RED, d.TRUTH, d.BLUE, d.INK), width=0.6)
        row[2].bar(names, gates, color=(d.RED, d.TRUTH, d.BLUE, d.INK), width=0.6)
        row[2].set_ylim(0, 1)
    axes[0, 1].set_title("mean of each channel, relative to all scenes")
    axes[0, 2].set_title("gate of each channel")
    return figure

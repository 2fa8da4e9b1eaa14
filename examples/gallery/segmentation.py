"""Blocks of segmenters: enlarging, skips and decoders, on the mask of a scene."""

import functools

import keras
import numpy as np

from examples.gallery import drawing as d
from examples.gallery.registry import picture
from kerasvision.data.streets import MASK_CLASSES
from kerasvision.layers import (
    AttentionGate,
    BilinearInitializer,
    BilinearUpsampling,
    ConvolutionBlock,
    DeepLabV3PlusDecoder,
    FCNHead,
    FCNSkip,
    UNetDecoderBlock,
    UNetDoubleConvolution,
    UNetEncoderBlock,
)
from kerasvision.losses import CrossEntropyLoss
from kerasvision.ops.interpolation import resize_bilinear

CLASSES = len(MASK_CLASSES)
WINDOW = (slice(90, 230), slice(90, 300))  # of the scene: cyclist, car and bus


@picture("Segmentation blocks", "ops.interpolation.resize_bilinear")
def bilinear_resizing():
    """Bilinear resizing, corners aligned or not.

    Five pixels in a row are enlarged to 20. Left: where each output samples the input. With aligned corners the middles
    of the first and last pixels stay in place and all between is stretched; otherwise the borders stay, and what would
    be sampled beyond the middle of the outermost pixels repeats them. Right: a map of 4 x 5 both ways, and the
    difference between the two: it is as large as a step between pixels, so weights trained with one need the same one.
    """
    ramp = np.arange(5, dtype=np.float32)[None, None, :, None]
    figure, axes = d.panels(1, 5, height=2.6, width_ratios=(1.7, 1, 1, 1, 0.06))
    for aligned, style in ((True, "o"), (False, ".")):
        sampled = d.array(resize_bilinear(ramp, (1, 20), align_corners=aligned))[0, 0, :, 0]
        axes[0].plot(range(20), sampled, style, color=d.COLOURS[1 - aligned], label=f"align_corners={aligned}")
    axes[0].set(xlabel="output pixel", title="place sampled, in input pixels")
    axes[0].set_xticks(range(0, 20, 4))
    axes[0].grid(True)
    axes[0].legend()
    spots = np.random.default_rng(1).uniform(0, 1, (1, 4, 5, 1)).astype("float32")
    results = [d.array(resize_bilinear(spots, (64, 80), align_corners=aligned))[0, ..., 0] for aligned in (True, False)]
    for place, values, aligned in zip(axes[1:], results, (True, False), strict=False):
        d.heat(place, values, f"align_corners={aligned}", vmax=1)
    drawn = d.heat(axes[3], results[0] - results[1], "difference", cmap="RdBu_r", vmin=-0.5, vmax=0.5)
    figure.colorbar(drawn, cax=axes[4])
    return figure


def _scores(factor):
    """Return (1, H, W, C): the share of each class in cells of the scene's mask, what a perfect level could know."""
    return d.shrunk(d.one_hot(d.scene().mask, CLASSES), factor)[None]


def _fcn(finest):
    """Return the mask (H, W) of an FCN whose levels are perfect, with skips down to stride `finest`."""
    logits, stride = _scores(32), 32
    while stride > finest:
        stride //= 2
        skip = FCNSkip(CLASSES)
        skip.build(logits.shape, _scores(stride).shape)
        skip.score.kernel.assign(2 * np.eye(CLASSES, dtype=np.float32)[None, None])  # as if trained
        logits = skip(logits, _scores(stride))
    return d.array(BilinearUpsampling(stride)(logits))[0].argmax(axis=-1)


def _agreement(mask):
    truth = d.scene().mask
    counted = truth < CLASSES
    return (mask == truth)[counted].mean()


@picture("Segmentation blocks", "layers.FCNSkip", "layers.BilinearUpsampling", "layers.BilinearInitializer")
def fcn_skips():
    """FCN: enlarging and skips, 32s, 16s and 8s.

    What a fully convolutional network can say if each of its levels knows the true share of the classes in its cells:
    FCN-32s enlarges the coarsest level 32 times, FCN-16s and FCN-8s add finer levels on the way by `FCNSkip`, whose
    classifying 1x1 convolution is set as if trained. Edges get sharper with each. The enlarging is a transposed
    convolution that starts with the kernel on the right, which is bilinear interpolation.
    """
    figure, axes = d.panels(2, 3, height=4.5)
    d.show(axes[0, 0], d.scene().image, "scene")
    d.show_mask(axes[1, 0], d.scene().mask, "truth")
    for place, stride in zip((axes[0, 1], axes[0, 2], axes[1, 1]), (32, 16, 8), strict=True):
        mask = _fcn(stride)
        d.show_mask(place, mask, f"FCN-{stride}s: {_agreement(mask):.1%} of pixels right")
    kernel = d.array(BilinearInitializer()((64, 64, 1, 1)))[..., 0, 0]
    d.heat(axes[1, 2], kernel, "BilinearInitializer, 64 x 64 taps")
    return figure


# Few classes can be learnt in seconds: each mask class of streets counts as one that stands for all of its kind.
_KINDS = {"road": (0, 2), "lane marking": (1,), "building": (3,), "vegetation": (4,), "sky": (5,)}
_KINDS |= {"car": (7, 8, 9), "cyclist": (10, 11), "traffic light": (6, 12, 13)}


def _kinds_of(mask):
    """Return the mask with the class of each pixel replaced by the one that stands for its kind."""
    kinds = np.arange(256)
    for name, members in _KINDS.items():
        kinds[list(members)] = MASK_CLASSES.index(name)
    return kinds[mask]


@functools.cache
def _lesson(index, fine_stride, coarse_stride):
    """Return what a decoder gets of a scene, and the labels (1, H, W) at the fine stride.

    The coarse features are the main class of their cells, the fine ones are the image alone.
    """
    scene, half = d.scene(index), fine_stride // 2
    fine = d.shrunk(scene.image / 127.5 - 1, fine_stride)
    mask = _kinds_of(scene.mask)
    shares = d.shrunk(d.one_hot(mask, CLASSES), coarse_stride)
    coarse = d.one_hot(shares.argmax(axis=-1), CLASSES)
    return {"fine": fine[None], "coarse": coarse[None]}, mask[None, half::fine_stride, half::fine_stride]


def _train(decode, fine_stride, coarse_stride, *, see_fine=True, steps=80):
    """Train a decoder and a classifier on the middles of eight scenes; return the mask (H, W) of another scene.

    Args:
        decode: Takes the two maps, fine and coarse, and returns the decoder's output.
        fine_stride: Pixels per cell of the fine map, and of the output.
        coarse_stride: Pixels per cell of the coarse map.
        see_fine: Whether the fine map is shown; zeros otherwise.
        steps: Of the optimiser.
    """
    keras.utils.set_random_seed(1)
    lessons = [_lesson(index, fine_stride, coarse_stride) for index in (1, 4, 7, 8, 9, 12, 13, 15)]
    unseen, _ = _lesson(2, fine_stride, coarse_stride)
    middle = {"fine": fine_stride, "coarse": coarse_stride}

    def cut(values, name):
        stride = middle[name]
        return values[:, 80 // stride : 176 // stride, 112 // stride : 272 // stride]

    data = {name: np.concatenate([cut(maps[name], name) for maps, _ in lessons]) for name in middle}
    labels = np.concatenate([cut(mask, "fine") for _, mask in lessons])
    inputs = [keras.Input((None, None, data[name].shape[-1])) for name in middle]
    model = keras.Model(inputs, ConvolutionBlock(CLASSES, 1)(decode(*inputs)))
    model.compile(keras.optimizers.Adam(0.01), CrossEntropyLoss(), jit_compile=keras.backend.backend() == "jax")
    shown = 1.0 if see_fine else 0.0
    # One epoch of the same batch again and again: Keras takes its time between epochs.
    fine, coarse, labels = (np.tile(values, (steps, 1, 1, 1)[: values.ndim]) for values in (*data.values(), labels))
    model.fit([shown * fine, coarse], labels, batch_size=len(lessons), shuffle=False, verbose=0)
    return d.array(model([shown * unseen["fine"], unseen["coarse"]], training=False))[0].argmax(axis=-1)


def _cut(mask, stride):
    rows, columns = (slice(part.start // stride, part.stop // stride) for part in WINDOW)
    return mask[rows, columns]


def _right(mask, labels):
    counted = labels < CLASSES
    return f"{(mask == labels)[counted].mean():.1%} right"


@picture("Segmentation blocks", "layers.DeepLabV3PlusDecoder")
def deeplab_decoder():
    """DeepLabV3+'s decoder, with and without the fine level.

    The decoder gets coarse features of stride 16 that know the main class of their cells, and as fine ones of stride 4
    nothing but the image's colours. It is trained for seconds on parts of eight scenes and tried on a ninth. Without
    the fine level (zeros in its place) edges are those of the coarse cells, rounded off; with it they follow the image.
    """
    masks = {}
    for name, see_fine in (("without the fine level", False), ("with the fine level", True)):
        decoder = DeepLabV3PlusDecoder(24, (1, 2, 3), low_level_filters=12, dropout=0.0)
        masks[name] = _train(lambda *maps, block=decoder: block(list(maps)), 4, 16, see_fine=see_fine)
    labels = _lesson(2, 4, 16)[1][0]
    figure, axes = d.panels(1, 4, height=2.1)
    d.show(axes[0], d.scene().image[WINDOW], "unseen scene")
    d.show_mask(axes[1], _cut(labels, 4), "truth, at stride 4")
    for place, (name, mask) in zip(axes[2:], masks.items(), strict=True):
        d.show_mask(place, _cut(mask, 4), name)
        d.note(place, f"whole scene: {_right(mask, labels)}")
    return figure


@picture("Segmentation blocks", "layers.UNetDecoderBlock", "layers.UNetDoubleConvolution", "layers.UNetEncoderBlock")
def unet_blocks():
    """U-Net: steps up and down, and the double convolution.

    Above: steps up from stride 8 to 4, trained for seconds on parts of eight scenes and tried on a ninth. The coarse
    features know the main class of their cells, the skip is the image's colours. Without it edges stay rough; with it
    both ways of enlarging, repeated pixels and a transposed convolution, find them. Below: what one lit pixel in the
    middle of a 9 x 9 map reaches through a double convolution, through a step down, whose map is half as large, and
    through steps up, whose maps are twice as large.
    """
    labels = _lesson(2, 4, 8)[1][0]
    figure, axes = d.panels(2, 4, height=4.1)
    d.show_mask(axes[0, 0], _cut(labels, 4), "truth, at stride 4")
    ways = (
        ("nearest, no skip", "nearest", False),
        ("nearest, skip", "nearest", True),
        ("transpose, skip", "transpose", True),
    )
    for place, (title, upsampling, has_skip) in zip(axes[0, 1:], ways, strict=True):
        block = UNetDecoderBlock(24, upsampling=upsampling)
        mask = _train(lambda fine, coarse, block=block: block(coarse, fine), 4, 8, see_fine=has_skip)
        d.show_mask(place, _cut(mask, 4), title)
        d.note(place, f"whole scene: {_right(mask, labels)}")
    keras.utils.set_random_seed(0)
    lit = np.zeros((1, 9, 9, 8), np.float32)
    lit[0, 4, 4] = np.random.default_rng(0).uniform(0.5, 1, 8)
    blocks = (
        ("UNetDoubleConvolution", UNetDoubleConvolution(8)),
        ("UNetEncoderBlock", UNetEncoderBlock(8)),
        ('UNetDecoderBlock("nearest")', UNetDecoderBlock(8)),
        ('UNetDecoderBlock("transpose")', UNetDecoderBlock(8, upsampling="transpose")),
    )
    for place, (title, block) in zip(axes[1], blocks, strict=True):
        response = abs(d.array(block(lit)) - d.array(block(np.zeros_like(lit))))[0].mean(axis=-1)
        d.heat(place, np.sqrt(response), title)
        rows = np.nonzero(response > 1e-6)[0]
        d.note(place, f"{np.ptp(rows) + 1} x {np.ptp(rows) + 1} of {response.shape[0]} x {response.shape[0]}")
    return figure


@picture("Segmentation blocks", "layers.FCNHead")
def fcn_head():
    """FCN's head: one 3x3 convolution, then classes.

    The head of torchvision's FCN, which is also the auxiliary head of its DeepLabV3, on features of stride 4 that are
    the image's colours and the main class of cells of stride 8. Trained for seconds on parts of eight scenes, tried on
    a ninth; beside it a 1x1 convolution alone, which cannot look at a pixel's neighbours.
    """
    labels = _lesson(2, 4, 8)[1][0]

    def joined(fine, coarse):
        return keras.layers.Concatenate()([fine, keras.layers.UpSampling2D(2)(coarse)])

    heads = {
        "1x1 convolution": lambda *maps: joined(*maps),
        "FCNHead": lambda *maps: FCNHead(CLASSES, filters=24, dropout=0.0)(joined(*maps)),
    }
    figure, axes = d.panels(1, 4, height=2.1)
    d.show(axes[0], d.scene().image[WINDOW], "unseen scene")
    d.show_mask(axes[1], _cut(labels, 4), "truth, at stride 4")
    for place, (title, head) in zip(axes[2:], heads.items(), strict=True):
        mask = _train(head, 4, 8)
        d.show_mask(place, _cut(mask, 4), title)
        d.note(place, f"whole scene: {_right(mask, labels)}")
    return figure


@picture("Segmentation blocks", "layers.AttentionGate")
def attention_gate():
    """Attention U-Net's gate: the coarse level says where to look.

    The skip connection is a scene's brightness at stride 4; the gating features say, at stride 8, how much of each cell
    is car, truck or bus. With weights set as if trained, the gate's coefficient is near 1 there and near 0 elsewhere,
    and the skip connection passes on vehicles alone.
    """
    scene = d.scene()
    skip = d.shrunk(scene.image.mean(axis=2, keepdims=True) / 255, 4)[None]
    vehicles = np.isin(scene.mask, [MASK_CLASSES.index(name) for name in ("car", "truck", "bus")])
    gate = d.shrunk(vehicles[..., None].astype(np.float32), 8)[None]
    layer = AttentionGate(1)
    layer.build(skip.shape, gate.shape)
    for block, kernel, bias in ((layer.theta, 0.0, None), (layer.phi, 1.0, 0.0), (layer.psi, 12.0, -5.0)):
        block.kernel.assign(np.full(block.kernel.shape, kernel))
        if bias is not None:
            block.bias.assign(np.full(block.bias.shape, bias))
    found = d.array(layer(skip, gate))
    coefficients = d.array(layer(np.ones_like(skip), gate))
    figure, axes = d.panels(1, 4, height=1.7)
    maps = {"skip connection": skip, "gating features": gate, "coefficients": coefficients, "what passes": found}
    for place, (title, values) in zip(axes, maps.items(), strict=True):
        d.heat(place, values[0, ..., 0], title, cmap="gray", vmin=0, vmax=1)
    return figure

"""Conditional random fields: labels that follow the edges of the image."""

import numpy as np

from examples.gallery import drawing as d
from examples.gallery.registry import picture
from kerasvision.data.streets import MASK_CLASSES
from kerasvision.layers import ConvolutionalCRF
from kerasvision.ops.convolutional_crf import convolutional_crf
from kerasvision.ops.dense_crf import dense_crf

CLASSES = len(MASK_CLASSES)


def _noisy_logits():
    """Return logits (H, W, C) of a coarse and unsure network: the mask averaged over cells, enlarged, with noise."""
    scene, rng = d.scene(), np.random.default_rng(0)
    cells = d.shrunk(d.one_hot(scene.mask, CLASSES), 8)
    blurred = cells.repeat(8, axis=0).repeat(8, axis=1)
    return (4 * blurred + rng.normal(0, 1.2, blurred.shape)).astype("float32")


def _right(mask):
    truth = d.scene().mask
    counted = truth < CLASSES
    return f"{(mask == truth)[counted].mean():.1%} of pixels right"


@picture(
    "Random fields", "ops.dense_crf.dense_crf", "layers.ConvolutionalCRF", "ops.convolutional_crf.convolutional_crf"
)
def conditional_random_fields():
    """Dense and convolutional CRF.

    The labels come from cells of 8 x 8 pixels with noise on top, as of a coarse and unsure network (second). The dense
    CRF joins every pixel with all others that are near or alike in colour: noise goes and edges move to those of the
    image. `ConvolutionalCRF` looks no further than a window, so that it can be trained and exported; at a stride of 2
    with a window of 7 cells it comes close. Below, the same in a part of the scene.
    """
    scene, logits = d.scene(), _noisy_logits()
    sigmas = {"position_sigma": 2.0, "bilateral_position_sigma": 12.0, "bilateral_color_sigma": 10.0}
    dense = dense_crf(
        scene.image, logits, from_logits=True, position_weight=3, bilateral_weight=5, iterations=5, **sigmas
    )
    layer = ConvolutionalCRF(7, stride=2, position_weight=3.0, bilateral_weight=5.0, **sigmas)
    windowed = d.array(layer(logits[None], d.batch(scene.image)))[0]
    columns = (
        ("truth", scene.mask),
        ("before", logits.argmax(axis=-1)),
        ("dense_crf", dense.argmax(axis=-1)),
        ("ConvolutionalCRF", windowed.argmax(axis=-1)),
    )
    figure, axes = d.panels(2, 4, height=3.6)
    rows, cut = slice(85, 185), slice(90, 240)
    for place, (title, mask) in zip(axes.T, columns, strict=True):
        d.show_mask(place[0], mask, title if title == "truth" else f"{title}: {_right(mask)}")
        place[0].title.set_fontsize(8.5)
        d.show_mask(place[1], mask[rows, cut])
    return figure


@picture("Random fields", "ops.convolutional_crf.convolutional_crf")
def mean_field_steps():
    """Mean field, step by step.

    The probability of "bus" (white: 0) after 0, 1, 2 and 5 steps of `convolutional_crf`: each step lets every pixel
    hear its neighbours of like colour, and what starts as noise agrees on the outline of the bus.
    """
    scene, logits = d.scene(), _noisy_logits()
    bus = MASK_CLASSES.index("bus")
    figure, axes = d.panels(1, 4, height=1.9)
    for place, steps in zip(axes, (0, 1, 2, 5), strict=True):
        refined = d.array(
            convolutional_crf(
                logits[None],
                d.batch(scene.image),
                iterations=steps,
                kernel_size=7,
                stride=2,
                position_weight=3.0,
                position_sigma=2.0,
                bilateral_weight=5.0,
                bilateral_position_sigma=12.0,
                bilateral_color_sigma=10.0,
            )
        )[0]
        odds = np.exp(refined - refined.max(axis=-1, keepdims=True))
        shown = (odds / odds.sum(axis=-1, keepdims=True))[60:200, 150:384, bus]
        d.heat(place, shown, f"{steps} step{'s' * (steps != 1)}", vmax=1)
    return figure

"""Losses of segmenters: of regions, and of pixels that matter more than others."""

import numpy as np

from examples.gallery import drawing as d
from examples.gallery.registry import picture
from kerasvision import losses
from kerasvision.data.streets import MASK_CLASSES
from kerasvision.losses.boundary import boundary_weights

CLASSES = len(MASK_CLASSES)
SIDE = 64


def _disc(radius, x=SIDE / 2):
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    return ((rows - SIDE / 2) ** 2 + (columns - x) ** 2 < radius**2).astype(np.float32)


def _losses_of(true, logits):
    """Return each region loss of a binary mask (H, W) and logits (H, W), by name."""
    mask, binary = true[None, ..., None], logits[None, ..., None].astype(np.float32)
    two = np.stack([np.zeros_like(logits), logits], axis=-1)[None].astype(np.float32)
    options = {"mode": "binary"}
    ways = {
        "dice": (losses.DiceLoss(**options), mask, binary),
        "jaccard": (losses.JaccardLoss(**options), mask, binary),
        "tversky": (losses.TverskyLoss(**options), mask, binary),
        "focal_tversky": (losses.FocalTverskyLoss(**options), mask, binary),
        "lovasz_softmax": (losses.LovaszSoftmaxLoss(), true[None].astype(np.int32), two),
        "lovasz_hinge": (losses.LovaszHingeLoss(), mask, binary),
        "cross_entropy": (losses.CrossEntropyLoss(), true[None].astype(np.int32), two),
        "cross_entropy + dice": (losses.get("cross_entropy + dice"), true[None].astype(np.int32), two),
    }
    values = {name: float(loss(*arguments)) for name, (loss, *arguments) in ways.items()}
    values["lovasz_hinge / 5"] = values.pop("lovasz_hinge") / 5  # 5: the hinge error of a logit of 4 on the wrong side
    return values


def _draw_curves(axes, numbers, masks):
    curves = [_losses_of(*pair) for pair in masks]
    for number, name in enumerate(curves[0]):
        style = {"cross_entropy": "--", "cross_entropy + dice": ":"}.get(name, "-")
        axes.plot(numbers, [curve[name] for curve in curves], style, color=d.COLOURS[number], label=name, linewidth=1.6)
    axes.grid(True)


@picture(
    "Losses of segmenters",
    "losses.DiceLoss",
    "losses.JaccardLoss",
    "losses.TverskyLoss",
    "losses.FocalTverskyLoss",
    "losses.LovaszSoftmaxLoss",
    "losses.LovaszHingeLoss",
    "losses.CombinedLoss",
)
def region_losses():
    """Dice, Jaccard, Tversky and Lovász losses.

    A disc of radius 16 is predicted, with logits of 4 and -4. Left: shifted. Middle: too small or too large; Tversky's
    0.3 and 0.7 make a disc that is too small dearer than one too large. Right: nothing at all is predicted, by the
    radius of what is missed: for cross-entropy (dashed) a small object hardly counts, for the losses of overlap it
    counts as much as a large one, and in a sum of the two (dotted) both speak.
    """
    figure, axes = d.panels(1, 3, height=3.4, sharey=True)
    true = _disc(16)
    shifts = np.arange(0, 33, 2)
    _draw_curves(axes[0], shifts, [(true, 8 * _disc(16, SIDE / 2 + shift) - 4) for shift in shifts])
    radii = np.arange(4, 31)
    _draw_curves(axes[1], radii, [(true, 8 * _disc(radius) - 4) for radius in radii])
    _draw_curves(axes[2], radii, [(_disc(radius), np.full((SIDE, SIDE), -4.0)) for radius in radii])
    axes[0].set(xlabel="shift in pixels", title="a shifted disc", ylim=(0, 1.8), ylabel="loss")
    axes[1].set(xlabel="radius predicted, the true one being 16", title="a disc too small or too large")
    axes[2].set(xlabel="radius of the true disc", title="nothing predicted")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=7, columnspacing=1.2, handlelength=1.5)
    return figure


def _coarse_logits():
    """Return logits (H, W, C) of a network that sees cells of 8 x 8 pixels."""
    cells = d.shrunk(d.one_hot(d.scene(13).mask, CLASSES), 8)
    return (6 * cells).repeat(8, axis=0).repeat(8, axis=1)


@picture(
    "Losses of segmenters",
    "losses.CrossEntropyLoss",
    "losses.OHEMCrossEntropyLoss",
    "losses.BoundaryCrossEntropyLoss",
    "losses.unet_weight_map",
)
def pixel_weights():
    """Pixels that count: OHEM, boundary weights and U-Net's weight map.

    The loss of each pixel (square root), for a prediction that is right but for the edges, as it knows cells of 8 x 8
    pixels alone; a part of a scene is drawn. Plain cross-entropy; OHEM, which drops all but the hard pixels;
    cross-entropy weighted by the distance to the next edge between classes. Below: those weights; and the weights of
    the U-Net paper for the same scene's objects, which rise in narrow gaps between two of them.
    """
    scene, logits = d.scene(13), _coarse_logits()
    arguments = scene.mask[None].astype(np.int32), logits[None]

    def pixels(loss):
        return np.sqrt(d.array(loss.call(*arguments))[0])

    plain = pixels(losses.CrossEntropyLoss(reduction="none"))
    hard = pixels(losses.OHEMCrossEntropyLoss(0.7, min_kept=1000, reduction="none"))
    boundary = pixels(losses.BoundaryCrossEntropyLoss(w0=5, sigma=3, reduction="none"))
    weights = d.array(boundary_weights(scene.mask[None].astype(np.int32), w0=5, sigma=3))[0]
    gaps = losses.unet_weight_map(scene.instances, background_weight=1.0)
    window = slice(85, 185), slice(85, 235)
    largest = boundary[window].max()
    figure, axes = d.panels(2, 3, height=4.5)
    d.heat(axes[0, 0], plain[window], "CrossEntropyLoss", vmax=largest)
    kept = f"{(hard > 0).mean():.0%} of all pixels kept"
    d.heat(axes[0, 1], hard[window], f"OHEMCrossEntropyLoss: {kept}", vmax=largest)
    d.heat(axes[0, 2], boundary[window], "BoundaryCrossEntropyLoss", vmax=largest)
    d.show(axes[1, 0], scene.image[window], "scene")
    d.heat(axes[1, 1], weights[window], f"boundary_weights, 1 to {weights.max():.0f}")
    d.heat(axes[1, 2], gaps[window], f"unet_weight_map, {gaps.min():.1f} to {gaps.max():.1f}")
    return figure

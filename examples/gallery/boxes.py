"""Boxes: formats, coding, overlap, letterbox."""

import numpy as np
from matplotlib import patches

from examples.gallery import drawing as d
from examples.gallery.registry import picture
from kerasvision.ops import boxes as box_ops
from kerasvision.ops.letterbox import letterbox_boxes, letterbox_size, unletterbox_boxes
from kerasvision.ops.resizing import ResizeRule

MEASURES = (("IoU", box_ops.iou), ("GIoU", box_ops.giou), ("DIoU", box_ops.diou), ("CIoU", box_ops.ciou))


@picture("Boxes", "ops.boxes.convert", "ops.boxes.area", "ops.boxes.clip")
def box_formats():
    """One box in eight formats.

    The box of the cyclist as `convert` writes it in each format; all eight mean the same pixels. The dashed box reaches
    beyond the image, and `clip` cuts it to the solid orange one.
    """
    scene = d.scene()
    figure, (left, right) = d.panels(1, 2, height=3.4, width_ratios=(1.25, 1))
    d.show(left, scene.image)
    cyclist = scene.boxes[scene.labels.tolist().index(4)]
    d.box(left, cyclist, d.RED, width=2.4)
    large = np.array([[290, 150, 430, 290]], np.float32)
    cut = d.array(box_ops.clip(large, scene.size_hw))
    d.box(left, large[0], d.ORANGE, linestyle="--")
    d.box(left, cut[0], d.ORANGE, width=2.4, fill=0.2)
    left.set_xlim(0, 440)
    left.set_ylim(300, 0)
    left.set_title(
        f"area {float(box_ops.area(cyclist)):.0f} square pixels; clipping leaves {cut[0].astype(int).tolist()}"
    )
    right.axis("off")
    right.set_title("the red box, by format")
    for row, name in enumerate(box_ops.FORMATS):
        numbers = d.array(box_ops.convert(cyclist[None], "xyxy", name, sizes_hw=scene.size_hw))[0]
        shown = "  ".join(f"{number:6.3f}" if name.startswith("rel") else f"{number:6.0f}" for number in numbers)
        y = 0.93 - 0.125 * row
        right.text(0.02, y, name, family="DejaVu Sans Mono", fontsize=10, color=d.BLUE, va="top")
        right.text(0.38, y, shown, family="DejaVu Sans Mono", fontsize=10, color=d.INK, va="top")
    return figure


@picture("Boxes", "ops.boxes.encode_deltas", "ops.boxes.decode_deltas")
def box_deltas():
    """Boxes as deltas to an anchor.

    What a detector learns is not the true box (green) but the way to it from an anchor (blue): two shifts of the centre
    in units of the anchor's size, and the logarithms of the growth in width and height. Decoding applies them: a
    quarter, a half and three quarters of the deltas lead to the dashed boxes, all of them to the true one.
    """
    scene = d.scene()
    truth = scene.boxes[scene.boxes[:, 2].argmax()][None]  # the large bus
    anchor = np.array([[190, 50, 254, 114]], np.float32)
    deltas = box_ops.encode_deltas(truth, anchor)
    figure, (left, right) = d.panels(1, 2, height=3.1, width_ratios=(1.3, 1))
    d.show(left, scene.image, faded=0.35)
    d.box(left, anchor[0], d.BLUE, text="anchor", width=2.4)
    d.box(left, truth[0], d.TRUTH, text="truth", width=2.4)
    for share in (0.25, 0.5, 0.75):
        d.box(left, d.array(box_ops.decode_deltas(share * deltas, anchor))[0], d.INK, width=1.2, linestyle="--")
    left.set_xlim(150, 384)
    left.set_ylim(180, 35)
    bars = d.array(deltas)[0]
    right.barh(range(4), bars, color=d.BLUE, height=0.55)
    right.axvline(0, color=d.FAINT, linewidth=1)
    right.set_yticks(range(4), ["dx", "dy", "dw", "dh"], fontsize=10)
    right.invert_yaxis()
    right.set_xlim(min(bars.min(), 0) - 0.35, bars.max() + 0.35)
    for row, value in enumerate(bars):
        right.text(
            value + 0.03 * np.sign(value), row, f"{value:+.3f}", va="center", ha="left" if value > 0 else "right"
        )
    back = d.array(box_ops.decode_deltas(deltas, anchor))
    right.set_title(f"encode_deltas; decoded again: off by {abs(back - truth).max():.0e} pixels")
    return figure


@picture("Boxes", "ops.boxes.iou", "ops.boxes.giou", "ops.boxes.diou", "ops.boxes.ciou", "ops.boxes.pairwise_iou")
def box_overlap():
    """IoU, GIoU, DIoU and CIoU of a sliding and of a changing box.

    Left and middle: a box slides off its target. IoU is flat at 0 as soon as they do not touch; GIoU and DIoU go on
    falling and so still say where to go. Right: boxes of the same centre that cover one sixth of the target each, from
    tall to wide. IoU is 1/6 for all of them, and so is DIoU; only CIoU sees that the shape is wrong.
    """
    figure, (left, middle, right) = d.panels(1, 3, height=3.1, width_ratios=(1, 1.25, 1.25))
    target = np.array([0, 0, 60, 60], np.float32)
    shifts = np.linspace(0, 150, 151, dtype=np.float32)
    sliding = target + shifts[:, None] * np.array([1, 0, 1, 0], np.float32)
    d.bare(left)
    d.box(left, target, d.TRUTH, fill=0.25, width=2.2)
    for place in (0, 30, 60, 110):
        d.box(left, sliding[place], d.INK, linestyle="--", width=1.3)
        left.text(place + 30, 66, f"{place}", ha="center", va="top", fontsize=8)
    left.set_xlim(-8, 180)
    left.set_ylim(95, -35)
    left.set_aspect("equal")
    left.set_title("a box slides to the right")
    for (name, measure), style in zip(MEASURES, ("-", "-", "-", "--"), strict=True):
        middle.plot(shifts, d.array(measure(sliding, target)), style, label=name)
    middle.axvline(60, color=d.FAINT, linewidth=1)
    middle.text(62, 0.93, "no contact\nfrom here", fontsize=8, color="#57606a", va="top")
    middle.set_xlabel("shift in pixels, of boxes 60 wide")
    middle.legend(loc="lower left")
    middle.set_title("overlap by shift")

    widths = np.geomspace(10, 60, 61, dtype=np.float32)
    heights = 600 / widths
    inner = np.stack([30 - widths / 2, 30 - heights / 2, 30 + widths / 2, 30 + heights / 2], axis=1)
    for (name, measure), style in zip(MEASURES, ("-", "-.", "--", "-"), strict=True):
        right.plot(widths / heights, d.array(measure(inner, target)), style, label=name, linewidth=2.2)
    right.set_xscale("log")
    right.set_xticks([1 / 6, 1, 6], ["1 : 6", "1 : 1", "6 : 1"])
    right.minorticks_off()
    right.set_ylim(0.13, 0.19)
    right.set_xlabel("width : height of the inner box")
    right.set_title("overlap by shape")
    for ratio, place in ((1 / 6, 0.09), (1, 0.5), (6, 0.91)):
        size = np.array([np.sqrt(ratio), 1 / np.sqrt(ratio)]) * 0.12 / np.sqrt(6)
        for (w, h), colour in (((0.12, 0.12), d.TRUTH), (size, d.INK)):
            corner = (place - w / 2, 0.84 - h * 0.75)
            right.add_patch(
                patches.Rectangle(corner, w, 1.5 * h, fill=False, edgecolor=colour, transform=right.transAxes)
            )
    return figure


@picture(
    "Boxes",
    "ops.resizing.ResizeRule",
    "ops.letterbox.letterbox_size",
    "ops.letterbox.letterbox_boxes",
    "ops.letterbox.unletterbox_boxes",
)
def letterbox():
    """Letterbox and its inverse.

    The image is scaled to fit the canvas with its aspect ratio kept; what is left over is padding, below or on both
    sides. `letterbox_boxes` moves the boxes along, and `unletterbox_boxes` brings what the network finds on the canvas
    back to the image's own pixels. Stretching, on the right, changes the shapes instead.
    """
    scene = d.scene()
    canvas = (224, 224)
    scaled = d.array(letterbox_size(np.array(scene.size_hw), canvas))
    image = ResizeRule("letterbox", size_hw=canvas).apply(scene.image)
    figure, axes = d.panels(1, 4, height=2.75, width_ratios=(1.5, 1, 1, 1))
    d.show(axes[0], scene.image)
    for truth in scene.boxes:
        d.box(axes[0], truth, d.TRUTH, width=3.2)
    for place, centered in ((1, False), (2, True)):
        top, left = (np.array(canvas) - scaled) // 2 if centered else (0, 0)
        padded = np.full((*canvas, 3), 114, np.uint8)
        padded[top : top + scaled[0], left : left + scaled[1]] = np.clip(image, 0, 255)
        moved = letterbox_boxes(scene.boxes, np.array(scene.size_hw), canvas, centered=centered)
        d.show(axes[place], padded, f"letterbox, centered={centered}")
        for one in d.array(moved):
            d.box(axes[place], one, d.TRUTH, width=1.6)
        back = d.array(unletterbox_boxes(moved, np.array(scene.size_hw), canvas, centered=centered))
        d.note(axes[place], f"back: off by at most {abs(back - scene.boxes).max():.0e} pixels")
        for one in back:
            d.box(axes[0], one, "white", width=1, linestyle="--")
    axes[0].set_title(f"{scene.size_hw[1]} x {scene.size_hw[0]}; dashed: there and back")
    stretched = ResizeRule("stretch", size_hw=canvas).apply(scene.image)
    d.show(axes[3], np.clip(stretched, 0, 255).astype(np.uint8), "stretch")
    for one in scene.boxes * np.tile(np.array(canvas)[::-1] / np.array(scene.size_hw)[::-1], 2):
        d.box(axes[3], one, d.TRUTH, width=1.6)
    return figure

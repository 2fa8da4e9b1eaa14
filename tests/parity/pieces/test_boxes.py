"""Box arithmetic against torchvision's, and the formats against Keras's own."""

import keras
import numpy as np
import pytest
from torchvision import ops as vision
from torchvision.models.detection._utils import BoxCoder

from kerasvision.ops import boxes
from tests.parity.pieces.compare import check


def _random_boxes(seed, *shape, side=200.0):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, side, (*shape, 2))
    return np.concatenate([corners, corners + rng.uniform(1, side / 2, (*shape, 2))], axis=-1).astype(np.float32)


PAIRWISE = [
    ("iou", vision.box_iou),
    ("giou", vision.generalized_box_iou),
    ("diou", vision.distance_box_iou),
    ("ciou", vision.complete_box_iou),
]
ELEMENTWISE = [
    ("giou", vision.generalized_box_iou_loss),
    ("diou", vision.distance_box_iou_loss),
    ("ciou", vision.complete_box_iou_loss),
]


@pytest.mark.parametrize(("name", "theirs"), PAIRWISE)
@pytest.mark.parametrize("side", [200.0, 2000.0])
def test_pairwise_overlaps_equal_torchvision(name, theirs, side):
    ours = getattr(boxes, f"pairwise_{name}")
    arrays = [_random_boxes(0, 40, side=side), _random_boxes(1, 30, side=side)]
    check(f"ops.boxes.pairwise_{name}", f"torchvision.ops.{theirs.__name__}", ours, theirs, arrays)


@pytest.mark.parametrize(("name", "theirs"), ELEMENTWISE)
@pytest.mark.parametrize("spread", [5.0, 200.0])
def test_elementwise_overlaps_equal_torchvision(name, theirs, spread):
    first = _random_boxes(0, 100)
    second = first + np.random.default_rng(1).uniform(-1, 1, first.shape).astype(np.float32)
    if spread > 100:
        second = _random_boxes(1, 100)
    ours = getattr(boxes, name)
    reference = f"1 - torchvision.ops.{theirs.__name__}"
    check(f"ops.boxes.{name}", reference, ours, lambda a, b: 1 - theirs(a, b), [first, second])


@pytest.mark.parametrize(
    ("source", "target"), [("xyxy", "cxcywh"), ("cxcywh", "xyxy"), ("xywh", "xyxy"), ("cxcywh", "xywh")]
)
def test_convert_equals_torchvision(source, target):
    check(
        "ops.boxes.convert",
        "torchvision.ops.box_convert",
        lambda values: boxes.convert(values, source, target),
        lambda values: vision.box_convert(values.clone(), source, target),
        [_random_boxes(0, 20)],
    )


def _keras_name(name):
    return name.replace("cxcywh", "center_xywh")


@pytest.mark.parametrize(
    ("source", "target"),
    [*((name, "rel_yxyx") for name in boxes.FORMATS), *(("rel_xywh", name) for name in boxes.FORMATS)],
)
def test_convert_equals_keras(source, target):
    values = _random_boxes(0, 2, 5)
    if source.startswith("rel_"):
        values = values / 400

    def theirs(array):
        names = {"source": _keras_name(source), "target": _keras_name(target)}
        return keras.ops.convert_to_numpy(
            keras.utils.bounding_boxes.convert_format(array, **names, height=300, width=400)
        )

    check(
        "ops.boxes.convert",
        "keras.utils.bounding_boxes.convert_format",
        lambda array: boxes.convert(array, source, target, sizes_hw=np.array([300, 400])),
        theirs,
        [values],
        numpy_reference=True,
    )


def test_area_equals_torchvision():
    check("ops.boxes.area", "torchvision.ops.box_area", boxes.area, vision.box_area, [_random_boxes(0, 40)])


def test_clip_equals_torchvision():
    check(
        "ops.boxes.clip",
        "torchvision.ops.clip_boxes_to_image",
        lambda values: boxes.clip(values, np.array([120, 150])),
        lambda values: vision.clip_boxes_to_image(values, (120, 150)),
        [_random_boxes(0, 40) - 50],
    )


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_coding_equals_torchvision(weights):
    coder = BoxCoder(weights)
    arrays = [_random_boxes(0, 50), _random_boxes(1, 50)]
    check(
        "ops.boxes.encode_deltas",
        "torchvision.models.detection BoxCoder.encode",
        lambda wanted, anchors: boxes.encode_deltas(wanted, anchors, weights),
        coder.encode_single,
        arrays,
    )
    deltas = np.random.default_rng(0).normal(0, 2, (50, 4)).astype(np.float32)
    deltas[:3] *= 100  # reaches the clamp
    check(
        "ops.boxes.decode_deltas",
        "torchvision.models.detection BoxCoder.decode",
        lambda values, anchors: boxes.decode_deltas(values, anchors, weights),
        coder.decode_single,
        [deltas, arrays[1]],
    )

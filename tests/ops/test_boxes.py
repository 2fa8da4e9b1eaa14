"""Box arithmetic against values worked out by hand."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerasvision.ops import boxes


def _numpy(tensor):
    return ops.convert_to_numpy(tensor)


def _tensor(values):
    return ops.convert_to_tensor(np.asarray(values, np.float32))


def _random_boxes(seed, *shape, side=100.0):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, side, (*shape, 2))
    return np.concatenate([corners, corners + rng.uniform(1, side / 2, (*shape, 2))], axis=-1).astype(np.float32)


def test_area_of_ordinary_flat_and_inverted_boxes():
    found = boxes.area(_tensor([[1, 2, 4, 7], [3, 3, 3, 9], [5, 5, 1, 9], [5, 5, 1, 1]]))
    # (4-1)(7-2) = 15; no width; x2 < x1; both inverted: 0, not 16.
    np.testing.assert_array_equal(_numpy(found), [15, 0, 0, 0])


def test_area_of_no_boxes_is_empty():
    assert _numpy(boxes.area(ops.zeros((2, 0, 4)))).shape == (2, 0)


def test_clip_uses_each_images_own_size():
    given_boxes = _tensor([[[-5, -5, 50, 50], [10, 10, 20, 20]]] * 2)
    found = _numpy(boxes.clip(given_boxes, np.array([[30, 40], [15, 12]], np.int32)))
    # Image 0: height 30, width 40. Image 1: height 15, width 12.
    np.testing.assert_array_equal(found[0], [[0, 0, 40, 30], [10, 10, 20, 20]])
    np.testing.assert_array_equal(found[1], [[0, 0, 12, 15], [10, 10, 12, 15]])


def test_clip_with_one_size_for_all_images():
    found = _numpy(boxes.clip(_tensor([[[-1, 2, 99, 99]], [[1, -2, 5, 5]]]), ops.convert_to_tensor([8, 9])))
    np.testing.assert_array_equal(found, [[[0, 2, 9, 8]], [[1, 0, 5, 5]]])


def test_clip_of_a_box_outside_the_image_has_no_area():
    found = boxes.clip(_tensor([[[50, 50, 60, 60]]]), ops.convert_to_tensor([20, 30]))
    np.testing.assert_array_equal(_numpy(found), [[[30, 20, 30, 20]]])
    np.testing.assert_array_equal(_numpy(boxes.area(found)), [[0]])


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([0, 0, 10, 10], 1.0),  # the same box
        ([5, 0, 15, 10], 50 / 150),  # 5 x 10 shared; 100 + 100 - 50
        ([2, 2, 4, 7], 10 / 100),  # inside: 2 x 5 of 100
        ([10, 0, 20, 10], 0.0),  # shares an edge only
        ([30, 30, 40, 40], 0.0),  # apart on both axes: (-20)(-20) must not count as 400
        ([5, 5, 5, 5], 0.0),  # a point
        ([8, 8, 2, 2], 0.0),  # inverted
    ],
)
def test_iou_with_a_square_of_ten(other, expected):
    square = _tensor([0, 0, 10, 10])
    np.testing.assert_allclose(_numpy(boxes.iou(square, _tensor(other))), expected, rtol=1e-6)
    np.testing.assert_allclose(_numpy(boxes.iou(_tensor(other), square)), expected, rtol=1e-6)


def test_iou_of_two_equal_points_is_zero_not_nan():
    point = _tensor([3, 3, 3, 3])
    assert _numpy(boxes.iou(point, point)) == 0


def test_pairwise_iou_lists_every_pair_and_broadcasts():
    first = _tensor([[[0, 0, 10, 10], [0, 0, 20, 10]], [[5, 5, 6, 6], [0, 0, 1, 1]]])  # (2, 2, 4)
    second = _tensor([[[0, 0, 10, 10], [10, 0, 20, 10], [0, 0, 10, 5]]])  # (1, 3, 4)
    expected = [
        # 100/100, 0, 50/100; 100/200, 100/200, 50/200
        [[1, 0, 0.5], [0.5, 0.5, 0.25]],
        # 1/100, 0, (5,5)-(6,6) lies under y = 5; 1/100, 0, 1/50
        [[0.01, 0, 0], [0.01, 0, 0.02]],
    ]
    np.testing.assert_allclose(_numpy(boxes.pairwise_iou(first, second)), expected, rtol=1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(0, 3), (3, 0), (0, 0)])
def test_pairwise_iou_of_no_boxes_is_empty(rows, columns):
    found = boxes.pairwise_iou(ops.zeros((2, rows, 4)), ops.zeros((2, columns, 4)))
    assert _numpy(found).shape == (2, rows, columns)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_iou_and_giou_are_symmetric_and_within_bounds(seed):
    first, second = _tensor(_random_boxes(seed, 20)), _tensor(_random_boxes(seed + 1, 30))
    iou = _numpy(boxes.pairwise_iou(first, second))
    np.testing.assert_allclose(iou, _numpy(boxes.pairwise_iou(second, first)).T, atol=1e-6)
    assert iou.min() >= 0 and iou.max() <= 1
    giou = _numpy(boxes.giou(first[:, None], second[None]))
    np.testing.assert_allclose(giou, _numpy(boxes.giou(second[:, None], first[None])).T, atol=1e-6)
    assert giou.min() >= -1 and (giou <= iou + 1e-6).all()


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([0, 0, 10, 10], 1.0),
        ([5, 0, 15, 10], 1 / 3),  # the enclosing box 15 x 10 is full: GIoU = IoU = 50 / 150
        ([20, 0, 30, 10], -1 / 3),  # enclosing 30 x 10 = 300, union 200: 0 - 100 / 300
        ([10, 10, 20, 20], -0.5),  # enclosing 400, union 200: 0 - 200 / 400
        ([90, 90, 100, 100], -0.98),  # enclosing 10000, union 200: 0 - 9800 / 10000
        ([5, 5, 5, 5], 0.0),  # a point inside: IoU 0, nothing of the enclosing box is empty
    ],
)
def test_giou_with_a_square_of_ten(other, expected):
    found = boxes.giou(_tensor([0, 0, 10, 10]), _tensor(other))
    np.testing.assert_allclose(_numpy(found), expected, rtol=1e-6, atol=1e-7)


def test_giou_of_two_equal_points_is_zero_not_nan():
    point = _tensor([3, 3, 3, 3])
    assert _numpy(boxes.giou(point, point)) == 0


def test_encode_deltas_by_hand():
    # Anchor: centre (10, 20), 20 x 40. Box: centre (15, 10), 40 x 20.
    found = boxes.encode_deltas(_tensor([-5, 0, 35, 20]), _tensor([0, 0, 20, 40]))
    np.testing.assert_allclose(_numpy(found), [5 / 20, -10 / 40, math.log(2), -math.log(2)], rtol=1e-6)


def test_encode_deltas_multiplies_by_the_weights():
    found = boxes.encode_deltas(_tensor([-5, 0, 35, 20]), _tensor([0, 0, 20, 40]), weights=(10, 10, 5, 5))
    np.testing.assert_allclose(_numpy(found), [2.5, -2.5, 5 * math.log(2), -5 * math.log(2)], rtol=1e-6)


def test_decode_deltas_by_hand():
    # Centre (10, 20) + (0.5 * 20, 0.25 * 40) = (20, 30); size 20 * 2 = 40 by 40 * 0.5 = 20.
    deltas = _tensor([0.5, 0.25, math.log(2), math.log(0.5)])
    found = boxes.decode_deltas(deltas, _tensor([0, 0, 20, 40]))
    np.testing.assert_allclose(_numpy(found), [0, 20, 40, 40], atol=1e-5)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_decode_deltas_inverts_encode_deltas(weights):
    wanted, anchors = _random_boxes(0, 2, 50), _random_boxes(1, 50)
    deltas = boxes.encode_deltas(_tensor(wanted), _tensor(anchors), weights)
    found = boxes.decode_deltas(deltas, _tensor(anchors), weights)
    np.testing.assert_allclose(_numpy(found), wanted, atol=1e-3)


@pytest.mark.parametrize("box", [[5, 5, 5, 5], [5, 5, 5, 9], [9, 9, 5, 5]])
def test_encode_deltas_of_a_box_without_area_is_finite(box):
    assert np.isfinite(_numpy(boxes.encode_deltas(_tensor(box), _tensor([0, 0, 20, 40])))).all()


def test_decode_deltas_bounds_the_size():
    # exp(log(1000 / 16)) = 62.5 times the anchor's 16: 1000, around (8, 8).
    found = boxes.decode_deltas(_tensor([0, 0, 1e4, 1e4]), _tensor([0, 0, 16, 16]))
    np.testing.assert_allclose(_numpy(found), [-492, -492, 508, 508], rtol=1e-5)


def test_decode_deltas_far_below_zero_gives_a_point_at_the_centre():
    found = boxes.decode_deltas(_tensor([0, 0, -1e4, -1e4]), _tensor([0, 0, 16, 16]))
    np.testing.assert_array_equal(_numpy(found), [8, 8, 8, 8])


def test_encode_and_decode_of_no_boxes_are_empty():
    empty = ops.zeros((2, 0, 4))
    assert _numpy(boxes.encode_deltas(empty, empty)).shape == (2, 0, 4)
    assert _numpy(boxes.decode_deltas(empty, empty)).shape == (2, 0, 4)


def test_box_functions_trace_with_unknown_counts():
    found = boxes.pairwise_iou(keras.Input((None, 4)), keras.Input((7, 4)))
    assert tuple(found.shape) == (None, None, 7)


@pytest.mark.parametrize(
    ("name", "other", "expected"),
    [
        ("diou", [0, 0, 10, 10], 1.0),
        # IoU 50 / 150; centres 5 apart, diagonal of 15 x 10: 25 / 325.
        ("diou", [5, 0, 15, 10], 1 / 3 - 25 / 325),
        ("diou", [30, 0, 40, 10], -900 / 1700),  # 30 apart; 40 x 10
        ("diou", [5, 5, 5, 5], 0.0),  # a point in the centre
        ("ciou", [0, 0, 10, 10], 1.0),
        ("ciou", [5, 0, 15, 10], 1 / 3 - 25 / 325),  # both square
    ],
)
def test_diou_and_ciou_with_a_square_of_ten(name, other, expected):
    found = getattr(boxes, name)(_tensor([0, 0, 10, 10]), _tensor(other))
    np.testing.assert_allclose(_numpy(found), expected, rtol=1e-6, atol=1e-7)


def test_ciou_weighs_the_difference_of_shapes():
    # 20 x 10 around 10 x 10, same centre: IoU 0.5; v = (4 / pi^2)(arctan 2 - arctan 1)^2, alpha = v / (0.5 + v).
    v = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2
    found = boxes.ciou(_tensor([0, 0, 10, 10]), _tensor([-5, 0, 15, 10]))
    np.testing.assert_allclose(_numpy(found), 0.5 - v * v / (0.5 + v), rtol=1e-5)


OVERLAPS = ["iou", "giou", "diou", "ciou"]
SQUARE = [0, 0, 10, 10]


@pytest.mark.parametrize("name", OVERLAPS)
@pytest.mark.parametrize(
    "other",
    [
        [math.nan] * 4,
        [0, math.nan, 10, 10],
        [-math.inf, -math.inf, math.inf, math.inf],
        [0, 0, 3e38, 3e38],
        [-1e20, -1e20, 1e20, 1e20],
        [3, 3, 3, 3],
        [3, 3, 3, 9],
        [9, 9, 3, 3],
        [0, 0, 1e-30, 1e-30],
    ],
)
def test_overlaps_with_degenerate_huge_and_nan_boxes_are_finite_and_bounded(name, other):
    pairs = _tensor([SQUARE, other, other]), _tensor([other, SQUARE, other])
    found = _numpy(getattr(boxes, name)(*pairs))
    assert np.isfinite(found).all(), found
    assert found.min() >= {"iou": 0, "ciou": -2}.get(name, -1) and found.max() <= 1


@pytest.mark.parametrize("name", OVERLAPS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32"])
def test_overlaps_of_other_dtypes_are_computed_in_float32(name, dtype):
    # 512 x 512 is more than float16 can count: 65504.
    first, second = (ops.cast(_tensor(values), dtype) for values in ([0, 0, 512, 512], [256, 0, 768, 512]))
    found = _numpy(getattr(boxes, name)(first, second))
    assert found.dtype == np.float32
    expected = _numpy(getattr(boxes, name)(_tensor([0, 0, 2, 2]), _tensor([1, 0, 3, 2])))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert _numpy(boxes.area(first)) == 512 * 512


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(OVERLAPS))
def test_overlaps_are_symmetric_and_stay_when_boxes_move_grow_or_turn(seed, name):
    first, second = _random_boxes(seed, 12), _random_boxes(seed + 1, 12)
    overlap = getattr(boxes, name)
    expected = _numpy(overlap(_tensor(first), _tensor(second)))
    np.testing.assert_allclose(_numpy(overlap(_tensor(second), _tensor(first))), expected, atol=1e-6)
    rng = np.random.default_rng(seed)
    shift, scale = rng.uniform(-500, 500, 2), rng.uniform(0.01, 100)
    for change in (
        lambda b: b + np.tile(shift, 2),
        lambda b: b * scale,
        lambda b: 1000 - b[:, [2, 3, 0, 1]],  # turned by 180 degrees
    ):
        found = _numpy(overlap(_tensor(change(first)), _tensor(change(second))))
        np.testing.assert_allclose(found, expected, atol=2e-4)
    pairwise = _numpy(getattr(boxes, f"pairwise_{name}")(_tensor(first), _tensor(second)))
    np.testing.assert_allclose(np.diag(pairwise), expected, atol=1e-6)
    order = rng.permutation(12)
    found = _numpy(getattr(boxes, f"pairwise_{name}")(_tensor(first[order]), _tensor(second)))
    np.testing.assert_allclose(found, pairwise[order], atol=1e-6)
    np.testing.assert_allclose(_numpy(overlap(_tensor(first), _tensor(first))), 1, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_clip_twice_is_clip_once_and_keeps_boxes_inside(seed):
    given_boxes = _random_boxes(seed, 2, 9) * 4 - 100
    sizes = np.random.default_rng(seed).integers(1, 200, (2, 2))
    once = _numpy(boxes.clip(_tensor(given_boxes), sizes))
    np.testing.assert_array_equal(_numpy(boxes.clip(_tensor(once), sizes)), once)
    assert once.min() >= 0 and (once <= np.tile(sizes[:, None, ::-1], 2)).all()
    assert (once[..., 2:] >= once[..., :2]).all()


def test_clip_of_infinite_and_nan_boxes():
    found = boxes.clip(_tensor([[[-math.inf, math.nan, math.inf, 5]]]), ops.convert_to_tensor([20, 30]))
    np.testing.assert_array_equal(_numpy(found), [[[0, math.nan, 30, 5]]])


# left 10, top 20, right 40, bottom 60 in an image of height 100 and width 200.
SAME_BOX = {
    "xyxy": [10, 20, 40, 60],
    "yxyx": [20, 10, 60, 40],
    "xywh": [10, 20, 30, 40],
    "cxcywh": [25, 40, 30, 40],
    "rel_xyxy": [0.05, 0.2, 0.2, 0.6],
    "rel_yxyx": [0.2, 0.05, 0.6, 0.2],
    "rel_xywh": [0.05, 0.2, 0.15, 0.4],
    "rel_cxcywh": [0.125, 0.4, 0.15, 0.4],
}


@pytest.mark.parametrize("source", boxes.FORMATS)
def test_convert_by_hand_and_round_trip(source):
    for target in boxes.FORMATS:
        found = boxes.convert(_tensor([SAME_BOX[source]]), source, target, sizes_hw=(100, 200))
        np.testing.assert_allclose(_numpy(found), [SAME_BOX[target]], rtol=1e-5)


def test_convert_uses_each_images_own_size():
    sizes = np.array([[10, 20], [40, 50]])
    found = boxes.convert(_tensor([[SQUARE], [SQUARE]]), "xyxy", "rel_yxyx", sizes_hw=sizes)
    np.testing.assert_allclose(_numpy(found), [[[0, 0, 1, 0.5]], [[0, 0, 0.25, 0.2]]])


def test_convert_between_relative_formats_needs_no_size():
    found = boxes.convert(_tensor(SAME_BOX["rel_xyxy"]), "rel_xyxy", "rel_cxcywh")
    np.testing.assert_allclose(_numpy(found), SAME_BOX["rel_cxcywh"], rtol=1e-5)


def test_convert_of_no_boxes_is_empty():
    assert _numpy(boxes.convert(ops.zeros((2, 0, 4)), "xywh", "rel_yxyx", sizes_hw=(5, 5))).shape == (2, 0, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("xyhw", "xyxy"), "`source` 'xyhw' is not a box format; use one of xyxy, yxyx"),
        (("xyxy", "rel"), "`target` 'rel' is not a box format"),
        (("xyxy", "rel_xyxy"), r"`sizes_hw` None must be the images' \(height, width\)"),
    ],
)
def test_convert_of_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        boxes.convert(_tensor(SQUARE), *arguments)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch runs eagerly")
def test_box_functions_in_compiled_code_of_unknown_size():
    values, sizes = _tensor(_random_boxes(0, 2, 5)), ops.convert_to_tensor(np.array([[50, 60], [70, 80]], np.int32))

    def all_of_them(values, sizes):
        pairs = [getattr(boxes, f"pairwise_{name}")(values, values) for name in OVERLAPS]
        converted = boxes.convert(boxes.clip(values, sizes), "xyxy", "rel_cxcywh", sizes_hw=sizes)
        return *pairs, converted, boxes.decode_deltas(boxes.encode_deltas(values, values), values)

    expected = [_numpy(found) for found in all_of_them(values, sizes)]
    if keras.backend.backend() == "jax":
        import jax

        compiled = [jax.jit(all_of_them)]
    else:
        import tensorflow as tf

        signature = [tf.TensorSpec((None, None, 4)), tf.TensorSpec((None, 2), tf.int32)]
        compiled = [tf.function(all_of_them, input_signature=signature), tf.function(all_of_them, jit_compile=True)]
    for function in compiled:
        for found, wanted in zip(function(values, sizes), expected, strict=True):
            np.testing.assert_allclose(np.asarray(found), wanted, atol=1e-4)


def test_encode_deltas_of_an_anchor_without_area_is_finite():
    # Centres 5 apart, over 1e-6; log(10 / 1e-6) = 16.118.
    found = ops.convert_to_numpy(boxes.encode_deltas(np.float32([[0, 0, 10, 10]]), np.float32([[0, 0, 0, 0]])))
    np.testing.assert_allclose(found, [[5e6, 5e6, 16.118096, 16.118096]], rtol=1e-5)
    found = ops.convert_to_numpy(boxes.encode_deltas(np.zeros((1, 4), "float32"), np.zeros((1, 4), "float32")))
    np.testing.assert_array_equal(found, np.zeros((1, 4)))

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

"""Box losses by hand."""

import math

import numpy as np
import pytest
from keras import ops

from kerasvision.losses import BalancedL1Loss, CIoULoss, DIoULoss, GIoULoss, HuberLoss, IoULoss, SmoothL1Loss
from kerasvision.losses.box import balanced_l1, huber, smooth_l1


def _tensor(values):
    return ops.convert_to_tensor(np.asarray(values, np.float32))


def test_smooth_l1_by_hand():
    # |d| = 0, 0.5, 1, 3 with beta 1: 0, 0.5 * 0.25, 1 - 0.5, 3 - 0.5.
    found = smooth_l1(_tensor([1, 1, 1, 1]), _tensor([1, 1.5, 0, -2]))
    np.testing.assert_allclose(ops.convert_to_numpy(found), [0, 0.125, 0.5, 2.5])


def test_smooth_l1_with_a_small_beta():
    # beta 0.2: 0.5 * 0.01 / 0.2 and 0.5 - 0.1.
    found = smooth_l1(_tensor([0, 0]), _tensor([0.1, 0.5]), beta=0.2)
    np.testing.assert_allclose(ops.convert_to_numpy(found), [0.025, 0.4], rtol=1e-5)


def test_smooth_l1_with_beta_zero_is_l1():
    found = smooth_l1(_tensor([0, 0, 0]), _tensor([0, -0.1, 5]), beta=0)
    np.testing.assert_allclose(ops.convert_to_numpy(found), [0, 0.1, 5], rtol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_smooth_l1_gradient_by_hand(beta, gradient):
    values = np.array([1e-6, 0.25, -0.25, 4, -4], np.float32)
    found = gradient(lambda x: ops.sum(smooth_l1(_tensor(np.zeros(5)), x, beta=beta)), values)
    # d / beta under beta, the sign above.
    expected = np.sign(values) if beta == 0 else np.clip(values / beta, -1, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_smooth_l1_loss_sums_coordinates_and_averages_boxes():
    truth = np.zeros((1, 2, 4), np.int32)  # integers, as a user may give them
    predictions = _tensor([[[1, 2, 0, 0], [0, 0, 0, 0.5]]])
    # (0.5 + 1.5) and 0.125.
    np.testing.assert_allclose(ops.convert_to_numpy(SmoothL1Loss()(truth, predictions)), (2 + 0.125) / 2)
    found = ops.convert_to_numpy(SmoothL1Loss(reduction="none")(truth, predictions))
    np.testing.assert_allclose(found, [[2, 0.125]])
    found = ops.convert_to_numpy(SmoothL1Loss(reduction="sum")(truth, predictions, [[0.0, 2.0]]))
    np.testing.assert_allclose(found, 0.25)


def test_giou_loss_by_hand():
    truth = _tensor([[0, 0, 10, 10]] * 3)
    predictions = _tensor([[0, 0, 10, 10], [5, 0, 15, 10], [20, 0, 30, 10]])
    # GIoU 1, 1 / 3 and -1 / 3 (see tests/ops/test_boxes.py).
    found = ops.convert_to_numpy(GIoULoss(reduction="none")(truth, predictions))
    np.testing.assert_allclose(found, [0, 2 / 3, 4 / 3], atol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(GIoULoss()(truth, predictions)), 2 / 3, rtol=1e-6)


def test_giou_loss_pulls_a_box_that_misses(gradient):
    truth = _tensor([[0, 0, 10, 10]])
    slopes = gradient(lambda x: GIoULoss()(truth, x), [[20, 0, 30, 10]])
    assert slopes[0, 0] > 0  # descending moves x1 to the left


FAMILY = [IoULoss, GIoULoss, DIoULoss, CIoULoss]


@pytest.mark.parametrize("loss", FAMILY)
@pytest.mark.parametrize("box", [[3, 3, 3, 3], [5, 5, 1, 1], [0, 0, 10, 10], [-1e6, -1e6, 1e6, 1e6]])
@pytest.mark.parametrize("truth", [[3, 3, 3, 3], [0, 0, 10, 10]])
def test_iou_losses_of_degenerate_boxes_are_finite_with_finite_gradients(loss, box, truth, gradient):
    value = float(ops.convert_to_numpy(loss()(_tensor([truth]), _tensor([box]))))
    assert 0 <= value <= 3
    assert np.isfinite(gradient(lambda x: loss()(_tensor([truth]), x), [box])).all()


def test_iou_loss_by_hand():
    truth = _tensor([[0, 0, 10, 10]] * 3)
    predictions = _tensor([[0, 0, 10, 10], [5, 0, 15, 10], [20, 0, 30, 10]])
    found = ops.convert_to_numpy(IoULoss(reduction="none")(truth, predictions))
    np.testing.assert_allclose(found, [0, 2 / 3, 1], atol=1e-6)
    found = ops.convert_to_numpy(IoULoss("log", reduction="none")(truth, predictions))
    np.testing.assert_allclose(found, [0, math.log(3), -math.log(1e-6)], atol=1e-5)


def test_diou_and_ciou_losses_by_hand():
    truth = _tensor([[0, 0, 10, 10]])
    # IoU 1/3; centres 5 apart, the enclosing box 15 x 10: 25 / 325.
    found = ops.convert_to_numpy(DIoULoss()(truth, _tensor([[5, 0, 15, 10]])))
    np.testing.assert_allclose(found, 2 / 3 + 25 / 325, rtol=1e-6)
    # A box of half the height in the middle: IoU 1/2, same centre, v = 4 / pi^2 (atan 2 - atan 1)^2.
    v = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2
    found = ops.convert_to_numpy(CIoULoss()(truth, _tensor([[0, 2.5, 10, 7.5]])))
    np.testing.assert_allclose(found, 0.5 + v * v / (0.5 + v), rtol=1e-5)


def test_huber_by_hand(gradient):
    # delta 2: 0.5 * 1, 2 (2 - 1), 2 (5 - 1).
    found = huber(_tensor([0, 0, 0]), _tensor([1, -2, 5]), delta=2.0)
    np.testing.assert_allclose(ops.convert_to_numpy(found), [0.5, 2, 8])
    slopes = gradient(lambda x: ops.sum(huber(_tensor([0, 0, 0]), x, delta=2.0)), [1, -3, 0])
    np.testing.assert_allclose(slopes, [1, -2, 0])


def test_balanced_l1_by_hand(gradient):
    # b = e^3 - 1; 0.5 / b (b / 2 + 1) log(b / 2 + 1) - 0.25 at 1/2; 1.5 * 3 + 1.5 / b - 0.5 at 3.
    b = math.e**3 - 1
    expected = [0, 0.5 / b * (b / 2 + 1) * math.log(b / 2 + 1) - 0.25, 4 + 1.5 / b]
    found = balanced_l1(_tensor([1, 1, 1]), _tensor([1, 0.5, 4]))
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-5, atol=1e-7)
    slopes = gradient(lambda x: ops.sum(balanced_l1(_tensor([0, 0, 0, 0]), x)), [0, 0.5, -0.5, 1e4])
    np.testing.assert_allclose(slopes, [0, 0.5 * math.log(b / 2 + 1), -0.5 * math.log(b / 2 + 1), 1.5], rtol=1e-5)


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 1.0), (0.3, 0.25)])
def test_balanced_l1_is_smooth_at_beta(alpha, beta, gradient):
    near = np.array([beta * 0.9999, beta * 1.0001], np.float32)
    values = ops.convert_to_numpy(balanced_l1(_tensor([0, 0]), _tensor(near), alpha=alpha, beta=beta))
    np.testing.assert_allclose(values[0], values[1], rtol=1e-3)
    slopes = gradient(lambda x: ops.sum(balanced_l1(_tensor([0, 0]), x, alpha=alpha, beta=beta)), near)
    np.testing.assert_allclose(slopes, [1.5, 1.5], rtol=1e-3)


@pytest.mark.parametrize("function", [smooth_l1, huber, balanced_l1])
def test_coordinate_losses_in_half_precision_do_not_overflow(function):
    # 500^2 leaves the range of float16.
    found = function(ops.zeros((2,), dtype="float16"), ops.convert_to_tensor(np.array([500, -500], np.float16)))
    assert "float32" in str(found.dtype)
    assert np.isfinite(ops.convert_to_numpy(found)).all()


@pytest.mark.parametrize("function", [smooth_l1, huber, balanced_l1])
def test_coordinate_losses_of_nan_are_nan(function):
    found = ops.convert_to_numpy(function(_tensor([0, np.nan, 0]), _tensor([np.nan, 0, 1])))
    assert np.isnan(found).tolist() == [True, True, False]


@pytest.mark.parametrize("loss", [SmoothL1Loss, HuberLoss, BalancedL1Loss])
def test_coordinate_losses_add_coordinates_and_leave_out_weightless_boxes(loss):
    truth = np.zeros((1, 2, 4), np.float32)
    predictions = np.array([[[1, 2, 0, 0], [9, 9, 9, 9]]], np.float32)
    alone = ops.convert_to_numpy(loss(reduction="none")(truth, predictions))
    assert alone.shape == (1, 2)
    found = loss(reduction="sum")(truth, predictions, np.array([[1.0, 0.0]], np.float32))
    np.testing.assert_allclose(ops.convert_to_numpy(found), alone[0, 0])


def test_wrong_arguments_are_named():
    for make, message in [
        (lambda: SmoothL1Loss(-1), "`beta` is -1, but must be a number of at least 0"),
        (lambda: HuberLoss(0), "`delta` is 0, but must be a number over 0"),
        (lambda: BalancedL1Loss(0), "`alpha` is 0, but must be a number over 0"),
        (lambda: IoULoss("square"), "`mode` is 'square', but must be one of 'linear', 'log'"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.parametrize("loss", [SmoothL1Loss, HuberLoss, BalancedL1Loss, *FAMILY])
def test_box_losses_of_no_boxes_are_empty(loss):
    found = ops.convert_to_numpy(loss(reduction="none")(ops.zeros((2, 0, 4)), ops.zeros((2, 0, 4))))
    assert found.shape == (2, 0)

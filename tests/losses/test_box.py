"""Box losses by hand."""

import numpy as np
import pytest
from keras import ops

from kerasvision.losses import GIoULoss, SmoothL1Loss
from kerasvision.losses.box import smooth_l1


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


@pytest.mark.parametrize("box", [[3, 3, 3, 3], [5, 5, 1, 1], [0, 0, 10, 10], [-1e6, -1e6, 1e6, 1e6]])
@pytest.mark.parametrize("truth", [[3, 3, 3, 3], [0, 0, 10, 10]])
def test_giou_loss_of_degenerate_boxes_is_finite_with_finite_gradients(box, truth, gradient):
    loss = float(ops.convert_to_numpy(GIoULoss()(_tensor([truth]), _tensor([box]))))
    assert 0 <= loss <= 2
    assert np.isfinite(gradient(lambda x: GIoULoss()(_tensor([truth]), x), [box])).all()


@pytest.mark.parametrize("loss", [SmoothL1Loss, GIoULoss])
def test_box_losses_of_no_boxes_are_empty(loss):
    found = ops.convert_to_numpy(loss(reduction="none")(ops.zeros((2, 0, 4)), ops.zeros((2, 0, 4))))
    assert found.shape == (2, 0)

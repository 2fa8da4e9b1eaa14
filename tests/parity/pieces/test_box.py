"""Box losses against torch's and torchvision's; balanced L1 and the log IoU against their papers' formulas."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from kerasvision.losses import CIoULoss, DIoULoss, GIoULoss, IoULoss
from kerasvision.losses.box import balanced_l1, huber, smooth_l1
from tests.parity.pieces.compare import check


def _deltas():
    targets, values = np.random.default_rng(0).normal(0, 2, (2, 60)).astype(np.float32)
    values[:5] = targets[:5]
    return [targets, values]


def _boxes(overlapping=False):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 5 if overlapping else 50, (2, 80, 2))
    return list(np.concatenate([corners, corners + rng.uniform(8, 40, corners.shape)], -1).astype(np.float32))


@pytest.mark.parametrize("beta", [0.0, 1 / 9, 1.0, 2.5])
def test_smooth_l1_equals_torch(beta):
    check(
        "losses.smooth_l1",
        "torch.nn.functional.smooth_l1_loss",
        lambda targets, values: smooth_l1(targets, values, beta=beta),
        lambda targets, values: functional.smooth_l1_loss(values, targets, beta=beta, reduction="none"),
        _deltas(),
        differentiate=[1],
    )


@pytest.mark.parametrize("delta", [0.1, 1.0, 2.5])
def test_huber_equals_torch(delta):
    check(
        "losses.huber",
        "torch.nn.functional.huber_loss",
        lambda targets, values: huber(targets, values, delta=delta),
        lambda targets, values: functional.huber_loss(values, targets, delta=delta, reduction="none"),
        _deltas(),
        differentiate=[1],
    )


def test_balanced_l1_equals_equation_10():
    def theirs(targets, values):
        difference = torch.abs(values - targets).double()
        b = math.exp(1.5 / 0.5) - 1
        inlier = 0.5 / b * (b * difference + 1) * torch.log(b * difference + 1) - 0.5 * difference
        return torch.where(difference < 1, inlier, 1.5 * difference + 1.5 / b - 0.5).float()

    check(
        "losses.balanced_l1",
        "Libra R-CNN, equation 10, in torch",
        balanced_l1,
        theirs,
        _deltas(),
        differentiate=[1],
    )


@pytest.mark.parametrize(("alpha", "gamma", "beta"), [(0.5, 1.5, 1.0), (0.7, 1.2, 0.4)])
def test_balanced_l1_equals_the_integral_of_equation_9(alpha, gamma, beta):
    # The gradient: alpha log(b |x| / beta + 1) under beta, gamma above.
    b = math.exp(gamma / alpha) - 1
    points = np.array([0.05, 0.3, 0.99, 2.0, 4.0], np.float32)

    def theirs(targets, values):
        grids = [np.linspace(target, value, 20001) for target, value in zip(targets, values, strict=True)]
        slopes = [np.where(xs < beta, alpha * np.log(b * xs / beta + 1), gamma) for xs in grids]
        return np.array([np.trapezoid(ys, xs) for ys, xs in zip(slopes, grids, strict=True)])

    check(
        "losses.balanced_l1",
        "Libra R-CNN, equation 9, integrated",
        lambda targets, values: balanced_l1(targets, values, alpha=alpha, gamma=gamma, beta=beta),
        theirs,
        [np.zeros_like(points), points],
        numpy_reference=True,
    )


@pytest.mark.parametrize(
    ("loss", "reference"),
    [
        (GIoULoss, generalized_box_iou_loss),
        (DIoULoss, distance_box_iou_loss),
        (CIoULoss, complete_box_iou_loss),
    ],
)
def test_iou_losses_equal_torchvision(loss, reference):
    check(
        f"losses.{loss.__name__}",
        f"torchvision.ops.{reference.__name__}",
        loss(reduction="none"),
        lambda truth, boxes: reference(boxes, truth),
        _boxes(),
        differentiate=[1],
    )


@pytest.mark.parametrize("mode", ["linear", "log"])
def test_iou_loss_equals_the_formula(mode):
    def theirs(a, b):
        sides = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
        areas = [(box[:, 2:] - box[:, :2]).prod(-1) for box in (a, b)]
        iou = sides.prod(-1) / (areas[0] + areas[1] - sides.prod(-1))
        return 1 - iou if mode == "linear" else -torch.log(iou)

    check(
        "losses.IoULoss",
        "the formula in torch",
        IoULoss(mode, reduction="none"),
        theirs,
        _boxes(overlapping=True),
        differentiate=[1],
    )

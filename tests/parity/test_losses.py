"""Losses against torch's and torchvision's: values and gradients."""

import numpy as np
import pytest
import tensorflow as tf
import torch
from torchvision.ops import generalized_box_iou_loss
from torchvision.ops import sigmoid_focal_loss as torch_focal

from kerasvision.losses import GIoULoss
from kerasvision.losses.box import smooth_l1
from kerasvision.losses.focal import sigmoid_focal_loss


def _both(ours, theirs, values):
    """Return (our loss, our gradient, their loss, their gradient) of elementwise losses."""
    tensor = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        loss = ours(tensor)
        total = tf.reduce_sum(loss)
    leaf = torch.from_numpy(values.copy()).requires_grad_()
    expected = theirs(leaf)
    expected.sum().backward()
    return loss.numpy(), tape.gradient(total, tensor).numpy(), expected.detach().numpy(), leaf.grad.numpy()


def test_focal_of_far_logits_equals_torchvision():
    logits = np.array([1e4, -1e4, 200, -200, 30, -30], np.float32)
    for target in (0.0, 1.0):
        targets = np.full_like(logits, target)
        loss, slope, expected, expected_slope = _both(
            lambda x, t=targets: sigmoid_focal_loss(tf.constant(t), x),
            lambda x, t=targets: torch_focal(x, torch.from_numpy(t)),
            logits,
        )
        np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(slope, expected_slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("beta", [0.0, 1 / 9, 1.0, 2.5])
def test_smooth_l1_equals_torch(beta):
    rng = np.random.default_rng(0)
    targets, values = rng.normal(0, 2, (2, 60)).astype(np.float32)
    values[:5] = targets[:5]
    loss, slope, expected, expected_slope = _both(
        lambda x: smooth_l1(tf.constant(targets), x, beta=beta),
        lambda x: torch.nn.functional.smooth_l1_loss(x, torch.from_numpy(targets), beta=beta, reduction="none"),
        values,
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-5, atol=1e-6)


def test_giou_loss_equals_torchvision():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 50, (2, 80, 2))
    truth, values = np.concatenate([corners, corners + rng.uniform(2, 40, corners.shape)], -1).astype(np.float32)
    loss, slope, expected, expected_slope = _both(
        lambda x: GIoULoss(reduction="none")(tf.constant(truth), x),
        lambda x: generalized_box_iou_loss(x, torch.from_numpy(truth)),
        values,
    )
    np.testing.assert_allclose(loss, expected, atol=1e-5)
    np.testing.assert_allclose(slope, expected_slope, atol=1e-5)

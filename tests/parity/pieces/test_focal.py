"""Focal losses against torchvision's and segmentation_models_pytorch's."""

import numpy as np
import pytest
import segmentation_models_pytorch.losses as smp
import torch
from keras import ops
from segmentation_models_pytorch.losses._functional import softmax_focal_loss_with_logits
from torchvision.ops import sigmoid_focal_loss as torchvision_focal

from kerasvision.losses import SigmoidFocalLoss
from kerasvision.losses.focal import binary_cross_entropy, sigmoid_focal_loss, softmax_focal_loss
from tests.parity.pieces.compare import check


def _logits(shape, spread=4.0):
    logits = np.random.default_rng(0).normal(0, spread, shape).astype(np.float32)
    logits[0] = 0  # where |x| and max(x, 0) have no slope of their own
    return logits


@pytest.mark.parametrize("alpha", [0.25, 0.6, -1])
@pytest.mark.parametrize("gamma", [0, 0.5, 2, 3])
def test_sigmoid_focal_equals_torchvision(alpha, gamma):
    logits = _logits((50, 7))
    targets = (np.random.default_rng(1).random(logits.shape) < 0.3).astype(np.float32)
    check(
        "losses.sigmoid_focal_loss",
        "torchvision.ops.sigmoid_focal_loss",
        lambda targets, logits: sigmoid_focal_loss(targets, logits, alpha=alpha, gamma=gamma),
        lambda targets, logits: torchvision_focal(logits, targets, alpha=alpha, gamma=gamma),
        [targets, logits],
        differentiate=[1],
    )


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_sigmoid_focal_of_far_logits_equals_torchvision(target):
    logits = np.array([1e4, -1e4, 200, -200, 30, -30], np.float32)
    check(
        "losses.sigmoid_focal_loss",
        "torchvision.ops.sigmoid_focal_loss",
        lambda targets, logits: sigmoid_focal_loss(targets, logits),
        lambda targets, logits: torchvision_focal(logits, targets),
        [np.full_like(logits, target), logits],
        differentiate=[1],
    )


def test_binary_cross_entropy_equals_torch():
    logits = _logits((40, 3))
    check(
        "losses.focal.binary_cross_entropy",
        "torch.nn.functional.binary_cross_entropy_with_logits",
        binary_cross_entropy,
        lambda t, x: torch.nn.functional.binary_cross_entropy_with_logits(x, t, reduction="none"),
        [np.random.default_rng(1).random(logits.shape).astype(np.float32), logits],
        differentiate=[1],
    )


@pytest.mark.parametrize("ignore", [None, 255])
def test_focal_of_masks_equals_smp(ignore):
    labels = np.random.default_rng(2).integers(0, 3, (2, 5, 6))
    if ignore:
        labels[:, 0] = ignore
    loss = SigmoidFocalLoss(0.25, 2.0, ignore_class=ignore)
    reference = smp.FocalLoss("multiclass", alpha=0.25, gamma=2.0, ignore_index=ignore)

    def theirs(labels, logits):
        return 3 * reference(logits.permute(0, 3, 1, 2), labels)  # it averages over classes, ours adds them

    check("losses.SigmoidFocalLoss", "smp.losses.FocalLoss", loss, theirs, [labels, _logits((2, 5, 6, 3), 2)])


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
def test_softmax_focal_equals_smp(gamma):
    labels = np.random.default_rng(2).integers(0, 4, (3, 20))
    check(
        "losses.softmax_focal_loss",
        "smp.losses._functional.softmax_focal_loss_with_logits",
        lambda labels, logits: softmax_focal_loss(labels, logits, gamma=gamma),
        lambda labels, logits: softmax_focal_loss_with_logits(
            logits.permute(0, 2, 1), labels, gamma=gamma, reduction="none"
        ),
        [labels, _logits((3, 20, 4), 2)],
    )


def test_softmax_focal_with_class_weights_equals_the_formula():
    labels = np.random.default_rng(2).integers(0, 4, (60,))
    weights = torch.tensor([0.5, 1.0, 2.0, 0.1])

    def theirs(labels, logits):
        true = torch.softmax(logits, -1).gather(1, labels[:, None])[:, 0]
        return -weights[labels] * (1 - true) ** 1.5 * torch.log(true)

    check(
        "losses.softmax_focal_loss",
        "the formula in torch",
        lambda labels, logits: ops.sum(
            softmax_focal_loss(labels, logits, alpha=tuple(weights.tolist()), gamma=1.5)[:, None], -1
        ),
        theirs,
        [labels, _logits((60, 4), 2)],
    )

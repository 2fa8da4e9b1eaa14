"""Lovász losses against segmentation_models_pytorch's, which is the authors' code."""

import numpy as np
import pytest
import segmentation_models_pytorch.losses as smp

from kerasvision.losses import LovaszHingeLoss, LovaszSoftmaxLoss
from tests.parity.pieces.compare import check


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("ignore", [None, 255])
def test_lovasz_softmax_equals_smp(per_image, ignore):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, (2, 5, 6))  # no pixel of class 3
    truth[1][truth[1] == 2] = 0  # nor, in one image, of class 2
    if ignore is not None:
        truth[:, :2, 3] = ignore
    reference = smp.LovaszLoss("multiclass", per_image=per_image, ignore_index=ignore)
    check(
        "losses.LovaszSoftmaxLoss",
        "smp.losses.LovaszLoss",
        LovaszSoftmaxLoss(per_image=per_image, ignore_class=ignore),
        lambda truth, logits: reference(logits.permute(0, 3, 1, 2), truth),
        [truth, rng.normal(0, 2, (2, 5, 6, 4)).astype(np.float32)],
    )


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("ignore", [None, 255])
@pytest.mark.parametrize("channels", [1, 3])
def test_lovasz_hinge_equals_smp(per_image, ignore, channels):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (3, 5, 6, channels))
    truth[2] = 0  # an image of background
    if ignore is not None:
        truth[:, :2, 3] = ignore
    mode = "binary" if channels == 1 else "multilabel"
    reference = smp.LovaszLoss(mode, per_image=per_image, ignore_index=ignore)
    check(
        "losses.LovaszHingeLoss",
        "smp.losses.LovaszLoss",
        LovaszHingeLoss(per_image=per_image, ignore_class=ignore),
        lambda truth, logits: reference(logits, truth),
        [truth, rng.normal(0, 2, truth.shape).astype(np.float32)],
    )

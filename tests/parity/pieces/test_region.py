"""Dice, Jaccard and Tversky losses against segmentation_models_pytorch's."""

import numpy as np
import pytest
import segmentation_models_pytorch.losses as smp
import torch

from kerasvision.losses import DiceLoss, FocalTverskyLoss, JaccardLoss, TverskyLoss
from tests.parity.pieces.compare import check

# (ours, theirs, arguments of both, how many times their smooth ours is)
LOSSES = {
    "DiceLoss": (DiceLoss, smp.DiceLoss, {}, 2),
    "JaccardLoss": (JaccardLoss, smp.JaccardLoss, {}, 1),
    "TverskyLoss": (TverskyLoss, smp.TverskyLoss, {"alpha": 0.2, "beta": 0.9}, 1),
}


def _case(mode, ignore):
    """Return targets and logits, channels last."""
    rng = np.random.default_rng(0)
    if mode == "multiclass":
        truth = rng.integers(0, 3, (2, 5, 6))  # no pixel of class 3
    else:
        truth = rng.integers(0, 2, (2, 5, 6, 1 if mode == "binary" else 4))
    if ignore is not None:
        truth[:, :2, 3] = ignore
    channels = 1 if mode == "binary" else 4
    return [truth, rng.normal(0, 2, (2, 5, 6, channels)).astype(np.float32)]


def _theirs(reference, mode):
    def loss(truth, logits):
        truth = truth if mode == "multiclass" else truth.permute(0, 3, 1, 2)
        return reference(logits.permute(0, 3, 1, 2), truth)

    return loss


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("mode", ["multiclass", "multilabel", "binary"])
@pytest.mark.parametrize(("ignore", "smooth", "log"), [(None, 0.0, False), (255, 1.5, True)])
def test_region_loss_equals_smp(name, mode, ignore, smooth, log):
    ours, theirs, arguments, factor = LOSSES[name]
    reference = theirs(mode, log_loss=log, smooth=smooth, ignore_index=ignore, **arguments)
    loss = ours(mode=mode, log=log, smooth=factor * smooth, ignore_class=ignore, absent="zero", **arguments)
    check(f"losses.{name}", f"smp.losses.{name}", loss, _theirs(reference, mode), _case(mode, ignore))


@pytest.mark.parametrize("name", LOSSES)
def test_region_loss_with_class_weights_equals_smp(name):
    ours, theirs, arguments, _ = LOSSES[name]
    weights = [0.5, 2.0, 0.0, 1.0]
    reference = theirs("multiclass", class_weights=weights, **arguments)
    loss = ours(class_weights=weights, absent="zero", **arguments)
    check(f"losses.{name}", f"smp.losses.{name}", loss, _theirs(reference, "multiclass"), _case("multiclass", None))


@pytest.mark.parametrize("name", LOSSES)
def test_region_loss_of_each_image_equals_smp_of_one_image(name):
    ours, theirs, arguments, _ = LOSSES[name]
    one = _theirs(theirs("multiclass", ignore_index=255, **arguments), "multiclass")
    check(
        f"losses.{name}",
        f"smp.losses.{name}",
        ours(per_image=True, absent="zero", reduction="none", **arguments),
        lambda truth, logits: torch.stack([one(truth[i : i + 1], logits[i : i + 1]) for i in range(2)]),
        _case("multiclass", 255),
    )


@pytest.mark.parametrize("mode", ["multiclass", "multilabel", "binary"])
@pytest.mark.parametrize("gamma", [0.75, 4 / 3])
def test_focal_tversky_of_the_mean_equals_smp(mode, gamma):
    reference = smp.TverskyLoss(mode, alpha=0.3, beta=0.7, gamma=gamma)
    loss = FocalTverskyLoss(mode=mode, gamma=gamma, of_mean=True, ignore_class=None, absent="zero")
    check("losses.FocalTverskyLoss", "smp.losses.TverskyLoss", loss, _theirs(reference, mode), _case(mode, None))


def test_focal_tversky_of_classes_equals_smp_of_one_class():
    def theirs(truth, logits):
        shares = torch.softmax(logits, -1)
        one = smp.TverskyLoss("binary", alpha=0.3, beta=0.7, gamma=0.75, from_logits=False)
        return torch.stack([one(shares[..., c], (truth == c).long()) for c in range(3)]).mean()  # class 3 is absent

    check("losses.FocalTverskyLoss", "smp.losses.TverskyLoss", FocalTverskyLoss(), theirs, _case("multiclass", None))

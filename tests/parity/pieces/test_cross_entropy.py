"""Cross-entropies of masks against torch's, smp's and, for OHEM, HRNet's definition written plainly in torch."""

import numpy as np
import pytest
import segmentation_models_pytorch.losses as smp
import torch
from torch.nn import functional

from kerasvision.losses import CrossEntropyLoss, OHEMCrossEntropyLoss
from kerasvision.losses.cross_entropy import cross_entropy
from tests.parity.pieces.compare import check

WEIGHTS = [0.5, 2.0, 0.1, 1.0]


def _case(ignore=255):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (2, 5, 6))
    truth[:, :2, 3] = ignore
    logits = rng.normal(0, 3, (2, 5, 6, 4)).astype(np.float32)
    logits[0, 0] *= 1000
    return [truth, logits]


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_pixels_equals_torch(weights, smoothing):
    check(
        "losses.cross_entropy",
        "torch.nn.functional.cross_entropy",
        lambda truth, logits: cross_entropy(truth, logits, class_weights=weights, label_smoothing=smoothing),
        lambda truth, logits: functional.cross_entropy(
            logits.permute(0, 3, 1, 2),
            truth,
            weight=weights and torch.tensor(weights),
            ignore_index=255,
            label_smoothing=smoothing,
            reduction="none",
        ),
        _case(),
    )


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_mean_equals_torch(weights):
    check(
        "losses.CrossEntropyLoss",
        "torch.nn.functional.cross_entropy",
        CrossEntropyLoss(class_weights=weights, divide_by_weights=True),
        lambda truth, logits: functional.cross_entropy(
            logits.permute(0, 3, 1, 2), truth, weight=weights and torch.tensor(weights), ignore_index=255
        ),
        _case(),
    )


def test_cross_entropy_of_probabilities_equals_torch():
    truth, logits = _case()
    shares = torch.softmax(torch.from_numpy(np.clip(logits, -5, 5)), -1).numpy()  # none under 1e-7
    check(
        "losses.CrossEntropyLoss",
        "torch.nn.functional.nll_loss",
        CrossEntropyLoss(from_logits=False),
        # Ours divides by the shares' sum, as Keras does: it only matters to the gradient.
        lambda truth, shares: functional.nll_loss(
            torch.log(shares / shares.sum(-1, keepdim=True)).reshape(-1, 4), truth.reshape(-1), ignore_index=255
        ),
        [truth, shares],
    )


def test_cross_entropy_with_smoothing_equals_smp():
    reference = smp.SoftCrossEntropyLoss(smooth_factor=0.2, ignore_index=255, reduction="sum")
    check(
        "losses.CrossEntropyLoss",
        "smp.losses.SoftCrossEntropyLoss",
        CrossEntropyLoss(label_smoothing=0.2, reduction="sum"),
        lambda truth, logits: reference(logits.permute(0, 3, 1, 2), truth),
        _case(),
    )


@pytest.mark.parametrize(("threshold", "kept"), [(0.7, 3), (0.05, 12), (0.0, 7)])
def test_ohem_equals_hrnets_definition(threshold, kept):
    def theirs(truth, logits):
        loss = functional.cross_entropy(logits.permute(0, 3, 1, 2), truth, ignore_index=255, reduction="none")
        counted = truth != 255
        true = torch.softmax(logits, -1).gather(-1, (truth * counted)[..., None])[..., 0][counted]
        limit = max(float(true.detach().sort().values[2 * kept]), threshold)
        return loss[counted][true < limit].mean()

    truth, logits = _case()
    check(
        "losses.OHEMCrossEntropyLoss",
        "HRNet's definition in torch",
        OHEMCrossEntropyLoss(threshold, kept),
        theirs,
        [truth, np.clip(logits, -6, 6)],
    )

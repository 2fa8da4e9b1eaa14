"""Quality focal, distribution focal and varifocal losses against the papers' formulas, written plainly in torch.

There is no reference on PyPI that installs without compiling (mmdet's needs mmcv).
"""

import numpy as np
import pytest
import torch

from kerasvision.losses.focal_quality import distribution_focal_loss, quality_focal_loss, varifocal_loss
from tests.parity.pieces.compare import check


def _qualities_and_logits():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (40, 5)).astype(np.float32)
    qualities = (rng.random(logits.shape) * (rng.random(logits.shape) < 0.4)).astype(np.float32)
    return [qualities, logits]


@pytest.mark.parametrize("beta", [1.0, 2.0, 2.5])
def test_quality_focal_equals_equation_5(beta):
    def theirs(y, x):
        p = torch.sigmoid(x.double())
        return (-((y - p).abs() ** beta) * ((1 - y) * torch.log(1 - p) + y * torch.log(p))).float()

    check(
        "losses.quality_focal_loss",
        "GFL, equation 5, in torch",
        lambda y, x: quality_focal_loss(y, x, beta=beta),
        theirs,
        _qualities_and_logits(),
        differentiate=[1],
    )


@pytest.mark.parametrize(("alpha", "gamma"), [(0.75, 2.0), (0.4, 1.3)])
def test_varifocal_equals_equation_2(alpha, gamma):
    def theirs(q, x):
        p = torch.sigmoid(x.double())
        positive = -q * (q * torch.log(p) + (1 - q) * torch.log(1 - p))
        return torch.where(q > 0, positive, -alpha * p**gamma * torch.log(1 - p)).float()

    check(
        "losses.varifocal_loss",
        "VarifocalNet, equation 2, in torch",
        lambda q, x: varifocal_loss(q, x, alpha=alpha, gamma=gamma),
        theirs,
        _qualities_and_logits(),
        differentiate=[1],
    )


def test_distribution_focal_equals_equation_6():
    rng = np.random.default_rng(1)
    positions = rng.uniform(0, 7, (30, 4)).astype(np.float32)
    positions[0] = [0, 3, 6, 6.5]

    def theirs(y, x):
        log_shares = torch.log_softmax(x, -1)
        left = y.long()
        at = [log_shares.gather(-1, index[..., None])[..., 0] for index in (left, left + 1)]
        return -((left + 1 - y) * at[0] + (y - left) * at[1])

    check(
        "losses.distribution_focal_loss",
        "GFL, equation 6, in torch",
        distribution_focal_loss,
        theirs,
        [positions, rng.normal(0, 2, (30, 4, 8)).astype(np.float32)],
        differentiate=[1],
    )

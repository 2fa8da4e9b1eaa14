"""Focal losses against torchvision's."""

import numpy as np
import pytest
from torchvision.ops import sigmoid_focal_loss as torchvision_focal

from kerasvision.losses.focal import sigmoid_focal_loss
from tests.parity.pieces.compare import check


@pytest.mark.parametrize("alpha", [0.25, 0.6, -1])
@pytest.mark.parametrize("gamma", [0, 0.5, 2, 3])
def test_sigmoid_focal_equals_torchvision(alpha, gamma):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (50, 7)).astype(np.float32)
    logits[0] = 0  # where |x| and max(x, 0) have no slope of their own
    targets = (rng.random(logits.shape) < 0.3).astype(np.float32)
    check(
        "losses.sigmoid_focal_loss",
        "torchvision.ops.sigmoid_focal_loss",
        lambda targets, logits: sigmoid_focal_loss(targets, logits, alpha=alpha, gamma=gamma),
        lambda targets, logits: torchvision_focal(logits, targets, alpha=alpha, gamma=gamma),
        [targets, logits],
        differentiate=[1],
    )

"""Samplers against torchvision's: counts, as it draws its own numbers; hard negatives exactly."""

import numpy as np
import torch
from keras import ops
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from kerasvision.ops.sampling import mine_hard_negatives, sample_balanced
from tests.parity.pieces.compare import check


def test_sample_balanced_chooses_as_many_as_torchvision():
    rng = np.random.default_rng(0)
    for size, fraction, positives in ((64, 0.25, 40), (64, 0.5, 5), (256, 0.25, 100), (7, 0.5, 0), (40, 1.0, 70)):
        labels = np.zeros((2, 200), np.float32)
        labels[:, :positives] = 1
        labels[:, 150:] = -1  # neither
        labels = rng.permuted(labels, axis=1)

        def ours(labels, size=size, fraction=fraction):
            chosen = sample_balanced(labels > 0, labels == 0, size=size, positive_fraction=fraction, seed=0)
            assert not any(ops.any(one & (labels != kind)) for one, kind in zip(chosen, (1, 0), strict=True))
            return [ops.sum(ops.cast(one, "int32"), axis=1) for one in chosen]

        def theirs(labels, size=size, fraction=fraction):
            sampler = BalancedPositiveNegativeSampler(size, fraction)
            return [torch.stack(chosen).sum(1).numpy() for chosen in sampler(list(torch.from_numpy(labels)))]

        check(
            "ops.sampling.sample_balanced",
            "torchvision BalancedPositiveNegativeSampler, counts",
            ours,
            theirs,
            [labels],
            numpy_reference=True,
        )


def test_mine_hard_negatives_equals_torchvision():
    rng = np.random.default_rng(0)
    losses = rng.permuted(np.linspace(0, 9, 600, dtype=np.float32).reshape(3, 200), axis=1)
    positives = np.zeros((3, 200), bool)
    positives[0, :20], positives[1, 50:120] = True, True  # 60 of 180; 210 of the 130 there are; none

    def theirs(losses, positives):
        """Follow SSD.compute_loss, for losses without ties."""
        negative = torch.from_numpy(np.where(positives, -np.inf, losses))
        wanted = 3 * torch.from_numpy(positives).sum(1, keepdim=True)
        _, order = negative.sort(1, descending=True)
        background = order.sort(1)[1] < wanted
        return (background & ~torch.from_numpy(positives)).numpy()

    check(
        "ops.sampling.mine_hard_negatives",
        "torchvision SSD.compute_loss",
        lambda losses, positives: mine_hard_negatives(losses, positives),
        theirs,
        [losses, positives],
        numpy_reference=True,
    )

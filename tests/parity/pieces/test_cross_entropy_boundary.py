"""Boundary weights against distances from scipy, U-Net's weight map against its formula over whole images."""

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from kerasvision.losses import BoundaryCrossEntropyLoss, unet_weight_map
from kerasvision.losses.boundary import boundary_weights
from tests.parity.pieces.compare import check


def _masks():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 3, (2, 4, 5))
    masks = coarse.repeat(7, axis=1).repeat(6, axis=2)
    masks[:, 3:9, 10:13] = 255
    return masks


def _weights(masks, w0, sigma):
    counted = masks != 255
    near = np.zeros(masks.shape, bool)
    for axis in (1, 2):
        for step in (1, -1):
            moved, there = np.roll(masks, step, axis), np.roll(counted, step, axis)
            edge = (moved != masks) & there & counted
            np.moveaxis(edge, axis, 0)[0 if step == 1 else -1] = False  # wrapped around
            near |= edge
    distance = np.stack([ndimage.distance_transform_edt(~image) for image in near])
    return 1 + w0 * np.where(distance <= 4 * sigma, np.exp(-(distance**2) / (2 * sigma**2)), 0)


def test_boundary_weights_equal_those_of_scipys_distances():
    check(
        "losses.boundary_weights",
        "scipy.ndimage.distance_transform_edt",
        lambda masks: boundary_weights(masks, w0=7.0, sigma=2.5),
        lambda masks: _weights(masks, 7.0, 2.5),
        [_masks()],
        numpy_reference=True,
    )


def test_boundary_cross_entropy_equals_weighted_torch():
    masks = _masks()
    logits = np.random.default_rng(1).normal(0, 2, (*masks.shape, 3)).astype(np.float32)
    weights = torch.from_numpy(_weights(masks, 4.0, 2.0).astype(np.float32))

    def theirs(masks, logits):
        loss = functional.cross_entropy(logits.permute(0, 3, 1, 2), masks, ignore_index=255, reduction="none")
        return (loss * weights).sum() / (masks != 255).sum()

    check(
        "losses.BoundaryCrossEntropyLoss",
        "torch.nn.functional.cross_entropy, scipy's distances",
        BoundaryCrossEntropyLoss(4.0, 2.0),
        theirs,
        [masks, logits],
    )


def test_unet_weight_map_equals_equation_2():
    rng = np.random.default_rng(2)
    instances = np.zeros((50, 60), int)
    for number in (3, 7, 8, 20):
        y, x = rng.integers(0, 40, 2)
        instances[y : y + 9, x : x + 12] = number

    def theirs(instances):
        numbers = [n for n in np.unique(instances) if n]
        distances = np.sort([ndimage.distance_transform_edt(instances != n) for n in numbers], axis=0)
        gaps = 10 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * 5**2))
        background = instances == 0
        return np.where(background, 0.5 / background.mean() + gaps, 0.5 / (1 - background.mean()))

    check(
        "losses.unet_weight_map",
        "U-Net, equation 2, with scipy",
        lambda instances: unet_weight_map(np.asarray(instances)),
        theirs,
        [instances],
        numpy_reference=True,
    )

"""RoIAlign, RoIPool and level assignment against torchvision's, values and gradients of the features."""

import numpy as np
import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops import roi_align as torchvision_align
from torchvision.ops import roi_pool as torchvision_pool
from torchvision.ops.poolers import LevelMapper

from kerasvision.ops.roi_align import assign_levels, roi_align
from kerasvision.ops.roi_pool import roi_pool
from tests.parity.pieces.compare import check


def _boxes(seed, batch, count, *, side=100.0, smallest=1.0, largest=60.0):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-0.2 * side, side, (batch, count, 2))
    return np.concatenate([corners, corners + rng.uniform(smallest, largest, corners.shape)], -1).astype(np.float32)


def _features(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _first(channels_last):
    return channels_last.permute(0, 3, 1, 2)


def _theirs(pooled, batch):
    return pooled.permute(0, 2, 3, 1).unflatten(0, (batch, -1))


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [1, 2, None])
@pytest.mark.parametrize("output_size", [7, (2, 3)])
def test_roi_align_equals_torchvision(aligned, sampling_ratio, output_size):
    boxes = _boxes(0, 2, 9)
    boxes[0, 0, 2:] = boxes[0, 0, :2]  # no area
    check(
        "ops.roi_align",
        "torchvision.ops.roi_align",
        lambda features, boxes: roi_align(
            features, boxes, output_size=output_size, strides=8, sampling_ratio=sampling_ratio, aligned=aligned
        ),
        lambda features, boxes: _theirs(
            torchvision_align(_first(features), list(boxes), output_size, 1 / 8, sampling_ratio or -1, aligned), 2
        ),
        [_features(1, 2, 13, 11, 3), boxes],
        differentiate=[0],
    )


def test_roi_align_beside_the_map_equals_torchvision():
    # Corners on cells, on the last one, one beyond it, and outside altogether.
    sides = [(-16, 8), (-8, 8), (80, 88), (88, 104), (96, 120), (0, 0), (200, 240)]
    boxes = np.array([[[x1, y1, x2, y2] for x1, x2 in sides for y1, y2 in sides]], np.float32)
    check(
        "ops.roi_align",
        "torchvision.ops.roi_align",
        lambda features, boxes: roi_align(features, boxes, output_size=2, strides=8),
        lambda features, boxes: _theirs(torchvision_align(_first(features), list(boxes), 2, 1 / 8, 2), 1),
        [_features(2, 1, 12, 12, 2), boxes],
        differentiate=[0],
    )


def test_adaptive_roi_align_over_a_map_of_84_cells_equals_torchvision():
    boxes = np.array([[[0, 0, 84 * 16, 50 * 16], [3, 5, 1300, 790], [100, 200, 180, 290]]], np.float32)
    check(
        "ops.roi_align",
        "torchvision.ops.roi_align",
        lambda features, boxes: roi_align(features, boxes, output_size=7, strides=16, sampling_ratio=None),
        lambda features, boxes: _theirs(torchvision_align(_first(features), list(boxes), 7, 1 / 16), 1),
        [_features(3, 1, 50, 84, 2), boxes],
        differentiate=[0],
    )


@pytest.mark.parametrize("output_size", [7, (2, 3)])
def test_roi_pool_equals_torchvision(output_size):
    check(
        "ops.roi_pool",
        "torchvision.ops.roi_pool",
        lambda features, boxes: roi_pool(features, boxes, output_size=output_size, stride=8),
        lambda features, boxes: _theirs(torchvision_pool(_first(features), list(boxes), output_size, 1 / 8), 2),
        [_features(3, 2, 13, 11, 3), _boxes(4, 2, 9)],
        differentiate=[0],
    )


@pytest.mark.parametrize("sampling_ratio", [2, None])
def test_multi_scale_roi_align_equals_torchvision(sampling_ratio):
    boxes = _boxes(5, 2, 8, side=200, smallest=10, largest=250)
    boxes[0, 0] = (0, 0, 112, 112)  # the smallest of its level
    reference = MultiScaleRoIAlign(["0", "1", "2"], 3, sampling_ratio or -1)
    check(
        "ops.roi_align of a pyramid",
        "torchvision.ops.MultiScaleRoIAlign",
        lambda boxes, *levels: roi_align(
            list(levels), boxes, output_size=3, strides=(8, 16, 32), sampling_ratio=sampling_ratio
        ),
        lambda boxes, *levels: _theirs(
            reference({str(i): _first(level) for i, level in enumerate(levels)}, list(boxes), [(256, 256)] * 2), 2
        ),
        [boxes, *(_features(k, 2, 32 >> k, 32 >> k, 3) for k in range(3))],
        differentiate=[1, 2, 3],
    )


def test_assigned_levels_equal_torchvision():
    boxes = _boxes(6, 1, 300, largest=900)
    powers = 2.0 ** np.arange(3, 11)
    on_limits = np.stack([np.zeros(8), np.zeros(8), 7 * powers, 7 * powers], -1)[None]  # 56, 112, 224 ...
    no_area = np.array([[[3, 3, 3, 9]]])
    mapper = LevelMapper(2, 5)
    check(
        "ops.assign_levels",
        "torchvision LevelMapper",
        lambda boxes: assign_levels(boxes, (4, 8, 16, 32)),
        lambda boxes: torch.stack([mapper([image]) for image in boxes]),
        [np.concatenate([boxes, on_limits, no_area], 1).astype(np.float32)],
        differentiate=[],
    )

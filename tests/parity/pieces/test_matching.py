"""Matchers against torchvision's and effdet's, and against the papers' algorithms written plainly in NumPy."""

import numpy as np
import pytest
import torch
from effdet.object_detection.argmax_matcher import ArgMaxMatcher
from keras import ops
from torchvision.models.detection._utils import Matcher, SSDMatcher
from torchvision.ops import box_iou

from kerasvision.ops.matching import match_atss, match_best_prior, match_by_iou, match_simota, simota_cost
from tests.parity.pieces.compare import check


def _random_boxes(rng, *shape, side=200.0):
    corners = rng.uniform(0, side, (*shape, 2))
    return np.concatenate([corners, corners + rng.uniform(4, side / 2, (*shape, 2))], axis=-1).astype(np.float32)


def _iou(a, b):
    return box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy()


def _overlaps(seed):
    """Return IoUs (12, 300) with ties between anchors, each box overlapping something, and 3 rows of padding."""
    rng = np.random.default_rng(seed)
    iou = _iou(_random_boxes(rng, 12), _random_boxes(rng, 300))
    iou[:, 7] = iou[:, 8]
    padded = np.concatenate([iou, rng.uniform(0, 1, (3, 300)).astype(np.float32)])
    return iou, padded, np.arange(15) < 12


@pytest.mark.parametrize("low_quality", [True, False])
def test_match_by_iou_equals_torchvision(low_quality):
    for seed in range(5):
        iou, padded, valid = _overlaps(seed)
        matcher = Matcher(0.5, 0.4, allow_low_quality_matches=low_quality)
        options = {"foreground_iou": 0.5, "background_iou": 0.4, "force_best": low_quality}
        check(
            "ops.matching.match_by_iou",
            "torchvision Matcher",
            lambda padded, options=options, valid=valid: match_by_iou(padded, valid, **options),
            lambda _, matcher=matcher, iou=iou: matcher(torch.from_numpy(iou)).numpy(),
            [padded],
            numpy_reference=True,
        )


@pytest.mark.parametrize("prefer", ["last", "first"])
def test_match_best_prior_equals_torchvision_and_effdet(prefer):
    for seed in range(5):
        iou, padded, valid = _overlaps(seed)
        iou[3, 11] = iou[4, 11] = padded[3, 11] = padded[4, 11] = 0.99  # both boxes' best

        def torchvision(_, iou=iou):
            return SSDMatcher(0.5)(torch.from_numpy(iou)).numpy()

        def effdet(_, iou=iou):
            matcher = ArgMaxMatcher(0.5, 0.5, negatives_lower_than_unmatched=True, force_match_for_each_row=True)
            return matcher.match(torch.from_numpy(iou)).match_results.numpy()

        check(
            "ops.matching.match_best_prior",
            "torchvision SSDMatcher" if prefer == "last" else "effdet ArgMaxMatcher",
            lambda padded, valid=valid: match_best_prior(padded, valid, prefer=prefer),
            torchvision if prefer == "last" else effdet,
            [padded],
            numpy_reference=True,
        )


def _grid(strides, side):
    """Return centres (A, 2), strides (A,) and the number of cells of each level."""
    centers, sizes = [], []
    for stride in strides:
        middle = np.arange(stride / 2, side, stride, dtype=np.float32)
        y, x = np.meshgrid(middle, middle, indexing="ij")
        centers.append(np.stack([x, y], -1).reshape(-1, 2))
        sizes.append(len(centers[-1]))
    return np.concatenate(centers), np.repeat(np.array(strides, np.float32), sizes), sizes


def _atss(boxes, anchors, level_sizes, k):
    """Follow algorithm 1, box by box."""
    matches, best = np.full(len(anchors), -1), np.full(len(anchors), -1.0)
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    for index, box in enumerate(boxes):
        distances = np.linalg.norm(centers - (box[:2] + box[2:]) / 2, axis=1)
        candidates, start = [], 0
        for size in level_sizes:
            candidates += list(start + np.argsort(distances[start : start + size], kind="stable")[:k])
            start += size
        iou = _iou(box[None], anchors)[0]
        threshold = iou[candidates].mean() + iou[candidates].std(ddof=1)
        for anchor in candidates:
            x, y = centers[anchor]
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            if inside and iou[anchor] >= threshold and iou[anchor] > best[anchor]:
                matches[anchor], best[anchor] = index, iou[anchor]
    return matches


def test_match_atss_equals_the_papers_algorithm():
    rng = np.random.default_rng(0)
    centers, strides, level_sizes = _grid((16, 32, 128), 256)
    anchors = np.concatenate([centers - 4 * strides[:, None], centers + 4 * strides[:, None]], 1)
    boxes, valid = _random_boxes(rng, 2, 10), np.arange(10) < np.array([[10], [6]])
    expected = np.stack([_atss(b[v], anchors, level_sizes, 9) for b, v in zip(boxes, valid, strict=True)])
    assert len(set(expected[0])) > 5
    check(
        "ops.matching.match_atss",
        "Zhang et al. 2020, algorithm 1 in NumPy",
        lambda boxes, anchors: match_atss(boxes, valid, anchors, level_sizes=level_sizes),
        lambda *_: expected,
        [boxes, anchors],
        numpy_reference=True,
    )


def _simota(cost, iou, boxes, centers, strides, candidates=10, radius=2.5):
    """Follow get_assignments of YOLOX, in float64."""
    x, y = centers.T
    inside = (x > boxes[:, :1]) & (x < boxes[:, 2:3]) & (y > boxes[:, 1:2]) & (y < boxes[:, 3:])
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    near = (np.abs(middle[:, None] - centers) < radius * strides[:, None]).all(-1)
    (chosen,) = np.nonzero((inside | near).any(0))
    cost = cost[:, chosen].astype(np.float64) + 1e5 * ~(inside & near)[:, chosen]
    iou = iou[:, chosen].astype(np.float64)
    matching = np.zeros(cost.shape, bool)
    for row in range(len(boxes)):
        amount = max(int(np.sort(iou[row])[::-1][:candidates].sum()), 1)
        matching[row, np.argsort(cost[row], kind="stable")[:amount]] = True
    several = matching.sum(0) > 1
    matching[:, several] = np.arange(len(boxes))[:, None] == cost[:, several].argmin(0)
    matches = np.full(len(centers), -1)
    matches[chosen] = np.where(matching.any(0), matching.argmax(0), -1)
    return matches


def test_match_simota_equals_yoloxs_algorithm():
    rng = np.random.default_rng(0)
    centers, strides, _ = _grid((8, 16, 32), 256)
    boxes, valid = _random_boxes(rng, 2, 9), np.arange(9) < np.array([[9], [5]])
    labels = np.where(valid, rng.integers(0, 4, (2, 9)), -1)
    probabilities = rng.uniform(0, 1, (2, len(centers), 4)).astype(np.float32)
    halves = rng.uniform(8, 80, (2, len(centers), 2))
    predicted = np.concatenate([centers - halves, centers + halves], -1).astype(np.float32)

    costs, ious = [], []
    for image in range(2):
        scores = torch.from_numpy(np.sqrt(probabilities[image]))[None].expand(9, -1, -1)
        wanted = torch.nn.functional.one_hot(torch.from_numpy(np.maximum(labels[image], 0)).long(), 4).float()
        wanted = wanted[:, None].expand(-1, len(centers), -1)
        entropy = torch.nn.functional.binary_cross_entropy(scores, wanted, reduction="none").sum(-1)
        ious.append(_iou(boxes[image], predicted[image]))
        costs.append(entropy.numpy() - 3 * np.log(ious[-1] + 1e-8))
    check(
        "ops.matching.simota_cost",
        "Ge et al. 2021, torch's binary_cross_entropy and torchvision's box_iou",
        lambda labels, boxes, p, predicted: list(simota_cost(labels, boxes, p, predicted)),
        lambda *_: [np.stack(costs), np.stack(ious)],
        [labels, boxes, probabilities, predicted],
        numpy_reference=True,
    )
    expected = np.stack(
        [_simota(costs[i][valid[i]], ious[i][valid[i]], boxes[i][valid[i]], centers, strides) for i in range(2)]
    )
    assert (expected >= 0).sum() > 15
    check(
        "ops.matching.match_simota",
        "Ge et al. 2021, the authors' algorithm in NumPy",
        lambda cost, iou: match_simota(cost, iou, ops.convert_to_tensor(valid), boxes, centers, strides),
        lambda *_: expected,
        [np.stack(costs), np.stack(ious)],
        numpy_reference=True,
    )

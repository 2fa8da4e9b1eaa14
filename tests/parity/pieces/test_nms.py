"""NMS against torchvision's, effdet's and the papers' pseudo-code."""

import numpy as np
import pytest
import torch
from keras import ops
from torchvision.ops import batched_nms, nms

from kerasvision.ops.nms import non_max_suppression
from tests.parity.pieces.compare import check

COUNT = 120


def _candidates(seed, count=COUNT):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 200, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 100, (count, 2))], axis=-1).astype(np.float32)
    return boxes, rng.permutation(np.linspace(0.1, 1, count, dtype=np.float32)), rng


def _ours(boxes, scores, labels=None, **options):
    """Return indices and scores of one image, -1 for padding."""
    labels = None if labels is None else labels[None]
    indices, valid, final = non_max_suppression(boxes[None], scores[None], labels, **options)
    return [ops.where(valid, indices, -1)[0], ops.where(valid, final, -1.0)[0]]


def _padded(indices, scores, count):
    """Return indices and scores padded with -1 to `count`."""
    filling = (0, count - len(indices))
    return [np.pad(indices, filling, constant_values=-1), np.pad(scores, filling, constant_values=-1)]


@pytest.mark.parametrize("exportable", [False, True])
@pytest.mark.parametrize("classes", [None, 5, 91])
@pytest.mark.parametrize("iou_threshold", [0.3, 0.5, 0.7])
def test_greedy_equals_torchvision(iou_threshold, classes, exportable):
    count = 400
    boxes, scores, rng = _candidates(classes or 0, count)
    labels = rng.integers(0, classes or 1, count)

    def theirs(boxes, scores, labels):
        boxes, scores, labels = map(torch.from_numpy, (boxes, scores, labels))
        kept = (
            nms(boxes, scores, iou_threshold) if classes is None else batched_nms(boxes, scores, labels, iou_threshold)
        )
        return _padded(kept[:100].numpy(), scores[kept[:100]].numpy(), 100)

    check(
        f"ops.non_max_suppression greedy{', exportable' if exportable else ''}",
        "torchvision.ops." + ("nms" if classes is None else "batched_nms"),
        lambda boxes, scores, labels: _ours(
            boxes,
            scores,
            None if classes is None else labels,
            iou_threshold=iou_threshold,
            max_detections=100,
            exportable=exportable,
        ),
        theirs,
        [boxes, scores, labels],
        numpy_reference=True,
    )


@pytest.mark.parametrize("exportable", [False, True])
@pytest.mark.parametrize("gaussian", [True, False])
def test_soft_equals_effdet(gaussian, exportable):
    soft_nms = pytest.importorskip("effdet.soft_nms").soft_nms
    boxes, scores, _ = _candidates(1)

    def theirs(boxes, scores):
        kept, final = soft_nms(
            *map(torch.from_numpy, (boxes, scores)),
            method_gaussian=gaussian,
            sigma=0.4,
            iou_threshold=0.3,
            score_threshold=0.05,
        )
        return _padded(kept.numpy(), final.numpy(), COUNT)

    check(
        f"ops.non_max_suppression soft_{'gaussian' if gaussian else 'linear'}",
        "effdet.soft_nms",
        lambda boxes, scores: _ours(
            boxes,
            scores,
            method="soft_gaussian" if gaussian else "soft_linear",
            sigma=0.4,
            iou_threshold=0.3,
            score_threshold=0.05,
            max_detections=COUNT,
            exportable=exportable,
        ),
        theirs,
        [boxes, scores],
        numpy_reference=True,
    )


def _iou(boxes, labels):
    """IoU of all pairs in float64, 0 for two classes."""
    boxes = boxes.astype(np.float64)
    corners = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    shared = np.clip(np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - corners, 0, None).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return shared / (area[:, None] + area[None] - shared) * (labels[:, None] == labels[None])


def _soft_by_the_book(boxes, scores, labels, decay):
    """Bodla et al. 2017, figure 3: take the best, decay the rest, until none is left."""
    iou, scores, left = _iou(boxes, labels), scores.astype(np.float64), list(range(len(scores)))
    kept, final = [], []
    while left:
        best = max(left, key=lambda index: scores[index])
        left.remove(best)
        kept.append(best)
        final.append(scores[best])
        for other in left:
            scores[other] *= decay(iou[best, other])
    return np.array(kept), np.array(final)


def _fast_by_the_book(boxes, scores, labels, iou_threshold):
    """Bolya et al. 2019, section 3.3: sort, upper triangle of the IoU, largest of each column."""
    order = np.argsort(-scores)
    largest = np.triu(_iou(boxes[order], labels[order]), k=1).max(axis=0)
    kept = order[largest <= iou_threshold]
    return kept, scores[kept]


def _matrix_by_the_book(boxes, scores, labels, decay):
    """Wang et al. 2020, equations 3 to 5, box by box."""
    order = np.argsort(-scores)
    iou, final = _iou(boxes[order], labels[order]), scores[order].astype(np.float64)
    for j in range(1, len(order)):
        covered = [max([iou[k, i] for k in range(i)], default=0) for i in range(j)]
        final[j] *= min(decay(iou[i, j]) / decay(covered[i]) for i in range(j))
    ranking = np.argsort(-final, kind="stable")
    return order[ranking], final[ranking]


_BOOK = {
    "soft_linear": (_soft_by_the_book, lambda o: 1 - o if o > 0.4 else 1),
    "soft_gaussian": (_soft_by_the_book, lambda o: np.exp(-(o**2) / 0.6)),
    "fast": (_fast_by_the_book, 0.4),
    "matrix_linear": (_matrix_by_the_book, lambda o: 1 - o),
    "matrix_gaussian": (_matrix_by_the_book, lambda o: np.exp(-(o**2) / 0.6)),
}


@pytest.mark.parametrize("exportable", [False, True])
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("method", _BOOK)
def test_method_equals_the_paper(method, classes, exportable):
    boxes, scores, rng = _candidates(2, 60)
    reference, argument = _BOOK[method]
    check(
        f"ops.non_max_suppression {method}",
        "pseudo-code of the paper",
        lambda boxes, scores, labels: _ours(
            boxes,
            scores,
            labels,
            method=method,
            sigma=0.6,
            iou_threshold=0.4,
            max_detections=60,
            exportable=exportable,
        ),
        lambda boxes, scores, labels: _padded(*reference(boxes, scores, labels, argument), 60),
        [boxes, scores, rng.integers(0, classes, 60)],
        numpy_reference=True,
    )

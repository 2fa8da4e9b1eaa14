"""DETR's set loss against transformers'."""

import numpy as np
import pytest
import torch
from keras import ops
from transformers.loss.loss_for_object_detection import HungarianMatcher, ImageLoss

from kerasvision.losses.set_loss import SetLoss, set_losses
from tests.parity.pieces.compare import check

CLASSES = 5
NAMES = {"classification": "loss_ce", "l1": "loss_bbox", "giou": "loss_giou"}


def _case(counts, layers=2, queries=12, most=14):
    """One shape for all cases, as JAX compiles for each."""
    rng = np.random.default_rng(0)
    labels = np.full((len(counts), most), -1, np.int32)
    true_boxes = np.full((len(counts), most, 4), -1, np.float32)
    for image, count in enumerate(counts):
        labels[image, :count] = rng.integers(0, CLASSES, count)
        true_boxes[image, :count] = rng.uniform(0.1, 0.6, (count, 4))
    lead = (layers, len(counts), queries)
    logits = rng.normal(0, 2, (*lead, CLASSES + 1)).astype(np.float32)
    predicted = rng.uniform(0.1, 0.6, (*lead, 4)).astype(np.float32)
    return labels, true_boxes, logits, predicted


def _theirs(labels, true_boxes, logits, predicted, no_object_weight):
    """Return transformers' losses by name; layers but the last are its auxiliary outputs."""
    matcher = HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    criterion = ImageLoss(matcher, CLASSES, no_object_weight, ["labels", "boxes"])
    targets = [
        {"class_labels": row[row >= 0].long(), "boxes": image[row >= 0]}
        for row, image in zip(labels, true_boxes, strict=True)
    ]
    outputs = [{"logits": one, "pred_boxes": box} for one, box in zip(logits, predicted, strict=True)]
    losses = criterion({**outputs[-1], "auxiliary_outputs": outputs[:-1]}, targets)
    suffixes = [*(f"_{layer}" for layer in range(len(outputs) - 1)), ""]
    return {ours: torch.stack([losses[theirs + end] for end in suffixes]) for ours, theirs in NAMES.items()}


@pytest.mark.parametrize(
    ("counts", "no_object_weight"),
    [((4, 0, 7), 0.1), ((2, 2, 5), 0.4), ((14, 3, 1), 0.1)],  # 14: more boxes than queries
)
def test_set_loss_equals_transformers(counts, no_object_weight):
    labels, true_boxes, logits, predicted = _case(counts)

    def terms(labels, true_boxes, logits, predicted):
        found = set_losses(labels, true_boxes, logits, predicted, no_object_weight=no_object_weight)
        return [ops.sum(found[name], axis=-1) for name in NAMES]

    arrays = [labels, true_boxes, logits, predicted]
    reference = "transformers.loss ImageLoss"
    check(
        "losses.set_loss.set_losses",
        reference,
        terms,
        lambda *values: list(_theirs(*values, no_object_weight).values()),
        arrays,
        differentiate=[2, 3],
    )
    loss = SetLoss(no_object_weight=no_object_weight)

    def total(labels, true_boxes, logits, predicted):
        found = _theirs(labels, true_boxes, logits, predicted, no_object_weight)
        return (found["classification"] + 5 * found["l1"] + 2 * found["giou"]).sum()

    check(
        "losses.SetLoss",
        reference,
        lambda labels, boxes, logits, predicted: loss(
            {"labels": labels, "boxes": boxes}, {"logits": logits, "boxes": predicted}
        ),
        total,
        arrays,
        differentiate=[2, 3],
    )

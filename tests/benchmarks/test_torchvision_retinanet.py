"""What of the peer needs no torch; that both sides agree is asserted in tests/parity."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.peers import torchvision_retinanet as peer


class Tensor:
    """As much of a torch tensor as `agree` uses."""

    def __init__(self, values):
        self.values = np.array(values, np.float32)

    def numpy(self):
        return self.values


def test_overlapping_outputs_of_every_anchor_decode_to_the_box():
    anchors = [np.array([[0, 0, 10, 10]], np.float32), np.array([[50, 20, 90, 100]], np.float32)]
    raw = peer.overlapping_outputs(anchors, 3, (20, 30, 40, 70), classes=1)
    # Centre (30, 50), size (20, 40). First anchor: centre (5, 5), size 10: shift 2.5, 4.5; log 2, log 4.
    np.testing.assert_allclose(raw["deltas"][0][0, 0], [2.5, 4.5, np.log(2), np.log(4)], rtol=1e-6)
    # Second: centre (70, 60), size (40, 80): shift −1, −.125; log ½, log ½.
    np.testing.assert_allclose(raw["deltas"][1][0, 0], [-1, -0.125, -np.log(2), -np.log(2)], rtol=1e-6)
    for logits in raw["logits"]:
        assert (logits[0, :, 0] >= 1).all() and (logits[0, :, 1:] == -12).all()


def test_overlapping_outputs_of_all_classes_gives_each_anchor_one():
    raw = peer.overlapping_outputs([np.tile([[0.0, 0, 8, 8]], (50, 1))], 4, (0, 0, 8, 8), classes=4)
    high = raw["logits"][0][0] > 0
    assert (high.sum(axis=1) == 1).all() and high.any(axis=0).all()


def test_agree_pairs_the_nearest_box_of_the_same_class():
    ours = SimpleNamespace(
        boxes=np.array([[0, 0, 2, 2.5], [5, 5, 6, 6], [50, 50, 60, 60]]),
        scores=np.array([0.9, 0.5, 0.4]),
        labels=np.array([1, 2, 2]),
    )
    # The second and third have swapped places; the last has no partner of its class.
    theirs = {
        "boxes": Tensor([[0, 0, 2, 2], [50, 50, 60, 60], [5, 5, 6, 6], [0, 0, 2, 2]]),
        "scores": Tensor([0.8, 0.5, 0.5, 0.3]),
        "labels": Tensor([1, 2, 2, 3]),
    }
    found = peer.agree(ours, theirs)
    assert (found["ours"], found["theirs"], found["paired"]) == (3, 4, 3)
    assert found["largest_score_difference"] == pytest.approx(0.1)
    assert found["largest_box_difference"] == pytest.approx(0.5)


def test_agree_with_nothing_found():
    nothing = SimpleNamespace(boxes=np.zeros((0, 4)), scores=np.zeros(0), labels=np.zeros(0, int))
    theirs = {"boxes": Tensor([[0, 0, 2, 2]]), "scores": Tensor([0.8]), "labels": Tensor([1])}
    assert peer.agree(nothing, theirs)["paired"] == 0

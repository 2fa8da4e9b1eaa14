"""Timing two sides by turns, and what the peer of segmenters says; tests/parity asserts that both sides agree."""

import sys

import pytest

from benchmarks.peers import torchvision_segmentation as peer
from benchmarks.peers.turns import figures, times_by_turns


def test_by_turns_flips_the_order_each_time():
    order = []
    functions = {name: lambda name=name: order.append(name) or 0.0 for name in "ab"}
    times = times_by_turns(functions, 2, 0.0)
    assert "".join(order) == "aaabbb" + "ba" + "ab"
    assert times == {"a": [0.0, 0.0], "b": [0.0, 0.0]}


def test_figures_are_medians_and_their_ratio():
    found = figures({"ours": [1.0, 9.0, 2.0], "theirs": [4.0, 4.0, 5.0]})
    assert found == {"ours_seconds": 2.0, "theirs_seconds": 4.0, "ratio": 0.5}


def test_text_names_both_measurements():
    row = {"ours_seconds": 0.5, "theirs_seconds": 1.0, "ratio": 0.5}
    result = {
        "model": "fcn_resnet50",
        "image_hw": [520, 520],
        "repeats": 9,
        "end_to_end": row,
        "equal_pixels": 0.999,
        "training_step": {**row, "images": 2, "size_hw": [256, 256]},
        "environment": {"backend": "tensorflow", "precision": "float32", "cpu": "a CPU", "cores": 2},
    }
    text = peer.as_text(result)
    assert "fcn_resnet50 at 520x520, batch 1, 9 runs each by turns" in text
    assert "end to end: ours 0.500 s, torchvision 1.000 s, ratio 0.500" in text
    assert "training step, 2 x 256x256: ours 0.500 s" in text
    assert "99.9000%" in text


def test_too_few_repeats_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["peer", "--repeats", "1"])
    with pytest.raises(SystemExit):
        peer.main()
    assert "--repeats at least 3" in capsys.readouterr().err

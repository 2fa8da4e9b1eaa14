"""Proposals of data sets: kept on disk, moved as boxes are, and padded into batches of every front end."""

import json
from dataclasses import replace

import numpy as np
import pytest

from kerasvision import data
from kerasvision.data import Augmentation, CachedProposals, Sample, SlidingWindows
from kerasvision.data.proposals import pad_proposals
from kerasvision.ops.resizing import ResizeRule


class Counting:
    """Two boxes of fixed places, and how often they were asked for."""

    max_proposals = 3

    def __init__(self, offset=0):
        self.offset, self.calls = offset, 0

    def __call__(self, image):
        self.calls += 1
        height, width = image.shape[:2]
        return np.array([[self.offset, 0, width, height], [2, 1, 4, 3]], np.float32)

    def get_config(self):
        return {"offset": self.offset}


class Grey(data.Dataset):
    """Images of one grey each, with one box."""

    name, tasks, classes = "grey", frozenset({"detection"}), ("a",)

    def __init__(self, count=4, size_hw=(8, 12)):
        self.count, self.size_hw = count, size_hw

    def __len__(self):
        return self.count

    def sample_name(self, index):
        return f"grey {index}"

    def __getitem__(self, index):
        index = self.checked_index(index)
        return Sample(
            self.sample_name(index), np.full((*self.size_hw, 3), index, np.uint8),
            np.array([[2, 1, 4, 3]], np.float32), np.zeros(1, np.int32), np.zeros(1, bool),
        )  # fmt: skip


def _image(value=0):
    return np.full((8, 12, 3), value, np.uint8)


def test_cached_proposals_are_worked_out_once_and_read_by_another_process(tmp_path):
    proposer = Counting()
    expected = proposer(_image())
    for _ in range(2):
        cached = CachedProposals(proposer, tmp_path)
        np.testing.assert_array_equal(cached(_image()), expected)
    assert proposer.calls == 2
    assert CachedProposals(proposer, tmp_path).max_proposals == 3


def test_cached_proposals_tell_pixels_shapes_types_and_arguments_apart(tmp_path):
    cached = CachedProposals(Counting(), tmp_path)
    images = [_image(), _image(1), _image().reshape(12, 8, 3), _image().astype(np.float32)]
    paths = {cached.path(image) for image in images} | {CachedProposals(Counting(1), tmp_path).path(_image())}
    assert len(paths) == 5


@pytest.mark.parametrize("content", [b"", b"no array", b"pickle", b"other"])
def test_cached_proposals_damaged_file_is_replaced(tmp_path, content):
    proposer = Counting()
    cached = CachedProposals(proposer, tmp_path)
    cached(_image())
    path = cached.path(_image())
    if content == b"pickle":
        np.save(path, np.array([{"an": "object"}]), allow_pickle=True)
    elif content == b"other":
        np.save(path, np.zeros((2, 5), np.float32))
    else:
        path.write_bytes(content)
    np.testing.assert_array_equal(cached(_image()), proposer(_image()))
    assert np.load(path, allow_pickle=False).shape == (2, 4)


def test_cached_proposals_lie_in_the_cache_folder_and_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASVISION_HOME", str(tmp_path))
    CachedProposals(Counting())(_image())
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".npy"]
    assert CachedProposals(Counting()).path(_image()).is_relative_to(tmp_path / "proposals")


def test_cached_proposals_fill_goes_on_where_it_was_interrupted(tmp_path):
    proposer, seen = Counting(), []
    cached = CachedProposals(proposer, tmp_path)

    def interrupt(done, total):
        seen.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached.fill(Grey(), progress=interrupt)
    assert seen == [(1, 4), (2, 4)]
    assert cached.fill(Grey(), progress=False) == 2
    assert cached.fill(Grey(), progress=True) == 0
    assert proposer.calls == 4


def test_cached_proposals_without_a_place_to_write_warn_and_go_on(tmp_path):
    (tmp_path / "file").write_text("")
    cached = CachedProposals(Counting(), tmp_path / "file")
    with pytest.warns(UserWarning, match="proposals cannot be kept in .*worked out anew"):
        assert cached(_image()).shape == (2, 4)


def test_pad_proposals_cuts_and_fills():
    padded = pad_proposals([np.ones((3, 4)), np.zeros((0, 4)), None], 2)
    assert padded[0].tolist() == [[1] * 4] * 2
    assert padded[1].tolist() == padded[2].tolist() == [[-1] * 4] * 2


def _pipeline(framework="tf", **options):
    options = {"resize": ResizeRule("stretch", size_hw=(16, 36)), "batch_size": 2, **options}
    return data.pipeline(Grey(), task="detection", framework=framework, **options)


@pytest.mark.parametrize("framework", ["tf", "pydataset"])
def test_pipeline_scales_proposals_and_pads_them(framework):
    (inputs, targets) = next(iter(_pipeline(framework, proposals=Counting())))
    assert set(inputs) == {"images", "proposals"}
    # From 8 x 12 to 16 x 36: x times 3, y times 2.
    expected = [[0, 0, 36, 16], [6, 2, 12, 6], [-1] * 4]
    np.testing.assert_array_equal(np.asarray(inputs["proposals"]), [expected] * 2)
    np.testing.assert_array_equal(np.asarray(targets["boxes"])[0, 0], expected[1])


@pytest.mark.parametrize("framework", ["tf", "pydataset"])
def test_pipeline_with_a_rule_that_pads_has_sizes_too(framework):
    (inputs, _) = next(
        iter(_pipeline(framework, proposals=Counting(), resize=ResizeRule("letterbox", size_hw=(16, 16))))
    )
    assert set(inputs) == {"images", "sizes_hw", "proposals"}
    assert np.asarray(inputs["sizes_hw"]).tolist() == [[11, 16]] * 2
    np.testing.assert_allclose(np.asarray(inputs["proposals"])[0, 0], [0, 0, 16, 11], rtol=1e-6)


def test_pipeline_front_ends_agree_under_augmentation():
    options = {"training": True, "augment": Augmentation(), "proposals": Counting(), "seed": 3}
    batches = [
        [inputs["proposals"] for inputs, _ in _pipeline(framework, **options)] for framework in ("tf", "pydataset")
    ]
    np.testing.assert_array_equal(*(np.stack([np.asarray(part) for part in parts]) for parts in batches))


def test_pipeline_cache_keeps_proposals():
    proposer = Counting()
    batches = _pipeline("pydataset", proposals=proposer, cache=True, workers=0)
    for _ in range(2):
        list(batches)
    assert proposer.calls == 4


def test_pipeline_proposals_of_masks_are_refused():
    scenes = data.load("streets", split="test")
    with pytest.raises(ValueError, match="`proposals` are for task='detection', not 'segmentation'"):
        data.pipeline(scenes, task="segmentation", resize=ResizeRule(), batch_size=1, proposals=Counting())


@pytest.mark.parametrize("seed", range(8))
def test_augmentation_moves_proposals_as_boxes(seed):
    sample = data.load("streets", split="test")[0]
    sample = replace(sample, proposals=sample.boxes.copy())
    moved = Augmentation(min_visible=0)(sample, seed=seed)
    assert {tuple(box) for box in moved.boxes.tolist()} <= {tuple(box) for box in moved.proposals.tolist()}


def test_augmentation_drops_proposals_outside_alone():
    sample = Sample(
        "s", np.zeros((10, 10, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool),
        proposals=np.array([[0, 0, 10, 10], [0, 0, 2, 2], [4, 4, 6, 6], [8, 8, 10, 10]], np.float32),
    )  # fmt: skip
    # Twice as large, so that a quarter of the area is on the canvas.
    moved = Augmentation(flip=False, scale=(2, 2), colour=0)(sample, seed=0)
    assert moved.proposals[0].tolist() == [0, 0, 10, 10]
    assert 1 <= len(moved.proposals) < 4
    assert (moved.proposals[:, 2:] > moved.proposals[:, :2]).all()
    assert Augmentation()(replace(sample, proposals=None), seed=0).proposals is None


def test_proposer_configs_are_json_and_come_back():
    windows = SlidingWindows((8, 16), (1.0,), 0.5, 7)
    assert SlidingWindows.from_config(json.loads(json.dumps(windows.get_config()))) == windows

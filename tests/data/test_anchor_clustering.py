"""k-means of box sizes: clusters that can be seen, by hand, and repeatable."""

import numpy as np
import pytest

from kerasvision import data
from kerasvision.data.anchor_clustering import cluster_anchors, cluster_sizes, size_iou
from kerasvision.data.samples import Dataset, Sample
from kerasvision.ops.resizing import ResizeRule


def test_size_iou_by_hand():
    # 10 x 10 and 5 x 20 share 5 x 10: 50 / 150. And 20 x 20 covers 10 x 10: 100 / 400.
    np.testing.assert_allclose(size_iou(np.array([[10, 10]]), np.array([[5, 20], [20, 20]])), [[1 / 3, 0.25]])


def test_cluster_sizes_by_hand():
    # Means of (10, 20) and (12, 20), and of (100, 50) and (100, 54).
    found = cluster_sizes(np.array([[100, 50], [10, 20], [100, 54], [12, 20]]), 2)
    np.testing.assert_allclose(found.sizes_wh, [[11, 20], [100, 52]])
    np.testing.assert_array_equal(found.counts, [2, 2])
    np.testing.assert_allclose(found.mean_iou, (10 / 11 + 11 / 12 + 50 / 52 + 52 / 54) / 4)


def test_cluster_sizes_finds_clusters_of_unequal_size_and_shape():
    rng = np.random.default_rng(0)
    truth = np.array([[8, 8], [16, 64], [60, 30], [200, 180]])
    sizes = np.concatenate([center * rng.uniform(0.95, 1.05, (60, 2)) for center in truth])
    found = cluster_sizes(rng.permutation(sizes), 4)
    order = np.argsort(truth.prod(1))
    np.testing.assert_allclose(found.sizes_wh, truth[order], rtol=0.02)
    np.testing.assert_array_equal(found.counts, [60] * 4)


def test_cluster_sizes_repeats_with_its_seed():
    sizes = np.random.default_rng(0).uniform(5, 200, (300, 2))
    first, second = (cluster_sizes(sizes, 6, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.sizes_wh, second.sizes_wh)
    assert (np.diff(first.sizes_wh.prod(1)) >= 0).all() and first.counts.sum() == 300


def test_cluster_sizes_rises_with_more_clusters_and_more_starts():
    sizes = np.random.default_rng(0).uniform(5, 200, (300, 2))
    ious = [cluster_sizes(sizes, k).mean_iou for k in (1, 2, 4, 8)]
    assert ious == sorted(ious)
    assert cluster_sizes(sizes, 8, restarts=6).mean_iou >= cluster_sizes(sizes, 8, restarts=1).mean_iou


def test_cluster_sizes_of_one_cluster_is_the_mean():
    np.testing.assert_allclose(cluster_sizes(np.array([[10, 20], [30, 40]]), 1).sizes_wh, [[20, 30]])


def test_cluster_sizes_of_fewer_sizes_than_clusters_repeats_some():
    found = cluster_sizes(np.array([[10, 20]] * 5), 3)
    np.testing.assert_allclose(found.sizes_wh, [[10, 20]] * 3)
    assert found.mean_iou == 1 and found.counts.sum() == 5


def test_cluster_sizes_leaves_out_what_has_no_size():
    found = cluster_sizes(np.array([[10, 20], [0, 5], [-3, 5], [np.nan, 5], [np.inf, 5]]), 1)
    np.testing.assert_allclose(found.sizes_wh, [[10, 20]])
    assert found.counts.sum() == 1


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ([[0, 5]], {"k": 2}, "`sizes_wh` has no box of positive width and height"),
        (np.zeros((0, 2)), {"k": 2}, "`sizes_wh` has no box"),
        ([[1, 5]], {"k": 0}, "`k` 0 must be at least 1"),
        ([[1, 5]], {"k": 1, "restarts": 0}, "`restarts` 0 must be at least 1"),
    ],
)
def test_cluster_sizes_of_wrong_arguments(sizes, options, message):
    with pytest.raises(ValueError, match=message):
        cluster_sizes(np.array(sizes), **options)


def test_by_level_gives_the_smallest_to_the_first():
    found = cluster_sizes(np.array([[100, 50], [10, 20], [30, 40], [5, 5]]), 4)
    assert found.by_level(2) == [[(5, 5), (10, 20)], [(30, 40), (100, 50)]]
    with pytest.raises(ValueError, match="`levels` 3 must divide the number of anchors, 4"):
        found.by_level(3)


class _Two(Dataset):
    """An image of 100 x 200 and one of 50 x 50, each with a box of half its size; one is ignored."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        height, width = ((100, 200), (50, 50))[self.checked_index(index)]
        boxes = np.array([[0, 0, width / 2, height / 2], [0, 0, 1, 1]], np.float32)
        image = np.zeros((height, width, 3), np.uint8)
        return Sample(str(index), image, boxes, np.zeros(2, np.int32), np.array([False, True]))


def test_cluster_anchors_measures_in_the_pixels_of_the_network():
    np.testing.assert_allclose(cluster_anchors(_Two(), 2).sizes_wh, [[25, 25], [100, 50]])
    # Letterboxed to 80 x 80: 40 x 80 and 80 x 80.
    rule = ResizeRule("letterbox", size_hw=(80, 80))
    np.testing.assert_allclose(cluster_anchors(_Two(), 2, resize=rule).sizes_wh, [[40, 20], [40, 40]])


def test_cluster_anchors_of_streets_cover_its_boxes():
    found = cluster_anchors(data.load("streets", split="train", count=8), 6)
    assert found.sizes_wh.shape == (6, 2) and found.mean_iou > 0.6

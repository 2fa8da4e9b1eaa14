import sys

import numpy as np
import pytest

from kerasvision import data
from kerasvision.data.selective_search import Regions, SelectiveSearch, segment
from kerasvision.metrics.proposal_recall import best_overlaps


def _two_squares():
    image = np.full((80, 120, 3), 40, np.uint8)
    image[20:60, 10:50] = (220, 30, 30)
    image[10:40, 70:110] = (30, 200, 60)
    return image


def _row_of_three():
    """Three regions side by side, of 1, 1 and 2 columns, on a 4-pixel-wide image of height 2."""
    labels = np.array([[0, 1, 2, 2], [0, 1, 2, 2]])
    colours = np.zeros((1, 2, 4), np.uint8)
    colours[0, :, 1] = 5
    colours[0, :, 2] = 5
    colours[0, 0, 3] = 5
    colours[0, 1, 3] = 7  # the third region: 3 of 4 pixels in bin 5, one in bin 7
    return Regions.of(labels, colours, np.zeros((8, 2, 4), np.uint8))


def test_regions_boxes_sizes_histograms_and_neighbours_by_hand():
    regions = _row_of_three()
    assert regions.boxes.tolist() == [[0, 0, 1, 2], [1, 0, 2, 2], [2, 0, 4, 2]]
    assert regions.sizes.tolist() == [2, 2, 4]
    assert regions.colours[2, 5] == 0.75 and regions.colours[2, 7] == 0.25
    assert regions.textures[0, ::10].tolist() == [0.125] * 8
    assert regions.neighbours == [{1}, {0, 2}, {1}]


def test_hierarchy_by_colour_merges_the_like_ones_first():
    # Intersections: (0, 1) 0, (1, 2) 0.75. So 1 and 2 merge, then 0 joins them.
    boxes = _row_of_three().hierarchy("C")
    assert boxes.tolist() == [[0, 0, 1, 2], [1, 0, 2, 2], [2, 0, 4, 2], [1, 0, 4, 2], [0, 0, 4, 2]]


def test_hierarchy_by_size_merges_the_small_ones_first():
    # 1 - (2 + 2) / 8 = 0.5 for (0, 1), 1 - (2 + 4) / 8 = 0.25 for (1, 2).
    assert _row_of_three().hierarchy("S")[3].tolist() == [0, 0, 2, 2]


def test_hierarchy_by_fill_avoids_holes():
    # An L of region 0, region 1 in its corner, region 2 beside it: 0 and 1 fill their common box, 1 and 2 do not.
    labels = np.array([[0, 1, 1], [0, 0, 2]])
    regions = Regions.of(labels, np.zeros((1, 2, 3), np.uint8), np.zeros((8, 2, 3), np.uint8))
    # (0, 1): box 3 x 2 = 6, 1 - (6 - 5) / 6 = 0.833; (0, 2): 6, 1 - (6 - 4) / 6 = 0.667; (1, 2): 2 x 2 = 4,
    # 1 - (4 - 3) / 6 = 0.833. Of equals the older pair merges.
    assert regions.hierarchy("F")[3].tolist() == [0, 0, 3, 2]
    assert regions.hierarchy("F").shape == (5, 4)


def test_hierarchy_merged_histogram_is_the_mean_by_size():
    # 0 and 1 alike; both differ from 2 in half of the colours. After (0, 1): sizes 4 and 4.
    labels = np.array([[0, 1, 2], [0, 1, 3]])
    colours = np.array([[[1, 1, 1], [1, 1, 9]]], np.uint8)
    boxes = Regions.of(labels, colours, np.zeros((8, 2, 3), np.uint8)).hierarchy("C")
    # (0, 1) first, being the oldest of the equals (0, 1) and (1, 2), then that with 2, then with 3.
    assert boxes[4:].tolist() == [[0, 0, 2, 2], [0, 0, 3, 2], [0, 0, 3, 2]]


def test_segment_separates_flat_areas():
    image = np.zeros((40, 40, 1), np.float32)
    image[:, 20:] = 200
    labels = segment(image, 100, 10)
    assert labels[5, 5] != labels[5, 35]
    assert (labels[:, :15] == labels[5, 5]).all() and (labels[:, 25:] == labels[5, 35]).all()


@pytest.mark.parametrize("mode", ["fast", "quality"])
def test_selective_search_finds_squares(mode):
    boxes = SelectiveSearch(mode)(_two_squares())
    assert boxes.dtype == np.float32
    assert (best_overlaps([[10, 20, 50, 60], [70, 10, 110, 40]], boxes) > 0.9).all()
    assert [0, 0, 120, 80] in boxes.tolist()
    assert len(np.unique(boxes, axis=0)) == len(boxes)


def test_selective_search_is_deterministic_and_its_seed_shuffles():
    image = data.load("streets", split="test")[0].image
    first = SelectiveSearch(max_proposals=50)(image)
    np.testing.assert_array_equal(first, SelectiveSearch(max_proposals=50)(image))
    np.testing.assert_array_equal(first, SelectiveSearch(max_proposals=50)(image.astype(np.float32)))
    assert not np.array_equal(first, SelectiveSearch(max_proposals=50, seed=1)(image))
    np.testing.assert_array_equal(first, SelectiveSearch(max_proposals=2000)(image)[:50])  # best first


def test_selective_search_recall_on_streets_is_at_least_nine_tenths():
    scenes = data.load("streets", split="test")
    overlaps = np.concatenate(
        [best_overlaps(s.boxes[~s.ignored], SelectiveSearch()(s.image)) for s in (scenes[i] for i in range(4))]
    )
    assert len(overlaps) > 20
    assert (overlaps >= 0.5).mean() >= 0.9


def test_selective_search_of_a_large_image_is_in_its_own_pixels():
    image = np.repeat(np.repeat(_two_squares(), 10, axis=0), 10, axis=1)  # 800 x 1200, searched at 333 x 500
    boxes = SelectiveSearch()(image)
    assert best_overlaps([[100, 200, 500, 600]], boxes)[0] > 0.9
    assert boxes.max() == 1200


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 40), (3, 2), (31, 57)])
def test_selective_search_of_a_small_or_plain_image_gives_the_whole(size_hw):
    height, width = size_hw
    assert SelectiveSearch()(np.full((*size_hw, 3), 7, np.uint8)).tolist() == [[0, 0, width, height]]


def test_selective_search_min_size_leaves_out_thin_boxes():
    boxes = SelectiveSearch(min_size=30)(_two_squares())
    assert (boxes[:, 2:] - boxes[:, :2] >= 30).all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mode": "slow"}, "`mode` 'slow' is unknown; use 'fast' or 'quality'"),
        ({"max_proposals": 0}, "`max_proposals` 0 must be a whole number of at least 1"),
        ({"longest": 1.5}, "`longest` 1.5 must be"),
        ({"min_region": 1}, "`min_region` 1 must be above 0 and below 1"),
        ({"min_size": -1}, "`min_size` -1 must not be negative"),
        ({"seed": -1}, "`seed` -1 must not be negative"),
    ],
)
def test_selective_search_bad_argument_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        SelectiveSearch(**options)


def test_selective_search_refuses_what_is_no_image():
    with pytest.raises(ValueError, match=r"`image` of shape \(4, 4\) must be \(height, width, 3\)"):
        SelectiveSearch()(np.zeros((4, 4)))
    with pytest.raises(ValueError, match="`image` holds NaN"):
        SelectiveSearch()(np.full((4, 4, 3), np.nan))


def test_selective_search_without_scikit_image_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(ImportError, match="pip install scikit-image"):
        SelectiveSearch()(_two_squares())


def test_selective_search_config_comes_back():
    search = SelectiveSearch("quality", 7, 300, 1e-3, 3.0, 4)
    assert SelectiveSearch(**search.get_config()) == search


def test_best_overlaps_by_hand_skips_padding():
    boxes = [[0, 0, 10, 10], [20, 0, 30, 10]]
    # The first: 50 / 100 with its own half; the second: 5 x 10 / (100 + 100 - 50) = 1/3.
    proposals = [[0, 0, 5, 10], [25, 0, 35, 10], [-1, -1, -1, -1]]
    np.testing.assert_allclose(best_overlaps(boxes, proposals), [0.5, 1 / 3], rtol=1e-6)
    assert best_overlaps(boxes, np.zeros((0, 4))).tolist() == [0, 0]
    assert best_overlaps([], proposals).shape == (0,)

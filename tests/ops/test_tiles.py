"""Windows over an image: where they lie, what they count, and that they add up, by hand."""

import itertools

import numpy as np
import pytest

from kerasvision.ops import tiles as tiling
from kerasvision.ops.tiles import Tiles, count_windows, join_windows, mirrored, read_window


def limits(spans):
    return [(span.start, span.stop) for span in spans]


def counted(spans):
    return [(span.first, span.last) for span in spans]


def test_spans_step_by_size_less_overlap_and_end_at_the_image():
    # Step 96, of which 32 is the largest common divisor with 32: 300 - 128 = 172 becomes 192, 108 pixels to the end.
    assert limits(Tiles(128, overlap=32).spans(300, 0)) == [(0, 128), (96, 224), (192, 300)]
    # Step 3: nothing to keep in step with but 1, so that the last window has its full size.
    assert limits(Tiles(5, overlap=2).spans(9, 0)) == [(0, 5), (3, 8), (4, 9)]
    assert limits(Tiles(5, overlap=2).spans(5, 0)) == [(0, 5)]
    assert limits(Tiles(5, overlap=2).spans(1, 0)) == [(0, 1)]


def test_spans_have_a_size_and_overlap_for_each_axis():
    tiles = Tiles((4, 6), overlap=(0, 2))
    assert limits(tiles.spans(8, 0)) == [(0, 4), (4, 8)]
    assert limits(tiles.spans(8, 1)) == [(0, 6), (4, 8)]  # step 4: the last window starts at its multiple


def test_average_weights_are_one_over_the_windows_there():
    first, second = Tiles(4, overlap=2, mode="average").spans(6, 0)
    np.testing.assert_array_equal(first.weights, [1, 1, 0.5, 0.5])
    np.testing.assert_array_equal(second.weights, [0.5, 0.5, 1, 1])


def test_linear_weights_fall_towards_the_neighbour_only():
    first, second = Tiles(5, overlap=3).spans(7, 0)
    # Over 3 shared pixels: 3/4, 2/4, 1/4 and 1/4, 2/4, 3/4; full at the image's borders.
    np.testing.assert_allclose(first.weights, [1, 1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(second.weights, [0.25, 0.5, 0.75, 1, 1])


def test_centre_counts_up_to_the_middle_of_what_is_shared():
    spans = Tiles(8, overlap=4, mode="centre").spans(16, 0)
    assert limits(spans) == [(0, 8), (4, 12), (8, 16)]
    assert counted(spans) == [(0, 6), (6, 10), (10, 16)]
    assert all((span.weights == 1).all() for span in spans)


def test_mirrored_windows_are_all_whole_and_keep_their_centres():
    # The paper's: 388 of 572 pixels are kept, 92 from each border.
    spans = Tiles(572, overlap=184, mode="centre", mirror=True).spans(512, 0)
    assert limits(spans) == [(-92, 480), (296, 868)]
    assert counted(spans) == [(0, 388), (388, 512)]
    assert Tiles(572, overlap=184, mode="centre", mirror=True).margins_hw == (92, 92)
    assert Tiles(572, overlap=184, mode="centre").margins_hw == (0, 0)


@pytest.mark.parametrize("mode", ["linear", "average", "centre"])
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("size, overlap", [(1, 0), (4, 3), (7, 2), (16, 15), (64, 32)])
def test_weights_add_up_to_one_at_every_pixel(mode, mirror, size, overlap):
    for length in (1, 2, 5, 16, 63, 64, 65, 200):
        spans, total = Tiles(size, overlap=overlap, mode=mode, mirror=mirror).spans(length, 0), np.zeros(length)
        for span in spans:
            assert span.start <= span.first < span.last <= span.stop
            total[span.first : span.last] += span.weights
        np.testing.assert_allclose(total, 1, atol=1e-6)
        if mirror:
            assert {span.stop - span.start for span in spans} == {size}


def test_mirrored_places_turn_back_at_the_border_pixel():
    assert mirrored(np.arange(-4, 8), 4).tolist() == [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
    assert mirrored(np.arange(-2, 3), 1).tolist() == [0] * 5


def test_read_window_outside_the_image_equals_numpys_reflection():
    image = np.random.default_rng(0).integers(0, 255, (5, 9, 3), np.uint8)
    padded = np.pad(image, ((6, 6), (6, 6), (0, 0)), mode="reflect")
    tiles = Tiles(7, overlap=4, mode="centre", mirror=True)
    for row, column in itertools.product(tiles.spans(5, 0), tiles.spans(9, 1)):
        expected = padded[row.start + 6 : row.stop + 6, column.start + 6 : column.stop + 6]
        np.testing.assert_array_equal(read_window(image, row, column), expected)


@pytest.mark.parametrize("budget", [1, 4000, 2**28])
@pytest.mark.parametrize(
    "tiles",
    [
        Tiles(16, overlap=4),
        Tiles(16, overlap=10, mode="average"),
        Tiles((16, 24), overlap=(6, 4), mode="centre"),
        Tiles(16, overlap=6, mode="centre", mirror=True),
    ],
)
def test_joined_windows_of_an_image_are_the_image_in_bands_of_any_width(tiles, budget, monkeypatch):
    monkeypatch.setattr(tiling, "OPEN_BYTES", budget)
    image = np.random.default_rng(0).normal(size=(37, 101, 3)).astype(np.float32)
    joined, asked = np.full(image.shape, np.nan, np.float32), 0

    def values_of(windows):
        nonlocal asked
        for window in windows:
            asked += 1
            yield read_window(image, *window)

    for rows, columns, values in join_windows(image.shape[:2], tiles, 3, values_of):
        assert np.isnan(joined[rows, columns]).all()  # every pixel is given out once
        joined[rows, columns] = values
    np.testing.assert_allclose(joined, image, atol=1e-5)
    assert asked == count_windows(image.shape[:2], tiles, 3)


def test_open_sums_do_not_grow_with_the_image(monkeypatch):
    monkeypatch.setattr(tiling, "OPEN_BYTES", 16 * 64 * 3 * 4)  # 16 rows of 64 columns with 3 channels
    for size_hw in [(40, 100), (400, 1000)]:
        held = set()
        for _, columns, values in join_windows(
            size_hw, Tiles(16, overlap=4), 3, lambda w: [np.zeros((16, 16, 3))] * len(w)
        ):
            held.add(columns.stop - columns.start)
            assert values.base is not None and values.base.nbytes <= 16 * 64 * 3 * 4
        assert max(held) <= 64


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"size_hw": 0}, "`size_hw` 0 must be a whole number, or two as .height, width., of at least 1"),
        ({"size_hw": (3, 4, 5)}, "`size_hw` .3, 4, 5. must be"),
        ({"size_hw": 4.5}, "`size_hw` 4.5 must be a whole number"),
        ({"overlap": -1}, "`overlap` -1 must be"),
        ({"size_hw": 64, "overlap": 64}, r"`overlap` \(64, 64\) must be below `size_hw` \(64, 64\)"),
        ({"mode": "center"}, "`mode` 'center' is unknown; use 'linear', 'average' or 'centre'"),
    ],
)
def test_tiles_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Tiles(**arguments)

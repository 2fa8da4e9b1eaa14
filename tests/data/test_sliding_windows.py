import numpy as np
import pytest

from kerasvision.data import SlidingWindows


def test_sliding_windows_by_hand():
    # Squares of 4 moved by half of that over 6 x 8 pixels: 0 and 2 downwards, 0, 2 and 4 to the right.
    boxes = SlidingWindows((4,), (1.0,), 0.5)(np.zeros((6, 8, 3)))
    assert boxes.tolist() == [
        [0, 0, 8, 6],
        [0, 0, 4, 4], [2, 0, 6, 4], [4, 0, 8, 4],
        [0, 2, 4, 6], [2, 2, 6, 6], [4, 2, 8, 6],
    ]  # fmt: skip


def test_sliding_windows_last_one_ends_at_the_edge():
    boxes = SlidingWindows((4,), (1.0,), 0.75)(np.zeros((4, 9, 3)))
    assert boxes[1:, 0].tolist() == [0, 3, 5]


def test_sliding_windows_aspect_ratio_is_height_by_width():
    # Area 16 at ratio 4: 8 high, 2 wide.
    assert SlidingWindows((4,), (4.0,), 1.0)(np.zeros((8, 2, 3))).tolist() == [[0, 0, 2, 8], [0, 0, 2, 8]]


def test_sliding_windows_larger_than_the_image_are_left_out():
    assert SlidingWindows((64,))(np.zeros((10, 20, 3))).tolist() == [[0, 0, 20, 10]]


def test_sliding_windows_max_proposals_takes_them_at_equal_distances():
    everything = SlidingWindows()(np.zeros((128, 128, 3)))
    some = SlidingWindows(max_proposals=5)(np.zeros((128, 128, 3)))
    assert some.tolist() == everything[np.linspace(0, len(everything) - 1, 5).astype(int)].tolist()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sizes": ()}, r"`sizes` \(\) must be one or more numbers above 0"),
        ({"aspect_ratios": (0, 1)}, r"`aspect_ratios` \(0, 1\) must be"),
        ({"step": 0}, "`step` 0 must be above 0"),
        ({"max_proposals": 0}, "`max_proposals` 0 must be a whole number"),
    ],
)
def test_sliding_windows_bad_argument_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        SlidingWindows(**options)

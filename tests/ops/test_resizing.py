"""Resize rules: sizes by hand, pixels by what they must keep."""

import json

import numpy as np
import pytest

from kerasvision.ops.resizing import ResizeRule


@pytest.mark.parametrize(
    ("rule", "size", "scaled", "canvas"),
    [
        (ResizeRule(), (37, 53), (37, 53), (37, 53)),
        (ResizeRule("stretch", size_hw=(20, 30)), (37, 53), (20, 30), (20, 30)),
        # 800 / 480 = 1.667; 640 * 1.667 = 1066.67, floored.
        (ResizeRule("shortest_side", shortest=800, longest=1333), (480, 640), (800, 1066), (800, 1066)),
        # 1333 / 1000 = 1.333 is under 800 / 400 = 2: 400 * 1.333 = 533.2.
        (ResizeRule("shortest_side", shortest=800, longest=1333), (400, 1000), (533, 1333), (533, 1333)),
        (ResizeRule("shortest_side", shortest=800), (400, 1000), (800, 2000), (800, 2000)),
        # min(100 / 50, 100 / 200) = 0.5.
        (ResizeRule("letterbox", size_hw=(100, 100)), (50, 200), (25, 100), (100, 100)),
        # min(256 / 375, 384 / 500) = 0.6827; 500 * 0.6827 = 341.33.
        (ResizeRule("letterbox", size_hw=(256, 384)), (375, 500), (256, 341), (256, 384)),
        # A line of 1 x 1000 would become 0.1 pixels high.
        (ResizeRule("letterbox", size_hw=(100, 100)), (1, 1000), (1, 100), (100, 100)),
        (ResizeRule("shortest_side", shortest=8, longest=16), (1, 1000), (1, 16), (1, 16)),
    ],
)
def test_resize_rule_sizes_by_hand(rule, size, scaled, canvas):
    assert rule.scaled_hw(*size) == scaled
    assert rule.canvas_hw(*size) == canvas
    assert rule.apply(np.zeros((*size, 3), np.uint8)).shape == (*scaled, 3)
    assert rule.apply_to_mask(np.zeros(size, np.uint8)).shape == scaled


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7), (123, 457), (2048, 1024)])
def test_resize_rule_letterbox_fits_its_canvas_and_touches_two_edges(size):
    rule = ResizeRule("letterbox", size_hw=(96, 160))
    height, width = rule.scaled_hw(*size)
    assert 1 <= height <= 96 and 1 <= width <= 160
    assert height == 96 or width == 160


def test_resize_rule_apply_interpolates_between_pixel_centres():
    image = np.array([[0, 100]], np.uint8)
    # Output centres at 0.25, 0.75, 1.25, 1.75 of input pixels with centres 0.5 and 1.5: 0, 25, 75, 100.
    found = ResizeRule("stretch", size_hw=(1, 4)).apply(image)
    np.testing.assert_allclose(found, [[0, 25, 75, 100]], atol=1e-4)
    assert found.dtype == np.float32


def test_resize_rule_antialias_weighs_by_a_triangle_as_wide_as_the_shrinking():
    image = np.zeros((8, 8), np.float32)
    image[::4, ::4] = 160
    found = ResizeRule("stretch", size_hw=(2, 2), antialias=True).apply(image)
    # Output 0 is centred at 2: pixels 0 to 5, with centres 0.5 to 5.5, weigh 1 - |c - 2| / 4 = 5/8, 7/8, 7/8, 5/8, 3/8,
    # 1/8, 3.5 in all. Pixels 0 and 4 have (5/8 + 3/8) / 3.5 = 2/7 of it; in output 1, centred at 6, pixel 4 has
    # 5/8 / 3.5 = 5/28.
    rows = np.array([2 / 7, 5 / 28])
    np.testing.assert_allclose(found, 160 * np.outer(rows, rows), rtol=1e-5)
    # Without, output centres lie at 2 and 6, between pixels 1-2 and 5-6, which are all 0.
    np.testing.assert_array_equal(ResizeRule("stretch", size_hw=(2, 2)).apply(image), np.zeros((2, 2)))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_resize_rule_antialias_treats_the_channels_of_all_types_alike(dtype):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(dtype)
    rule = ResizeRule("shortest_side", shortest=15, antialias=True)
    found = rule.apply(image)
    assert found.shape == (15, 22, 3) and found.dtype == np.float32
    expected = np.stack([rule.apply(image[:, :, channel]) for channel in range(3)], axis=-1)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(found, rule.apply(image.astype(np.float32)), atol=1.01)  # rounded twice, for uint8


def test_resize_rule_apply_of_the_right_size_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    found = ResizeRule("stretch", size_hw=(9, 11)).apply(image)
    np.testing.assert_array_equal(found, image)
    assert found.dtype == np.float32


def test_resize_rule_apply_to_mask_invents_no_class():
    mask = np.random.default_rng(0).choice(np.array([0, 3, 255], np.uint8), (31, 17))
    found = ResizeRule("stretch", size_hw=(64, 40)).apply_to_mask(mask)
    assert found.dtype == np.uint8 and set(np.unique(found)) == {0, 3, 255}
    doubled = ResizeRule("stretch", size_hw=(62, 34)).apply_to_mask(mask)
    np.testing.assert_array_equal(doubled, mask.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize(
    "rule",
    [
        ResizeRule("letterbox", size_hw=(256, 384), antialias=True),
        ResizeRule("shortest_side", shortest=800, longest=1333),
        ResizeRule(),
    ],
)
def test_resize_rule_survives_json(rule):
    assert ResizeRule(**json.loads(json.dumps(rule.get_config()))) == rule


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "squeeze"}, "`mode` 'squeeze' is unknown; use 'none', 'stretch'"),
        ({"mode": "stretch"}, "`size_hw` None must be .height, width. in pixels"),
        ({"mode": "letterbox", "size_hw": (0, 5)}, r"`size_hw` \(0, 5\) must be"),
        ({"mode": "shortest_side"}, "`shortest` None must be a positive number"),
        ({"mode": "shortest_side", "shortest": 0}, "`shortest` 0 must be a positive number"),
        ({"mode": "shortest_side", "shortest": 8, "longest": 0}, "`longest` 0 must be a positive number"),
    ],
)
def test_resize_rule_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ResizeRule(**options)

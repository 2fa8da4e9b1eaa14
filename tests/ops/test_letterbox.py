"""Boxes of letterboxed images: by hand, beside `ResizeRule`, and there and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerasvision.ops.letterbox import letterbox_boxes, letterbox_size, unletterbox_boxes
from kerasvision.ops.resizing import ResizeRule


def _numpy(tensor):
    return ops.convert_to_numpy(tensor)


@pytest.mark.parametrize("canvas", [(256, 384), (333, 1000), (512, 512)])
def test_letterbox_size_is_that_of_the_resize_rule(canvas):
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 3000, (2000, 2), np.int32)
    sizes = np.concatenate([sizes, [[11, 880], [55, 880], [22, 512], [46, 512], [1, 3000], [3000, 1], [32767, 32767]]])
    rule = ResizeRule("letterbox", size_hw=canvas)
    found = _numpy(letterbox_size(sizes.astype(np.int32), canvas))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, [rule.scaled_hw(int(h), int(w)) for h, w in sizes])


def test_letterbox_size_of_one_image_rounds_halves_to_even():
    # 22 * 384 / 512 = 16.5 and 46 * 384 / 512 = 34.5: 16 and 34.
    np.testing.assert_array_equal(_numpy(letterbox_size((22, 512), (256, 384))), [16, 384])
    np.testing.assert_array_equal(_numpy(letterbox_size((46, 512), (256, 384))), [34, 384])


def test_letterbox_boxes_by_hand():
    # 50 x 100 in 100 x 100: 1 : 1, with 50 rows left below. 200 x 100: half, with 50 columns left to the right.
    sizes = np.array([[50, 100], [200, 100]], np.int32)
    given_boxes = np.array([[[0, 0, 100, 50]], [[10, 20, 100, 200]]], np.float32)
    found = _numpy(letterbox_boxes(given_boxes, sizes, (100, 100)))
    np.testing.assert_allclose(found, [[[0, 0, 100, 50]], [[5, 10, 50, 100]]])
    centered = _numpy(letterbox_boxes(given_boxes, sizes, (100, 100), centered=True))
    np.testing.assert_allclose(centered, [[[0, 25, 100, 75]], [[30, 10, 75, 100]]])


def test_letterbox_boxes_scale_each_axis_by_what_rounding_left():
    # 7 x 100 to 64 x 64: 4.48 rows become 4, so y is scaled by 4 / 7 and x by 0.64.
    found = _numpy(letterbox_boxes(np.array([[0, 0, 100, 7]], np.float32), (7, 100), (64, 64)))
    np.testing.assert_allclose(found, [[0, 0, 64, 4]], rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_unletterbox_boxes_takes_boxes_back(seed, centered):
    rng = np.random.default_rng(seed)
    sizes, canvas = rng.integers(10, 2000, (4, 2), np.int32), tuple(rng.integers(32, 1400, 2).tolist())
    corners = rng.uniform(0, 1, (4, 3, 4)) * sizes[:, None, [1, 0, 1, 0]]
    wanted = np.concatenate([corners, np.full((4, 1, 4), -1)], axis=1).astype(np.float32)
    there = letterbox_boxes(wanted, sizes, canvas, centered=centered)
    inside = _numpy(there)[:, :3]
    assert inside.min() >= -1e-3 and (inside <= np.array(canvas)[[1, 0, 1, 0]] + 1e-3).all()
    back = _numpy(unletterbox_boxes(there, sizes, canvas, centered=centered))
    # The canvas' rounding error of 1e-4 pixels, magnified as much as the image was shrunk.
    np.testing.assert_allclose(back, wanted, atol=1e-4 * max(1, (sizes / np.array(canvas)).max()) + 1e-3)


def test_letterbox_boxes_of_none_are_none_and_nan_stays():
    assert _numpy(letterbox_boxes(np.zeros((2, 0, 4), np.float32), (30, 40), (64, 64))).shape == (2, 0, 4)
    nan = np.array([[np.nan, 0, 10, 10]], np.float32)
    np.testing.assert_array_equal(np.isnan(_numpy(letterbox_boxes(nan, (30, 40), (64, 64)))), np.isnan(nan))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_letterbox_boxes_of_half_precision_are_float32(dtype):
    found = letterbox_boxes(ops.cast(np.ones((1, 1, 4)), dtype), np.array([[1000, 1000]]), (3000, 3000))
    np.testing.assert_array_equal(_numpy(found), np.full((1, 1, 4), 3, np.float32))


@pytest.mark.parametrize("function", [letterbox_boxes, unletterbox_boxes])
def test_sizes_below_1_are_named_and_count_as_1_in_tensors(function):
    boxes = np.array([[1, 2, 3, 4]], np.float32)
    with pytest.raises(ValueError, match=r"`sizes_hw` \(0, 5\) must be heights and widths of 1 pixel or more"):
        function(boxes, (0, 5), (10, 10))
    with pytest.raises(ValueError, match="`sizes_hw`"):
        function(boxes[None], np.array([[5, 0]]), (10, 10))
    with pytest.raises(ValueError, match=r"`canvas_hw` \(10, 0\) must be"):
        function(boxes, (5, 5), (10, 0))
    found = _numpy(function(boxes, ops.convert_to_tensor(np.array([0, 5], np.int32)), (10, 10)))
    np.testing.assert_array_equal(found, _numpy(function(boxes, (1, 5), (10, 10))))

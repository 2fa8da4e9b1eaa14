"""Anchors against values worked out by hand (the cells as Detectron2's own test has them)."""

import math

import numpy as np
import pytest
from keras import ops

from kerasvision.ops.anchors import (
    cell_anchors,
    decode_yolo,
    default_box_cells,
    default_box_scales,
    grid_anchors,
    octave_cells,
    prior_cells,
)


def test_cell_anchors_by_hand():
    found = cell_anchors([32, 64], [0.25, 1.0, 4.0], rounded=False)
    # Height = size * sqrt(ratio), width = size / sqrt(ratio); ratio 0.25: 16 x 64 and 32 x 128 (h x w).
    expected = [
        [-32, -8, 32, 8],
        [-64, -16, 64, 16],
        [-16, -16, 16, 16],
        [-32, -32, 32, 32],
        [-8, -32, 8, 32],
        [-16, -64, 16, 64],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32


def test_cell_anchors_rounded_to_whole_pixels():
    # 32 / sqrt(0.5) = 45.25 wide, 22.63 high; halves 22.63 and 11.31.
    np.testing.assert_array_equal(cell_anchors([32], [0.5]), [[-23, -11, 23, 11]])
    plain = cell_anchors([32], [0.5], rounded=False)
    np.testing.assert_allclose(plain, [[-22.627417, -11.313708, 22.627417, 11.313708]])


def test_cell_anchors_halves_round_to_even_as_torch_does():
    # Size 5: halves of 2.5 round to 2; size 7: 3.5 rounds to 4.
    np.testing.assert_array_equal(cell_anchors([5, 7], [1.0]), [[-2, -2, 2, 2], [-4, -4, 4, 4]])


def test_cell_anchors_keep_the_area_for_every_ratio():
    anchors = cell_anchors([10, 30], [0.3, 1.0, 2.7], rounded=False)
    areas = (anchors[:, 2] - anchors[:, 0]) * (anchors[:, 3] - anchors[:, 1])
    np.testing.assert_allclose(areas, [100, 900] * 3, rtol=1e-5)


def test_grid_anchors_row_by_row_with_all_anchors_of_a_cell_together():
    cell = np.array([[-1, -1, 1, 1], [-2, -1, 2, 1]], np.float32)
    found = ops.convert_to_numpy(grid_anchors((2, 3), (10, 4), cell))
    # Cells at (x, y): (0, 0) (4, 0) (8, 0) (0, 10) (4, 10) (8, 10).
    expected = [
        [-1, -1, 1, 1],
        [-2, -1, 2, 1],
        [3, -1, 5, 1],
        [2, -1, 6, 1],
        [7, -1, 9, 1],
        [6, -1, 10, 1],
        [-1, 9, 1, 11],
        [-2, 9, 2, 11],
        [3, 9, 5, 11],
        [2, 9, 6, 11],
        [7, 9, 9, 11],
        [6, 9, 10, 11],
    ]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("grid", [(0, 3), (3, 0)])
def test_grid_anchors_of_an_empty_grid_are_none(grid):
    assert ops.convert_to_numpy(grid_anchors(grid, (8, 8), np.zeros((3, 4), np.float32))).shape == (0, 4)


def test_grid_anchors_in_the_centres_of_cells():
    found = ops.convert_to_numpy(grid_anchors((1, 2), (10, 4), prior_cells([[2, 6]]), offset=0.5))
    # Centres (2, 5) and (6, 5), 2 wide and 6 high.
    np.testing.assert_array_equal(found, [[1, 2, 3, 8], [5, 2, 7, 8]])


def test_octave_cells_by_hand():
    found = octave_cells(octaves=2, aspect_ratios=((1.0, 1.0), (1.4, 0.7)), anchor_scale=4.0)
    # Sizes 4 and 4 sqrt 2; the second shape 1.4 x wide and 0.7 x high. Halves:
    root = 2 * math.sqrt(2)
    halves = [[2, 2], [2.8, 1.4], [root, root], [1.4 * root, 0.7 * root]]
    np.testing.assert_allclose(found, [[-x, -y, x, y] for x, y in halves], rtol=1e-6)


def test_octave_cells_of_single_numbers_are_width_by_height():
    # Ratio 4: sqrt 4 wide and 1 / sqrt 4 high.
    np.testing.assert_allclose(octave_cells(1, (4.0,), 2.0), [[-2, -0.5, 2, 0.5]])


def test_default_box_scales_by_hand():
    np.testing.assert_allclose(default_box_scales(3, 0.2, 0.9), [0.2, 0.55, 0.9, 1.0])
    assert default_box_scales(1, 0.2, 0.9) == (0.2, 0.9)


def test_default_box_cells_by_hand():
    (found,) = default_box_cells([0.4, 0.9], [[4]])
    # Squares of 0.4 and sqrt(0.36) = 0.6, then 0.8 x 0.2 and 0.2 x 0.8. Halves:
    halves = [[0.2, 0.2], [0.3, 0.3], [0.4, 0.1], [0.1, 0.4]]
    np.testing.assert_allclose(found, [[-x, -y, x, y] for x, y in halves], rtol=1e-6)


def test_default_box_cells_are_cut_to_the_image_unless_told_otherwise():
    # 0.8 sqrt 4 = 1.6 wide: cut to 1.
    np.testing.assert_allclose(default_box_cells([0.8, 0.8], [[4]])[0][2], [-0.5, -0.2, 0.5, 0.2], rtol=1e-6)
    whole = default_box_cells([0.8, 0.8], [[4]], clipped=False)[0][2]
    np.testing.assert_allclose(whole, [-0.8, -0.2, 0.8, 0.2], rtol=1e-6)


def test_default_box_cells_want_one_scale_more_than_levels():
    with pytest.raises(ValueError, match=r"`scales` \(0.4,\) must have 2 numbers for 1 levels"):
        default_box_cells([0.4], [[2]])


def test_decode_yolo_by_hand():
    priors = np.array([[2, 2, 6, 6]], np.float32)  # centre 4, the centre of a cell of 8
    zeros = ops.convert_to_numpy(decode_yolo(np.zeros((1, 4), np.float32), priors, 8))
    np.testing.assert_allclose(zeros, priors)
    # sigmoid(log 3) = 0.75 of a cell of 8: x = 6; y = 2; twice as wide, half as high: 8 x 2.
    outputs = np.array([[math.log(3), -math.log(3), math.log(2), -math.log(2)]], np.float32)
    np.testing.assert_allclose(ops.convert_to_numpy(decode_yolo(outputs, priors, 8)), [[2, 1, 10, 3]], atol=1e-5)
    # With scale 1.2, 0.25 from the middle becomes 0.3: x = 4 + 2.4, y = 4 - 2.4.
    found = ops.convert_to_numpy(decode_yolo(outputs, priors, 8, scale_xy=1.2))
    np.testing.assert_allclose(found, [[2.4, 0.6, 10.4, 2.6]], atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_decode_yolo_of_extreme_outputs_is_finite(dtype):
    outputs = ops.cast(np.array([[1e4, -1e4, 1e4, -1e4]], np.float32), dtype)
    found = ops.convert_to_numpy(decode_yolo(outputs, np.array([[0, 0, 16, 16]], np.float32), 16))
    # Right and upper edge of the cell; 62.5 x 16 = 1000 wide, nothing high.
    np.testing.assert_allclose(found, [[-484, 0, 516, 0]], rtol=1e-5)


@pytest.mark.parametrize("ratio", [0, -1, math.nan])
def test_cell_anchors_name_ratios_that_are_not_above_0(ratio):
    with pytest.raises(ValueError, match=r"`aspect_ratios` .* must be above 0"):
        cell_anchors([32], [0.5, ratio])


def test_functions_refuse_anchors_of_no_size():
    for call, message in (
        (lambda: cell_anchors([32, 0], [1.0]), r"`sizes` \[32, 0\] must be one number of pixels or more, all above 0"),
        (lambda: cell_anchors([], [1.0]), r"`sizes` \[\] must be"),
        (lambda: cell_anchors([32], []), r"`aspect_ratios` \[\] must be above 0"),
        (lambda: octave_cells(aspect_ratios=(1.0, 0.0)), r"`aspect_ratios` \(1.0, 0.0\) must be above 0"),
        (lambda: default_box_cells([0.4, 0.5], [[2, -2]]), r"`aspect_ratios` \[2, -2\] must be above 0"),
        (lambda: prior_cells([(10, 0)]), r"`sizes_wh` \[\(10, 0\)\] must be"),
        (lambda: prior_cells([]), r"`sizes_wh` \[\] must be"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    np.testing.assert_allclose(cell_anchors([1], [1.0], rounded=False), [[-0.5, -0.5, 0.5, 0.5]])

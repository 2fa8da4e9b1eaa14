"""Anchors against values worked out by hand (the cells as Detectron2's own test has them)."""

import numpy as np
import pytest
from keras import ops

from kerasvision.ops.anchors import cell_anchors, grid_anchors


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

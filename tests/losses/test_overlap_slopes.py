"""Slopes of the overlaps that box losses are made of, where boxes have no area."""

import numpy as np
import pytest
from keras import ops

from kerasvision.ops import boxes

SQUARE = [0, 0, 10, 10]


@pytest.mark.parametrize("name", ["iou", "giou", "diou", "ciou"])
def test_overlaps_of_degenerate_boxes_have_finite_slopes(name, gradient):
    first = [SQUARE, SQUARE, [3, 3, 3, 3], [3, 3, 3, 9], [9, 9, 3, 3]]
    second = np.array([[3, 3, 3, 3], [3, 3, 9, 3], [3, 3, 3, 3], SQUARE, SQUARE], np.float32)
    slopes = gradient(lambda values: ops.sum(getattr(boxes, name)(values, second)), first)
    assert np.isfinite(slopes).all()

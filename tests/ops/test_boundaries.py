"""Boundaries of classes by hand: on the host, on the device and in graphs alike."""

import numpy as np
import pytest
from keras import ops

from kerasvision.ops.boundaries import class_boundaries

MASK = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
EXPECTED = np.array([[0, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]], bool)


def test_both_sides_of_a_boundary_and_not_the_edge_of_the_image():
    np.testing.assert_array_equal(class_boundaries(MASK), EXPECTED)
    assert isinstance(class_boundaries(MASK), np.ndarray)
    found = class_boundaries(ops.convert_to_tensor(np.stack([MASK, MASK.T])))
    np.testing.assert_array_equal(ops.convert_to_numpy(found), [EXPECTED, EXPECTED.T])


@pytest.mark.parametrize("kind", [np.asarray, ops.convert_to_tensor])
def test_pixels_that_do_not_count_have_no_boundary_and_give_none(kind):
    counted = np.ones((4, 4), bool)
    counted[:, 2:] = False
    assert not ops.convert_to_numpy(class_boundaries(kind(MASK), kind(counted))).any()


@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 3), (1, 1, 1)])
@pytest.mark.parametrize("kind", [np.asarray, ops.convert_to_tensor])
def test_empty_and_smallest_masks(shape, kind):
    found = ops.convert_to_numpy(class_boundaries(kind(np.zeros(shape, np.int32))))
    assert found.shape == shape and not found.any()

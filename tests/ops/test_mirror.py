"""Mirroring at the borders, by hand and against numpy.pad."""

import numpy as np
import pytest
from keras import ops

from kerasvision.ops.mirror import mirror_pad


def _padded(images, **options):
    return ops.convert_to_numpy(mirror_pad(ops.convert_to_tensor(images), **options))


def test_mirror_pad_does_not_repeat_the_border():
    row = np.array([1, 2, 3, 4], np.float32).reshape(1, 1, 4, 1)
    found = _padded(row, before=2, canvas_hw=(5, 9))
    assert found.shape == (1, 5, 9, 1)
    # Two to the left of 1: 3, 2; to the right of 4: 3, 2, 1. The one row is repeated.
    np.testing.assert_array_equal(found[0, :, :, 0], [[3, 2, 1, 2, 3, 4, 3, 2, 1]] * 5)


def test_mirror_pad_of_images_smaller_than_the_margin_goes_back_and_forth():
    column = np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1)
    found = _padded(column, before=5, canvas_hw=(13, 1))[0, :, 0, 0]
    np.testing.assert_array_equal(found, [2, 1, 2, 3, 2, *(1, 2, 3), 2, 1, 2, 3, 2])


@pytest.mark.parametrize("size_hw", [(1, 1), (2, 3), (5, 4), (40, 30)])
def test_mirror_pad_equals_numpy(size_hw):
    images = np.random.default_rng(0).normal(size=(2, *size_hw, 3)).astype(np.float32)
    height, width = size_hw
    found = _padded(images, before=20, canvas_hw=(height + 45, width + 31))
    mode = {"mode": "reflect"}
    np.testing.assert_array_equal(found, np.pad(images, ((0, 0), (20, 25), (20, 11), (0, 0)), **mode))


def test_mirror_pad_mirrors_the_valid_region_of_each_image():
    images = np.random.default_rng(0).normal(size=(3, 6, 9, 2)).astype(np.float32)
    sizes = np.array([(6, 9), (4, 1), (1, 5)], np.int32)
    found = _padded(images, before=7, canvas_hw=(22, 23), sizes_hw=ops.convert_to_tensor(sizes))
    assert found.shape == (3, 22, 23, 2)
    for row, image, (height, width) in zip(found, images, sizes, strict=True):
        alone = _padded(image[None, :height, :width], before=7, canvas_hw=(22, 23))
        np.testing.assert_array_equal(row, alone[0])

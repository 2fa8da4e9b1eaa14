"""Pixels of each class and the weights made of them, by hand."""

import numpy as np
import pytest

from kerasvision import data
from kerasvision.data.class_weights import PixelCounts, class_weights, count_pixels


class Masks(data.Dataset):
    """Images with the given masks."""

    name = "masks"
    tasks = frozenset({"segmentation"})
    mask_classes = ("road", "car", "kite")

    def __init__(self, *masks):
        self.masks = [None if mask is None else np.array(mask, np.uint8) for mask in masks]

    def __len__(self):
        return len(self.masks)

    def __getitem__(self, index):
        mask = self.masks[index]
        size_hw = (1, 4) if mask is None else mask.shape
        nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
        return data.Sample(f"image {index}", np.zeros((*size_hw, 3), np.uint8), *nothing, mask)


def test_count_pixels_by_hand():
    calls = []
    counts = count_pixels(Masks([[0, 0, 1, 255]], [[0, 0, 0, 0], [255, 255, 0, 0]]), lambda *done: calls.append(done))
    assert counts.pixels.tolist() == [8, 1, 0]
    assert counts.pixels_where_present.tolist() == [3 + 6, 3, 0]
    assert counts.images.tolist() == [2, 1, 0]
    assert calls == [(1, 2), (2, 2)]


def test_count_pixels_of_a_real_data_set_counts_them_all():
    scenes = data.load("streets", split="test", count=3)
    counts = count_pixels(scenes)
    labelled = sum(int((sample.mask != 255).sum()) for sample in scenes)
    assert counts.pixels.sum() == labelled and counts.images.max() == 3


def test_count_pixels_names_what_is_wrong():
    with pytest.raises(data.DataError, match="image 1: has no mask"):
        count_pixels(Masks([[0]], None))
    with pytest.raises(data.DataError, match="image 0: mask value 7 is out of range"):
        count_pixels(Masks([[7]]))
    boxes = data.load("streets", split="test", count=1, task="detection")
    with pytest.raises(ValueError, match="`dataset` 'streets' has no masks to count; it is for detection"):
        count_pixels(boxes)


# 600 pixels in 2 images of 500, 300 in one, 100 in the other, and a class that never occurs.
COUNTS = PixelCounts(np.array([600, 300, 0, 100]), np.array([1000, 500, 0, 500]), np.array([2, 1, 0, 1]))


@pytest.mark.parametrize(
    "method, expected",
    [
        # Frequencies where they occur: 0.6, 0.6, 0.2; their median: 0.6.
        ("median_frequency", [1, 1, 0, 3]),
        # 1000 / (3 n)
        ("inverse", [1 / 1.8, 1 / 0.9, 0, 1 / 0.3]),
        # 1 / ln(1.62), 1 / ln(1.32), 1 / ln(1.12)
        ("enet", [2.0729, 3.6019, 0, 8.8239]),
        # M = 1000 / 3: 1 - 0.997^n = 0.8352, 0.5941, 0.2595; their inverses 1.1973, 1.6833, 3.8533 add up to 6.7339.
        ("effective_number", [0.5334, 0.7499, 0, 1.7167]),
    ],
)
def test_class_weights_by_hand(method, expected):
    weights = class_weights(COUNTS, method)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, expected, rtol=2e-4)


def test_effective_number_goes_from_equal_weights_to_inverse_ones_with_beta():
    np.testing.assert_allclose(class_weights(COUNTS, "effective_number", beta=0), [1, 1, 0, 1])
    # By the paper's formula, 0.99^n: 1 - (0.00240, 0.04904, 0.36603); inverses 1.0024, 1.0516, 1.5774, sum 3.6314.
    found = class_weights(COUNTS, "effective_number", beta=0.99)
    np.testing.assert_allclose(found, [0.8281, 0.8687, 0, 1.3031], rtol=2e-4)
    rare = class_weights(COUNTS, "effective_number", beta=1 - 1e-9)
    np.testing.assert_allclose(rare[[0, 1, 3]] / rare[3], [1 / 6, 1 / 3, 1], rtol=1e-5)


def test_inverse_weights_make_classes_equal_and_pixels_one_in_the_mean():
    weights = class_weights(COUNTS, "inverse")
    np.testing.assert_allclose((weights * COUNTS.pixels)[[0, 1, 3]], 1000 / 3, rtol=1e-6)


def test_class_weights_are_what_a_loss_takes():
    from kerasvision.losses import CrossEntropyLoss

    loss = CrossEntropyLoss(class_weights=class_weights(COUNTS), reduction="none")
    losses = np.asarray(loss(np.array([[0, 3, 255]]), np.zeros((1, 3, 4), np.float32)))
    np.testing.assert_allclose(losses[0, :2], [np.log(4), 3 * np.log(4)], rtol=1e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"method": "median"}, "`method` 'median' is unknown; did you mean 'median_frequency'"),
        ({"beta": 0.9}, "`beta` 0.9 must be .* for method 'effective_number' alone"),
        ({"method": "effective_number", "beta": 1}, "`beta` 1 must be at least 0 and below 1"),
    ],
)
def test_class_weights_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        class_weights(COUNTS, **arguments)
    with pytest.raises(ValueError, match="`counts` has no pixel of any class"):
        class_weights(PixelCounts(*[np.zeros(2, np.int64)] * 3))

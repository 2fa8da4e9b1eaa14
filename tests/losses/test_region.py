"""Dice loss by hand."""

import math

import numpy as np
import pytest
from keras import ops

from kerasvision.losses import DiceLoss

# One image of 1 x 4 pixels, two classes.
TRUTH = np.array([[[0, 0, 1, 1]]])
PROBABILITIES = np.array([[[[1.0, 0.0], [0.5, 0.5], [0.25, 0.75], [0.0, 1.0]]]], np.float32)


def _dice(truth, predictions, **options):
    return float(ops.convert_to_numpy(DiceLoss(**{"from_logits": False, **options})(truth, predictions)))


def test_dice_of_probabilities_by_hand():
    # Class 0: 2 * 1.5 / (1.75 + 2) = 0.8; class 1: 2 * 1.75 / (2.25 + 2) = 0.823529.
    assert _dice(TRUTH, PROBABILITIES) == pytest.approx(1 - (0.8 + 3.5 / 4.25) / 2, rel=1e-5)


def test_dice_of_logits_takes_the_softmax():
    logits = np.array([[[[math.log(3), 0.0], [0.0, math.log(3)]]]], np.float32)  # 0.75, 0.25; 0.25, 0.75
    # Both classes: 2 * 0.75 / (1 + 1).
    assert _dice(np.array([[[0, 1]]]), logits, from_logits=True) == pytest.approx(0.25, rel=1e-5)


def test_dice_of_a_perfect_prediction_is_zero():
    assert _dice(TRUTH, np.eye(2, dtype=np.float32)[TRUTH]) == pytest.approx(0, abs=1e-6)


def test_dice_of_an_entirely_wrong_prediction_is_one():
    assert _dice(TRUTH, np.eye(2, dtype=np.float32)[1 - TRUTH]) == pytest.approx(1)


def test_dice_does_not_count_ignored_pixels():
    truth = np.array([[[0, 255, 1, 255]]])
    # Class 0: 2 * 1 / (1.25 + 1); class 1: 2 * 0.75 / (0.75 + 1).
    expected = 1 - (2 / 2.25 + 1.5 / 1.75) / 2
    assert _dice(truth, PROBABILITIES) == pytest.approx(expected, rel=1e-5)
    changed = PROBABILITIES.copy()
    changed[0, 0, 1], changed[0, 0, 3] = [0.1, 0.9], [0.9, 0.1]
    assert _dice(truth, changed) == pytest.approx(expected, rel=1e-5)


def test_dice_ignores_another_value_and_a_class_of_its_own():
    assert _dice(np.array([[[0, 7, 1, 7]]]), PROBABILITIES, ignore_class=7) == pytest.approx(
        _dice(np.array([[[0, 255, 1, 255]]]), PROBABILITIES)
    )
    # Ignoring class 0 itself: class 1 alone, on the last two pixels: 2 * 1.75 / (1.75 + 2).
    assert _dice(TRUTH, PROBABILITIES, ignore_class=0) == pytest.approx(1 - 3.5 / 3.75, rel=1e-5)


def test_dice_leaves_out_classes_that_no_pixel_has():
    three = np.concatenate([PROBABILITIES, np.zeros_like(PROBABILITIES[..., :1])], axis=-1)
    assert _dice(TRUTH, three) == pytest.approx(_dice(TRUTH, PROBABILITIES))
    # All pixels class 0: 2 * 1.75 / (1.75 + 4); the false class 1 counts through class 0's missing mass.
    assert _dice(np.zeros_like(TRUTH), PROBABILITIES) == pytest.approx(1 - 3.5 / 5.75, rel=1e-5)


def test_dice_counts_over_the_whole_batch():
    truth, predictions = TRUTH.reshape(2, 1, 2), PROBABILITIES.reshape(2, 1, 2, 2)
    assert _dice(truth, predictions) == pytest.approx(_dice(TRUTH, PROBABILITIES))


def test_dice_smooth_is_added_to_both_sides():
    # Class 0: (3 + 1) / (3.75 + 1); class 1: (3.5 + 1) / (4.25 + 1).
    expected = 1 - (4 / 4.75 + 4.5 / 5.25) / 2
    assert _dice(TRUTH, PROBABILITIES, smooth=1.0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_dice_with_nothing_counted_is_zero(smooth, gradient):
    truth = np.full_like(TRUTH, 255)
    assert _dice(truth, PROBABILITIES, smooth=smooth) == 0
    slopes = gradient(lambda x: DiceLoss(smooth=smooth)(ops.convert_to_tensor(truth), x), PROBABILITIES)
    np.testing.assert_array_equal(slopes, np.zeros_like(PROBABILITIES))


def test_dice_of_an_empty_batch_is_zero():
    assert _dice(np.zeros((0, 2, 2), np.int32), np.zeros((0, 2, 2, 3), np.float32)) == 0


def test_dice_of_extreme_logits_is_finite(gradient):
    logits = np.array([[[[1e4, -1e4], [-1e4, 1e4], [1e4, -1e4], [0, 0]]]], np.float32)
    slopes = gradient(lambda x: DiceLoss()(ops.convert_to_tensor(TRUTH), x), logits)
    assert np.isfinite(slopes).all()
    # Right, wrong, wrong, half: class 0: 2 * 1 / (2.5 + 2); class 1: 2 * 0.5 / (1.5 + 2).
    assert _dice(TRUTH, logits, from_logits=True) == pytest.approx(1 - (2 / 4.5 + 1 / 3.5) / 2, rel=1e-5)


def test_dice_gradient_falls_towards_the_truth(gradient):
    slopes = gradient(lambda x: DiceLoss()(ops.convert_to_tensor(TRUTH), x), np.zeros((1, 1, 4, 2)))
    right = np.take_along_axis(slopes, TRUTH[..., None], axis=-1)
    assert (right < 0).all()


def test_dice_with_half_precision_predictions_does_not_overflow():
    # 300 x 300 = 90000 pixels: more than float16 can count.
    truth = np.zeros((1, 300, 300), np.int32)
    assert _dice(truth, np.ones((1, 300, 300, 1), np.float16)) == pytest.approx(0, abs=1e-6)

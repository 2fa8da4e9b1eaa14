"""Dice, Jaccard and Tversky losses by hand."""

import math

import numpy as np
import pytest
from keras import ops

from kerasvision.losses import DiceLoss, FocalTverskyLoss, JaccardLoss, TverskyLoss

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


def _value(loss, truth, predictions):
    return np.asarray(ops.convert_to_numpy(loss(truth, predictions)))


# Overlaps, predicted and true sizes of TRUTH and PROBABILITIES: class 0: 1.5, 1.75, 2; class 1: 1.75, 2.25, 2.


def test_jaccard_by_hand():
    # 1.5 / (1.75 + 2 - 1.5) and 1.75 / (2.25 + 2 - 1.75).
    expected = 1 - (1.5 / 2.25 + 1.75 / 2.5) / 2
    np.testing.assert_allclose(_value(JaccardLoss(from_logits=False), TRUTH, PROBABILITIES), expected, rtol=1e-5)


def test_tversky_by_hand():
    # Class 0: TP 1.5, FP 0.25, FN 0.5; class 1: TP 1.75, FP 0.5, FN 0.25.
    indices = [1.5 / (1.5 + 0.3 * 0.25 + 0.7 * 0.5), 1.75 / (1.75 + 0.3 * 0.5 + 0.7 * 0.25)]
    found = _value(TverskyLoss(from_logits=False), TRUTH, PROBABILITIES)
    np.testing.assert_allclose(found, 1 - sum(indices) / 2, rtol=1e-5)
    powers = [(1 - index) ** 0.75 for index in indices]
    found = _value(FocalTverskyLoss(from_logits=False), TRUTH, PROBABILITIES)
    np.testing.assert_allclose(found, sum(powers) / 2, rtol=1e-5)
    found = _value(FocalTverskyLoss(from_logits=False, gamma=2, of_mean=True), TRUTH, PROBABILITIES)
    np.testing.assert_allclose(found, (1 - sum(indices) / 2) ** 2, rtol=1e-5)


def test_tversky_of_equal_weights_is_dice_or_jaccard():
    for weight, other in [(0.5, DiceLoss), (1.0, JaccardLoss)]:
        found = _value(TverskyLoss(weight, weight, from_logits=False), TRUTH, PROBABILITIES)
        np.testing.assert_allclose(found, _value(other(from_logits=False), TRUTH, PROBABILITIES), rtol=1e-6)


def test_region_loss_as_logarithm():
    expected = -(math.log(3 / 3.75) + math.log(3.5 / 4.25)) / 2
    assert _dice(TRUTH, PROBABILITIES, log=True) == pytest.approx(expected, rel=1e-5)
    # No overlap at all: the coefficient counts as 1e-7.
    wrong = np.eye(2, dtype=np.float32)[1 - TRUTH]
    assert _dice(TRUTH, wrong, log=True) == pytest.approx(-math.log(1e-7), rel=1e-5)


def test_region_loss_of_images_by_hand():
    truth = np.array([[[0, 1]], [[1, 1]]])
    probabilities = np.array([[[[0.5, 0.5], [0.25, 0.75]]], [[[0.0, 1.0], [0.0, 1.0]]]], np.float32)
    # First image: class 0: 2 * 0.5 / (0.75 + 1), class 1: 2 * 0.75 / (1.25 + 1); second: class 1 alone, perfect.
    expected = [1 - (1 / 1.75 + 1.5 / 2.25) / 2, 0]
    found = _value(DiceLoss(from_logits=False, per_image=True, reduction="none"), truth, probabilities)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_region_loss_of_bits_by_hand():
    truth = np.array([[[1, 0, 1, 255]]])
    probabilities = np.array([[[0.75, 0.5, 0.25, 0.9]]], np.float32)
    # 2 * (0.75 + 0.25) / (1.5 + 2).
    loss = DiceLoss(mode="binary", from_logits=False)
    for axes in [
        (truth, probabilities),
        (truth[..., None], probabilities[..., None]),
        (truth, probabilities[..., None]),
    ]:
        np.testing.assert_allclose(_value(loss, *axes), 1 - 2 / 3.5, rtol=1e-5)
    logits = np.log(probabilities) - np.log(1 - probabilities)
    np.testing.assert_allclose(_value(DiceLoss(mode="binary"), truth, logits), 1 - 2 / 3.5, rtol=1e-5)


def test_region_loss_of_many_labels_by_hand():
    # Pixels may have several classes or none; one element of class 1 is ignored.
    truth = np.array([[[[1, 1], [0, 255], [1, 0]]]])
    probabilities = np.array([[[[0.5, 1.0], [0.5, 0.3], [1.0, 0.5]]]], np.float32)
    # Class 0: 2 * 1.5 / (2 + 2); class 1: 2 * 1 / (1.5 + 1).
    found = _value(DiceLoss(mode="multilabel", from_logits=False), truth, probabilities)
    np.testing.assert_allclose(found, 1 - (3 / 4 + 2 / 2.5) / 2, rtol=1e-5)


def test_region_loss_of_absent_classes():
    three = np.concatenate([PROBABILITIES * 0.5, np.full_like(PROBABILITIES[..., :1], 0.5)], axis=-1)
    # Class 0: 2 * 0.75 / (0.875 + 2), class 1: 2 * 0.875 / (1.125 + 2), class 2: 0 / (2 + 0).
    losses = [1 - 1.5 / 2.875, 1 - 1.75 / 3.125, 1.0]
    assert _dice(TRUTH, three) == pytest.approx(sum(losses[:2]) / 2, rel=1e-5)
    assert _dice(TRUTH, three, absent="zero") == pytest.approx(sum(losses[:2]) / 3, rel=1e-5)
    assert _dice(TRUTH, three, absent="count") == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_region_loss_counts_false_positives_of_background_images(gradient):
    truth, logits = np.zeros((1, 2, 2)), np.zeros((1, 2, 2, 1), np.float32)
    loss = DiceLoss(mode="binary", absent="count", smooth=1.0)
    np.testing.assert_allclose(_value(loss, truth, logits), 1 - 1 / 3, rtol=1e-5)  # four halves: 1 / (2 + 1)
    assert (gradient(lambda x: loss(ops.convert_to_tensor(truth), x), logits) > 0).all()
    # Without pixels of the class, predicted or true, there is nothing wrong.
    assert _value(DiceLoss(mode="binary", absent="count"), truth, logits - 1e4) == 0


def test_region_loss_weighs_classes():
    losses = [1 - 3 / 3.75, 1 - 3.5 / 4.25]
    expected = (0.5 * losses[0] + 2 * losses[1]) / 2.5
    assert _dice(TRUTH, PROBABILITIES, class_weights=(0.5, 2)) == pytest.approx(expected, rel=1e-5)
    assert _dice(TRUTH, PROBABILITIES, class_weights=(0, 1)) == pytest.approx(losses[1], rel=1e-5)
    assert _dice(TRUTH, PROBABILITIES, class_weights=(0, 0)) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "multi"}, "`mode` is 'multi', but must be one of 'multiclass', 'multilabel', 'binary'"),
        ({"absent": "drop"}, "`absent` is 'drop', but must be one of 'skip', 'zero', 'count'"),
        ({"smooth": -1}, "`smooth` is -1, but must be a number of at least 0"),
        ({"class_weights": (1, -1)}, r"`class_weights` is \(1.0, -1.0\), but must be one number of at least 0"),
    ],
)
def test_region_loss_names_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DiceLoss(**arguments)


def test_region_loss_names_wrong_shapes():
    with pytest.raises(ValueError, match="`class_weights` has 3 values, but predictions have 2 classes"):
        _dice(TRUTH, PROBABILITIES, class_weights=(1, 2, 3))
    with pytest.raises(ValueError, match=r"`y_true` has shape \(1, 1, 4\) and `y_pred` \(1, 1, 4, 2\), but mode"):
        _dice(TRUTH, PROBABILITIES, mode="multilabel")
    with pytest.raises(ValueError, match='use mode="multiclass" for class indices'):
        _dice(TRUTH, PROBABILITIES, mode="binary")

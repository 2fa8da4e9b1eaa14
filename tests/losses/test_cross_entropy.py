"""Cross-entropies of masks by hand."""

import math

import keras
import numpy as np
import pytest
from keras import ops
from keras.src.backend import set_keras_mask

from kerasvision.losses import CrossEntropyLoss, OHEMCrossEntropyLoss
from kerasvision.losses.cross_entropy import cross_entropy, hard_pixels

# Shares of 1/4, 1/2, 1/4 at every pixel.
LOGITS = np.broadcast_to(np.array([0, math.log(2), 0], np.float32), (1, 1, 4, 3))
MASK = np.array([[[0, 1, 255, 1]]])


def _pixels(masks, logits, **options):
    return ops.convert_to_numpy(cross_entropy(ops.convert_to_tensor(masks), ops.convert_to_tensor(logits), **options))


def _value(loss, truth, predictions):
    return np.asarray(ops.convert_to_numpy(loss(truth, predictions)))


def test_cross_entropy_by_hand():
    expected = [[[math.log(4), math.log(2), 0, math.log(2)]]]
    np.testing.assert_allclose(_pixels(MASK, LOGITS), expected, rtol=1e-6)
    np.testing.assert_allclose(_pixels(MASK, np.exp(LOGITS) / 4, from_logits=False), expected, rtol=1e-6)
    np.testing.assert_allclose(_value(CrossEntropyLoss(), MASK, LOGITS), 4 / 3 * math.log(2), rtol=1e-6)


def test_cross_entropy_with_class_weights():
    weights = (3.0, 0.5, 1.0)
    expected = [[[3 * math.log(4), 0.5 * math.log(2), 0, 0.5 * math.log(2)]]]
    np.testing.assert_allclose(_pixels(MASK, LOGITS, class_weights=weights), expected, rtol=1e-6)
    total = 7 * math.log(2)
    np.testing.assert_allclose(_value(CrossEntropyLoss(class_weights=weights), MASK, LOGITS), total / 3, rtol=1e-6)
    loss = CrossEntropyLoss(class_weights=weights, divide_by_weights=True)
    np.testing.assert_allclose(_value(loss, MASK, LOGITS), total / (3 + 0.5 + 0.5), rtol=1e-6)
    loss = CrossEntropyLoss(class_weights=weights, divide_by_weights=True, reduction="sum")
    np.testing.assert_allclose(_value(loss, MASK, LOGITS), total, rtol=1e-6)


def test_cross_entropy_with_label_smoothing():
    # 0.7 of the true class's and 0.1 of each class's: log 4 + log 2 + log 4 = 5 log 2.
    expected = [[[0.7 * 2 + 0.1 * 5, 0.7 + 0.1 * 5, 0, 0.7 + 0.1 * 5]]]
    found = _pixels(MASK, LOGITS, label_smoothing=0.3)
    np.testing.assert_allclose(found, np.array(expected) * math.log(2), rtol=1e-6)


def test_cross_entropy_of_ignored_pixels_is_zero_even_of_nan():
    logits = LOGITS.copy()
    logits[0, 0, 2] = np.nan
    np.testing.assert_allclose(_pixels(MASK, logits), _pixels(MASK, LOGITS))


def test_cross_entropy_ignores_another_value_a_class_or_nothing():
    np.testing.assert_allclose(_pixels(MASK, LOGITS, ignore_class=1)[0, 0, [0, 1, 3]], [math.log(4), 0, 0], rtol=1e-6)
    np.testing.assert_allclose(_pixels(MASK * 0, LOGITS, ignore_class=None), [[[math.log(4)] * 4]], rtol=1e-6)


@pytest.mark.parametrize("label", [3, -1, 254])
def test_cross_entropy_of_a_label_out_of_range_is_nan(label):
    masks = np.array([[[0, 1, label, 1]]])
    found = _pixels(masks, LOGITS)
    assert np.isnan(found[0, 0, 2]) and np.isfinite(found[0, 0, [0, 1, 3]]).all()
    assert np.isnan(_value(CrossEntropyLoss(), masks, LOGITS))
    assert np.isnan(_value(OHEMCrossEntropyLoss(), masks, LOGITS))


def test_cross_entropy_of_certain_probabilities_is_finite():
    shares = np.broadcast_to(np.array([0, 1, 0], np.float32), (1, 1, 4, 3))
    found = _pixels(MASK, shares, from_logits=False)
    np.testing.assert_allclose(found, [[[-math.log(1e-7), 0, 0, 0]]], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("size", [-1e35, 1e35])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_cross_entropy_is_finite_up_to_its_limit(size, label_smoothing):
    logits = np.array([[[[size, -size, 0]] * 4]], np.float32)
    assert np.isfinite(_pixels(MASK, logits, label_smoothing=label_smoothing)).all()


@pytest.mark.parametrize("whole", [int, np.int64, np.int32, np.uint8])
def test_ohem_counts_pixels_by_whole_numbers_of_any_kind(whole):
    assert OHEMCrossEntropyLoss(min_kept=whole(1)).get_config()["min_kept"] == 1
    assert type(OHEMCrossEntropyLoss(min_kept=whole(1)).min_kept) is int  # so that its configuration is JSON
    assert _kept(0.0, whole(2)) == _kept(0.0, 2) == [False, False, False, True, True, False]
    losses = np.array([[1.0, 2, 3]], np.float32)
    found = hard_pixels(
        ops.convert_to_tensor(losses), ops.convert_to_tensor(losses > 0), threshold=0, min_kept=whole(1)
    )
    assert ops.convert_to_numpy(found).tolist() == [[False, False, True]]


@pytest.mark.parametrize("share", [0.4, np.float32(0.4), np.float64(0.4)])
def test_ohem_takes_shares_of_any_kind(share):
    assert _kept(0.0, share) == [False, False, False, True, True, False]  # 2 of the 5 that count
    with pytest.raises(ValueError, match=r"`min_kept` is .*1\.5"):
        OHEMCrossEntropyLoss(min_kept=np.float32(1.5))


# Six pixels whose true class has a probability of 0.9, 0.8, 0.6, 0.4, 0.2 and 0.1; the last is ignored.
TRUE = np.array([0.9, 0.8, 0.6, 0.4, 0.2, 0.1])
HARD = np.stack([TRUE, 1 - TRUE], -1)[None, None].astype(np.float32)
ZEROS = np.array([[[0, 0, 0, 0, 0, 255]]])


def _kept(threshold, min_kept):
    loss = OHEMCrossEntropyLoss(threshold, min_kept, from_logits=False, reduction="none")
    return (_value(loss, ZEROS, HARD)[0, 0] > 0).tolist()


@pytest.mark.parametrize(
    ("threshold", "min_kept", "kept"),
    [
        (0.7, 0, 3),  # those under 0.7
        (0.7, 2, 3),  # more than enough
        (0.7, 4, 4),  # one more
        (0.0, 2, 2),
        (0.0, 0, 0),
        (0.0, 99, 5),  # all that count
        (0.0, 0.4, 2),  # 2 of 5
        (0.0, 0.41, 3),  # rounded up
        (0.0, 1.0, 5),
        (1.0, 0, 5),
    ],
)
def test_ohem_keeps_the_hardest(threshold, min_kept, kept):
    assert _kept(threshold, min_kept) == [False] * (5 - kept) + [True] * kept + [False]


def test_ohem_is_the_mean_over_the_kept():
    found = _value(OHEMCrossEntropyLoss(0.7, 0, from_logits=False), ZEROS, HARD)
    np.testing.assert_allclose(found, -np.log([0.6, 0.4, 0.2]).mean(), rtol=1e-5)
    assert _value(OHEMCrossEntropyLoss(0.0, 0, from_logits=False), ZEROS, HARD) == 0


def test_ohem_min_kept_counts_pixels_an_image_of_the_batch():
    # Two images, one pixel each: the two hardest are both in the first.
    masks = np.zeros((2, 1, 3), int)
    true = np.array([[[0.1, 0.2, 0.6]], [[0.5, 0.8, 0.9]]])
    loss = OHEMCrossEntropyLoss(0.0, 1, from_logits=False, reduction="none")
    found = _value(loss, masks, np.stack([true, 1 - true], -1).astype(np.float32))
    assert (found > 0).tolist() == [[[True, True, False]], [[False, False, False]]]


def test_ohem_keeps_ties():
    # An untrained network finds all pixels equally hard: strictly less than the last one kept would keep none.
    losses = ops.ones((1, 2, 2))
    kept = hard_pixels(losses, ops.ones((1, 2, 2), dtype="bool"), threshold=0.1, min_kept=1)
    assert ops.convert_to_numpy(kept).all()


def test_ohem_class_weights_do_not_change_which_are_hard():
    loss = OHEMCrossEntropyLoss(0.7, 0, from_logits=False, class_weights=(0.5, 9), reduction="none")
    found = _value(loss, ZEROS, HARD)[0, 0]
    np.testing.assert_allclose(found, [0, 0, *(-0.5 * np.log([0.6, 0.4, 0.2])), 0], rtol=1e-5)


def test_wrong_arguments_are_named():
    for make, message in [
        (lambda: CrossEntropyLoss(label_smoothing=1.5), "`label_smoothing` is 1.5, but must be a share"),
        (lambda: CrossEntropyLoss(class_weights=()), r"`class_weights` is \(\), but must be one number"),
        (lambda: OHEMCrossEntropyLoss(70), "`threshold` is 70, but must be a probability"),
        (lambda: OHEMCrossEntropyLoss(min_kept=-1), "`min_kept` is -1, but must be a number of pixels an image"),
        (lambda: OHEMCrossEntropyLoss(min_kept=1.5), "`min_kept` is 1.5"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(ValueError, match="`class_weights` has 2 values, but predictions have 3 classes"):
        CrossEntropyLoss(class_weights=(1, 2))(MASK, LOGITS)


def test_ohem_takes_no_masked_pixel_for_the_hardest():
    # Two pixels of share 1/4 count, two are masked, and wrong by far: one of the former must be kept, not the latter.
    logits = np.zeros((1, 2, 2, 4), np.float32)
    logits[0, 1] = [0, 50, 50, 50]
    predictions = ops.convert_to_tensor(logits)
    set_keras_mask(predictions, ops.convert_to_tensor([[[True, True], [False, False]]]))
    loss = OHEMCrossEntropyLoss(threshold=0.0, min_kept=0.25)
    np.testing.assert_allclose(_value(loss, np.zeros((1, 2, 2), int), predictions), math.log(4), rtol=1e-6)


def test_cross_entropy_divides_by_the_weights_of_unmasked_pixels():
    predictions = ops.convert_to_tensor(LOGITS)
    set_keras_mask(predictions, ops.convert_to_tensor([[[True, True, False, False]]]))
    loss = CrossEntropyLoss(class_weights=(3.0, 0.5, 1.0), divide_by_weights=True, ignore_class=None)
    # 3 log 4 + log 2 / 2 over 3 + 1 / 2.
    np.testing.assert_allclose(_value(loss, MASK % 254, predictions), 6.5 * math.log(2) / 3.5, rtol=1e-6)


def test_cross_entropy_of_labels_that_are_none_is_nan():
    labels = np.array([[[0, 0.9, np.nan, 1]]], np.float32)
    found = _pixels(labels, LOGITS)
    np.testing.assert_allclose(found, [[[math.log(4), np.nan, np.nan, math.log(2)]]], rtol=1e-6)
    assert np.isnan(_value(CrossEntropyLoss(), labels, LOGITS))


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has no int64")
def test_cross_entropy_does_not_wrap_labels_beyond_int32():
    found = _pixels(np.array([[[0, 2**32, -(2**32) + 1, 2**31]]]), LOGITS)
    np.testing.assert_allclose(found, [[[math.log(4), np.nan, np.nan, np.nan]]], rtol=1e-6)

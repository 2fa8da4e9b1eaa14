"""Sums of losses: values by hand, sample weights, configuration, names."""

import keras
import numpy as np
import pytest
from keras import ops
from keras.src.backend import set_keras_mask

from kerasvision import losses

# Two pixels of class 0 and 1, one ignored; each has 3/4 for class 0: logits (ln 3, 0).
MASK = np.array([[[0, 1, 255]]])
LOGITS = np.tile(np.array([np.log(3), 0], np.float32), (1, 1, 3, 1))
CROSS_ENTROPY = (np.log(4 / 3) + np.log(4)) / 2
# Class 0: overlap 3/4, sizes 3/2 and 1, so 1 - 2 * 0.75 / 2.5 = 0.4; class 1: 1 - 2 * 0.25 / (0.5 + 1) = 2/3.
DICE = (0.4 + 2 / 3) / 2


def _value(loss, *arguments):
    return float(ops.convert_to_numpy(loss(*arguments)))


def test_combined_loss_by_hand():
    loss = losses.CombinedLoss([losses.CrossEntropyLoss(), losses.DiceLoss()], (2, 0.5))
    assert _value(loss, MASK, LOGITS) == pytest.approx(2 * CROSS_ENTROPY + 0.5 * DICE, rel=1e-5)
    assert loss.ignore_class == 255


@pytest.mark.parametrize(
    ("text", "kinds", "factors"),
    [
        ("cross_entropy + dice", (losses.CrossEntropyLoss, losses.DiceLoss), (1, 1)),
        ("cross_entropy+0.5*Dice", (losses.CrossEntropyLoss, losses.DiceLoss), (1, 0.5)),
        ("10 * softmax_focal + 2*lovasz_softmax", (losses.SoftmaxFocalLoss, losses.LovaszSoftmaxLoss), (10, 2)),
        ("3 * jaccard", (losses.JaccardLoss,), (3,)),
    ],
)
def test_names_with_plus_signs_are_combined(text, kinds, factors):
    loss = losses.get(text)
    assert tuple(map(type, loss.losses)) == kinds
    assert loss.factors == factors and loss.name == text


def test_options_reach_every_part():
    parts = losses.get("cross_entropy + dice", class_weights=(1, 2), ignore_class=0).losses
    assert [(part.class_weights, part.ignore_class) for part in parts] == [((1, 2), 0)] * 2


def test_focal_beside_a_loss_of_masks_ignores_what_that_ignores():
    assert [part.ignore_class for part in losses.get("focal + dice").losses] == [255, 255]
    assert losses.get("2 * focal").ignore_class is None
    loss = losses.get("focal + dice", ignore_class=1)
    assert [part.ignore_class for part in loss.losses] == [1, 1]


def test_combined_by_name_gives_the_sum():
    assert _value(losses.get("cross_entropy + dice"), MASK, LOGITS) == pytest.approx(CROSS_ENTROPY + DICE, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cross_entropy + dise", r"adds up 'dise', which is no loss of ours; did you mean 'dice'"),
        ("cross_entropy + ", r"adds up '', which is no loss of ours"),
        ("half * dice", r"has the factor 'half', which is no number; write such as 'cross_entropy \+ 0.5 \* dice'"),
        ("-1 * dice", r"`factors` \(-1.0,\) must be 1 numbers of at least 0"),
    ],
)
def test_texts_that_name_no_sum_say_why(text, said):
    with pytest.raises(ValueError, match=said):
        losses.get(text)


def test_weights_of_pixels_leave_regions_as_they_are():
    """The first pixel thrice: (3 ln 4/3 + ln 4) / 2 pixels; Dice as without."""
    loss = losses.get("cross_entropy + dice")
    weights = np.array([[[3.0, 1, 1]]], np.float32)
    expected = (3 * np.log(4 / 3) + np.log(4)) / 2 + DICE
    assert _value(loss, MASK, LOGITS, weights) == pytest.approx(expected, rel=1e-5)
    images = np.array([2.0], np.float32)
    assert _value(loss, MASK, LOGITS, images) == pytest.approx(2 * (CROSS_ENTROPY + DICE), rel=1e-5)
    with pytest.raises(ValueError, match="has no loss of a single pixel"):
        losses.get("dice + jaccard")(MASK, LOGITS, weights)


def test_combined_config_keeps_every_argument():
    loss = losses.CombinedLoss(
        [losses.TverskyLoss(0.2, 0.6, ignore_class=2), losses.CrossEntropyLoss(class_weights=(1, 2), ignore_class=2)],
        (2, 0.5),
        name="both",
    )
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert copy.get_config() == loss.get_config() and copy.ignore_class == 2
    assert copy.losses[0].alpha == 0.2 and copy.losses[1].class_weights == (1, 2)
    assert _value(copy, MASK % 3, LOGITS) == _value(loss, MASK % 3, LOGITS)


@pytest.mark.parametrize(
    ("given", "factors", "said"),
    [
        ([], None, "`losses` is empty"),
        (["dice"], None, "`losses` holds 'dice'; give keras.losses.Loss objects"),
        ([losses.CrossEntropyLoss(reduction="none")], None, "holds cross_entropy with reduction 'none'; give"),
        ([losses.DiceLoss()], (1, 2), r"`factors` \(1.0, 2.0\) must be 1 numbers of at least 0"),
        ([losses.DiceLoss(), losses.CrossEntropyLoss(ignore_class=0)], None, r"different `ignore_class`: \[255, 0\]"),
    ],
)
def test_combined_of_what_cannot_be_added_is_refused(given, factors, said):
    with pytest.raises(ValueError, match=said):
        losses.CombinedLoss(given, factors)


def test_pixels_that_keras_masks_and_half_precision_are_left_to_the_parts():
    loss = losses.get("cross_entropy + dice")
    logits = ops.convert_to_tensor(LOGITS, "float16")
    assert _value(loss, MASK, logits) == pytest.approx(CROSS_ENTROPY + DICE, rel=1e-3)
    labels, masked = np.array([[[0, 1, 1]]]), ops.convert_to_tensor(LOGITS)
    set_keras_mask(masked, ops.convert_to_tensor([[[True, True, False]]]))
    assert _value(loss, labels, masked) == pytest.approx(CROSS_ENTROPY + DICE, rel=1e-5)

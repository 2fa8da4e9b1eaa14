"""Focal loss: values and slopes by hand, and extremes."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.losses import SigmoidFocalLoss, SoftmaxFocalLoss
from kerasvision.losses.focal import sigmoid_focal_loss, softmax_focal_loss

# A probability of 0.9 and one of 0.2.
LOGITS = np.array([math.log(9), -math.log(4)], np.float32)


def _loss(targets, logits, **options):
    targets, logits = (ops.convert_to_tensor(np.asarray(v, np.float32)) for v in (targets, logits))
    return ops.convert_to_numpy(sigmoid_focal_loss(targets, logits, **options))


def test_focal_of_positives_by_hand():
    # 0.25 (1 - p)^2 (-log p): 0.25 * 0.01 * 0.10536 and 0.25 * 0.64 * 1.60944.
    expected = [0.25 * 0.01 * -math.log(0.9), 0.25 * 0.64 * -math.log(0.2)]
    np.testing.assert_allclose(_loss([1, 1], LOGITS), expected, rtol=1e-4)


def test_focal_of_negatives_by_hand():
    # 0.75 p^2 (-log(1 - p)).
    expected = [0.75 * 0.81 * -math.log(0.1), 0.75 * 0.04 * -math.log(0.8)]
    np.testing.assert_allclose(_loss([0, 0], LOGITS), expected, rtol=1e-4)


def test_focal_with_negative_alpha_does_not_weigh():
    expected = [0.01 * -math.log(0.9), 0.04 * -math.log(0.8)]
    np.testing.assert_allclose(_loss([1, 0], LOGITS, alpha=-1), expected, rtol=1e-4)


def test_focal_with_alpha_zero_leaves_only_negatives():
    np.testing.assert_allclose(_loss([1, 0], LOGITS, alpha=0.0), [0, 0.04 * -math.log(0.8)], rtol=1e-4)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.5, 3.0])
def test_focal_with_other_gammas(gamma):
    expected = [0.25 * 0.1**gamma * -math.log(0.9), 0.75 * 0.2**gamma * -math.log(0.8)]
    np.testing.assert_allclose(_loss([1, 0], LOGITS, gamma=gamma), expected, rtol=1e-4)


def test_focal_with_gamma_zero_is_cross_entropy():
    expected = [-math.log(0.9), -math.log(0.8)]
    np.testing.assert_allclose(_loss([1, 0], LOGITS, gamma=0, alpha=-1), expected, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_of_extreme_logits_is_finite_with_finite_gradients(gamma, gradient):
    logits = np.array([1e4, -1e4, 100, -100, 0, 88.8, -88.8], np.float32)
    for target in (0.0, 1.0):
        targets = np.full_like(logits, target)
        loss = _loss(targets, logits, gamma=gamma)
        assert np.isfinite(loss).all() and (loss >= 0).all()
        # A wrong logit of 1e4 costs about 1e4 times its weight; a right one nothing.
        np.testing.assert_allclose(loss[1 if target else 0], 1e4 * (0.25 if target else 0.75), rtol=1e-5)
        assert loss[0 if target else 1] == 0

        def total(values, targets=targets):
            return ops.sum(sigmoid_focal_loss(ops.convert_to_tensor(targets), values, gamma=gamma))

        slopes = gradient(total, logits)
        assert np.isfinite(slopes).all()
        # Where the answer is wrong by far, the modulation is 1 and the slope that of the cross-entropy.
        np.testing.assert_allclose(slopes[1 if target else 0], -0.25 if target else 0.75, rtol=1e-5)
        assert slopes[0 if target else 1] == 0


def test_focal_gradient_at_logit_zero_by_hand(gradient):
    # d/dx of p^2 softplus(x) at 0: 2 p p (1 - p) softplus + p^2 p = 2/8 log 2 + 1/8, times 0.75;
    # mirrored for positives, times 0.25.
    slope = 0.25 * math.log(2) + 0.125
    targets = np.array([0, 1], np.float32)
    found = gradient(lambda x: ops.sum(sigmoid_focal_loss(ops.convert_to_tensor(targets), x)), [0, 0])
    np.testing.assert_allclose(found, [0.75 * slope, -0.25 * slope], rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
def test_focal_gradient_equals_finite_differences(gamma, gradient):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, 40)
    targets = rng.uniform(0, 1, 40) * (rng.random(40) < 0.5)  # soft targets too

    def reference(x):
        p = 1 / (1 + np.exp(-x))
        entropy = -targets * np.log(p) - (1 - targets) * np.log(1 - p)
        miss = 1 - (p * targets + (1 - p) * (1 - targets))
        return (0.25 * targets + 0.75 * (1 - targets)) * miss**gamma * entropy

    np.testing.assert_allclose(_loss(targets, logits, gamma=gamma), reference(logits), rtol=1e-4, atol=1e-6)
    constant = ops.convert_to_tensor(targets.astype(np.float32))
    found = gradient(lambda x: ops.sum(sigmoid_focal_loss(constant, x, gamma=gamma)), logits)
    expected = (reference(logits + 1e-5) - reference(logits - 1e-5)) / 2e-5
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_focal_of_nothing_is_empty():
    assert _loss(np.zeros((2, 0, 3)), np.zeros((2, 0, 3))).shape == (2, 0, 3)


def test_focal_loss_object_sums_classes_and_averages_the_rest():
    targets, logits = np.array([[1, 0], [0, 0]], np.float32), np.stack([LOGITS, LOGITS])
    elements = _loss(targets, logits)
    np.testing.assert_allclose(SigmoidFocalLoss()(targets, logits), elements.sum() / 2, rtol=1e-6)
    found = ops.convert_to_numpy(SigmoidFocalLoss(reduction="none")(targets, logits))
    np.testing.assert_allclose(found, elements.sum(1), rtol=1e-6)


def test_focal_loss_object_takes_probabilities_and_integer_targets():
    found = SigmoidFocalLoss(from_logits=False)(np.array([[1, 0]]), np.array([[0.9, 0.2]], np.float32))
    np.testing.assert_allclose(found, _loss([1, 0], LOGITS).sum(), rtol=1e-4)


def test_focal_loss_object_of_certain_probabilities_is_finite():
    loss = SigmoidFocalLoss(from_logits=False)
    assert np.isfinite(float(loss(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]], np.float32))))


def test_focal_loss_object_teaches_a_dense_layer():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.SGD(1.0), SigmoidFocalLoss())
    inputs = np.array([[0, 1], [1, 0]] * 8, np.float32)
    history = model.fit(inputs, inputs, epochs=15, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]


def test_focal_loss_object_takes_class_indices_of_which_others_are_background():
    logits = np.stack([LOGITS, LOGITS, LOGITS])
    found = ops.convert_to_numpy(SigmoidFocalLoss(reduction="none")(np.array([0, 1, -1]), logits))
    one_hot = np.array([[1, 0], [0, 1], [0, 0]])
    np.testing.assert_allclose(found, _loss(one_hot, logits).sum(-1), rtol=1e-6)


def test_focal_loss_object_leaves_out_ignored_elements_and_positions():
    logits = np.stack([LOGITS, LOGITS, LOGITS])
    targets = np.array([[1, 255], [0, 0], [255, 255]], np.float32)
    elements = _loss(targets, logits)
    # The second class of the first row and the whole third row do not count: a mean over two rows.
    expected = (elements[0, 0] + elements[1].sum()) / 2
    np.testing.assert_allclose(SigmoidFocalLoss(ignore_class=255)(targets, logits), expected, rtol=1e-6)
    found = SigmoidFocalLoss(ignore_class=255)(np.array([0, 1, 255]), logits)
    np.testing.assert_allclose(found, _loss([[1, 0], [0, 1]], logits[:2]).sum() / 2, rtol=1e-6)


# Shares of 1/4, 1/2 and 1/4.
THREE = np.array([0, math.log(2), 0], np.float32)


def _softmax(labels, logits, **options):
    labels, logits = ops.convert_to_tensor(np.asarray(labels)), ops.convert_to_tensor(np.asarray(logits, np.float32))
    return ops.convert_to_numpy(softmax_focal_loss(labels, logits, **options))


def test_softmax_focal_by_hand():
    # (1 - p)^2 (-log p): (3/4)^2 log 4 and (1/2)^2 log 2.
    expected = [9 / 16 * math.log(4), 0.25 * math.log(2)]
    np.testing.assert_allclose(_softmax([0, 1], [THREE, THREE]), expected, rtol=1e-6)


def test_softmax_focal_weighs_all_alike_or_each_class():
    logits = [THREE, THREE]
    np.testing.assert_allclose(_softmax([0, 1], logits, alpha=0.25), 0.25 * _softmax([0, 1], logits), rtol=1e-6)
    found = _softmax([0, 1, 7], [THREE] * 3, alpha=(3.0, 0.5, 9.0), ignore_class=7)
    np.testing.assert_allclose(found, [*_softmax([0, 1], logits) * [3.0, 0.5], 0], rtol=1e-6)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
def test_softmax_focal_takes_numbers_of_any_kind(kind):
    loss = SoftmaxFocalLoss(alpha=kind(2))
    assert type(loss.alpha) is float
    np.testing.assert_allclose(_softmax([0], [THREE], alpha=kind(2)), 2 * _softmax([0], [THREE]), rtol=1e-6)


def test_softmax_focal_ignores_255_as_its_object_does():
    found = _softmax([0, 255], [THREE] * 2)
    np.testing.assert_allclose(found, [9 / 16 * math.log(4), 0], rtol=1e-6)
    assert np.isnan(_softmax([0, 255], [THREE] * 2, ignore_class=None)[1])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_softmax_focal_of_extreme_logits_by_hand(gamma, gradient):
    logits = np.array([[1e4, 0, 0], [0, 1e4, 0]], np.float32)
    # Right: nothing; wrong by far: the modulation is 1, the loss the distance.
    np.testing.assert_allclose(_softmax([0, 0], logits, gamma=gamma), [0, 1e4])
    labels = ops.convert_to_tensor([0, 0])
    slopes = gradient(lambda x: ops.sum(softmax_focal_loss(labels, x, gamma=gamma)), logits)
    np.testing.assert_allclose(slopes, [[0, 0, 0], [-1, 1, 0]], atol=1e-5)


def test_softmax_focal_object_of_probabilities():
    found = SoftmaxFocalLoss(from_logits=False)(
        np.array([[0, 1, 255]]), np.array([[[0.25, 0.5, 0.25]] * 3], np.float32)
    )
    np.testing.assert_allclose(found, (9 / 16 * math.log(4) + 0.25 * math.log(2)) / 2, rtol=1e-5)


@pytest.mark.parametrize("loss", [SigmoidFocalLoss, SoftmaxFocalLoss])
def test_focal_refuses_a_negative_gamma(loss):
    with pytest.raises(ValueError, match="`gamma` is -1, but must be a number of at least 0"):
        loss(gamma=-1)


def test_softmax_focal_refuses_weights_of_other_classes():
    with pytest.raises(ValueError, match="`alpha` has 2 values, but predictions have 3 classes"):
        SoftmaxFocalLoss((1, 2))(np.array([0]), THREE[None])
    with pytest.raises(ValueError, match=r"`alpha` is \(-1.0,\), but"):
        SoftmaxFocalLoss((-1,))


def test_sigmoid_focal_without_weights_is_none_or_negative():
    expected = _loss([1, 0], LOGITS, alpha=-1)
    np.testing.assert_allclose(_loss([1, 0], LOGITS, alpha=None), expected, rtol=1e-6)
    targets = np.array([[1.0, 0.0]], np.float32)
    for alpha in (None, -1):
        loss = SigmoidFocalLoss(alpha)
        np.testing.assert_allclose(loss(targets, LOGITS[None]), expected.sum(), rtol=1e-6)
        restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
        assert restored.get_config() == loss.get_config() and restored.alpha == alpha
        np.testing.assert_allclose(restored(targets, LOGITS[None]), expected.sum(), rtol=1e-6)


@pytest.mark.parametrize("alpha", [3, 1.01, float("nan"), "0.25", (0.25, 0.75)])
def test_sigmoid_focal_refuses_an_alpha_that_makes_losses_negative(alpha):
    said = r"`alpha` is .*, but must be a number of at most 1, the weight of positives.*; give None for no weighting"
    for call in (lambda: SigmoidFocalLoss(alpha), lambda: _loss([1, 0], LOGITS, alpha=alpha)):
        with pytest.raises(ValueError, match=said):
            call()


@pytest.mark.parametrize("alpha", [-1, -0.5, float("nan"), float("inf"), "0.25"])
def test_softmax_focal_refuses_an_alpha_that_makes_losses_negative(alpha):
    said = r"`alpha` is .*, but must be a number of at least 0, or one for each class; give None for no weighting"
    for call in (lambda: SoftmaxFocalLoss(alpha), lambda: _softmax([0], [THREE], alpha=alpha)):
        with pytest.raises(ValueError, match=said):
            call()


def test_softmax_focal_refuses_negative_weights_of_classes():
    for call in (SoftmaxFocalLoss, lambda alpha: _softmax([0], [THREE], alpha=alpha)):
        with pytest.raises(ValueError, match=r"`alpha` is \(1.0, -1.0, 1.0\), but must be one number of at least 0"):
            call((1, -1, 1))


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
def test_sigmoid_focal_holds_a_plain_number(kind):
    assert type(SigmoidFocalLoss(kind(1)).get_config()["alpha"]) is float

"""Lovász losses by hand."""

import itertools

import numpy as np
import pytest
from keras import ops

from kerasvision.losses import LovaszHingeLoss, LovaszSoftmaxLoss
from kerasvision.losses import lovasz as lovasz_module
from kerasvision.losses.lovasz import lovasz_weights
from kerasvision.ops.compilers import on_cpu


def _value(loss, truth, predictions):
    return np.asarray(ops.convert_to_numpy(loss(np.asarray(truth), np.asarray(predictions, np.float32))))


def _weights(errors, true, counted=None):
    errors, true = np.asarray([errors], np.float32), np.asarray([true], bool)
    counted = np.ones_like(true) if counted is None else np.asarray([counted], bool)
    return ops.convert_to_numpy(lovasz_weights(*map(ops.convert_to_tensor, (errors, true, counted))))[0]


def test_weights_by_hand():
    # Two true pixels. By falling error: a true one is wrong: IoU 1/2; a false one: 1/3; the other true one: 0/3.
    np.testing.assert_allclose(_weights([0.1, 0.9, 0.5], [1, 1, 0]), [1 / 3, 1 / 2, 1 / 2 - 1 / 3], rtol=1e-6)


def test_weights_without_true_pixels_are_those_of_the_worst():
    np.testing.assert_allclose(_weights([0.1, 0.9, 0.5], [0, 0, 0]), [0, 1, 0])


def test_weights_of_pixels_that_do_not_count_are_zero():
    found = _weights([0.1, 0.9, 0.7, 0.5], [1, 1, 1, 0], [1, 1, 0, 1])
    np.testing.assert_allclose(found, [1 / 3, 1 / 2, 0, 1 / 2 - 1 / 3], rtol=1e-6)


def test_weights_add_up_to_the_loss_of_being_all_wrong():
    rng = np.random.default_rng(0)
    # A million pixels, where differences of float32 IoUs would be noise.
    errors, true = rng.random(10**6).astype(np.float32), rng.random(10**6) < 0.1
    found = _weights(errors, true)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.astype(np.float64).sum(), 1, rtol=1e-4)
    order = np.argsort(-errors, kind="stable")
    lost, added = np.cumsum(true[order]), np.cumsum(~true[order])
    jaccard = 1 - (true.sum() - lost) / (true.sum() + added)
    np.testing.assert_allclose(found[order], np.diff(jaccard, prepend=0), rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("truth", [*itertools.product([0, 1], repeat=3)])
def test_hinge_of_hard_errors_is_the_jaccard_loss(truth):
    # Errors of 0 or 1 are the corners at which the extension is the set function itself: 1 - |A and B| / |A or B|.
    for predicted in itertools.product([0, 1], repeat=3):
        union = sum(map(max, truth, predicted))
        expected = 1 - sum(map(min, truth, predicted)) / union if union else 0
        # Wrong pixels at the boundary (logit 0) have an error of 1, right ones (beyond 1) none.
        logits = [0.0 if a != b else 2.0 * (2 * a - 1) for a, b in zip(truth, predicted, strict=True)]
        np.testing.assert_allclose(_value(LovaszHingeLoss(), [truth], [logits]), expected, rtol=1e-6, atol=1e-7)


def test_hinge_by_hand(gradient):
    truth = np.array([[[[1], [0], [1], [255]]]])
    logits = np.array([[[[0.5], [0.25], [-1.0], [9.0]]]], np.float32)
    # Errors 0.5, 1.25, 2. Weights: third 1/2, second 1/2 - 1/3, first 1/3.
    expected = 2 / 2 + 1.25 / 6 + 0.5 / 3
    np.testing.assert_allclose(_value(LovaszHingeLoss(), truth, logits), expected, rtol=1e-6)
    slopes = gradient(lambda x: LovaszHingeLoss()(ops.convert_to_tensor(truth), x), logits)
    np.testing.assert_allclose(slopes.ravel(), [-1 / 3, 1 / 6, -1 / 2, 0], rtol=1e-6)


def test_softmax_by_hand():
    truth = [[[0, 1, 1]]]
    shares = [[[[0.75, 0.25, 0], [0.5, 0.5, 0], [0.25, 0.75, 0]]]]
    # Class 0, one true pixel: errors 0.25, 0.5, 0.25 (ties keep their order: first the true one).
    #   By falling error: false 1 - 1/2, then true 1/2 - 0, then 0: 0.5 / 2 + 0.25 / 2.
    # Class 1, two true pixels: errors 0.25 (false), 0.5 (true), 0.25 (true):
    #   true 1/2; then false 1/2 - 1/3 and true 1/3, whatever their order, as their errors are equal: 0.25 + 0.125.
    # Class 2 is absent.
    found = _value(LovaszSoftmaxLoss(from_logits=False), truth, shares)
    np.testing.assert_allclose(found, (0.375 + 0.375) / 2, rtol=1e-6)


def test_softmax_of_a_perfect_prediction_is_zero_of_a_wrong_one_is_one():
    truth = np.array([[[0, 1, 1]]])
    assert _value(LovaszSoftmaxLoss(from_logits=False), truth, np.eye(2)[truth]) == 0
    np.testing.assert_allclose(_value(LovaszSoftmaxLoss(from_logits=False), truth, np.eye(2)[1 - truth]), 1)


def test_softmax_of_images_differs_from_that_of_the_batch():
    truth = np.array([[[0, 0]], [[0, 1]]])
    shares = np.eye(2)[[[[0, 0]], [[0, 0]]]]
    # Images: perfect; class 0: 1 / 2, class 1: 0 / 1.
    found = _value(LovaszSoftmaxLoss(from_logits=False, per_image=True, reduction="none"), truth, shares)
    np.testing.assert_allclose(found, [0, 1 - (1 / 2 + 0) / 2], rtol=1e-6)
    # Batch: class 0: 3 / 4, class 1: 0 / 1.
    found = _value(LovaszSoftmaxLoss(from_logits=False, reduction="none"), truth, shares)
    np.testing.assert_allclose(found, [1 - (3 / 4 + 0) / 2], rtol=1e-6)


def test_a_large_map_is_sorted_on_the_host_where_that_is_faster(monkeypatch):
    called = []
    sort = lovasz_module._falling_on_host
    monkeypatch.setattr(lovasz_module, "_falling_on_host", lambda errors: called.append(errors.shape) or sort(errors))
    rng = np.random.default_rng(0)
    errors, true = rng.random((3, 400)).astype(np.float32), rng.random((3, 400)) < 0.3
    arguments = [ops.convert_to_tensor(part) for part in (errors, true, np.ones_like(true))]
    found = ops.convert_to_numpy(lovasz_weights(*arguments))
    monkeypatch.setattr(lovasz_module, "on_cpu", lambda _: False)
    np.testing.assert_allclose(ops.convert_to_numpy(lovasz_weights(*arguments)), found, rtol=1e-6)
    assert called == ([(3, 400)] if on_cpu(arguments[0]) else [])


@pytest.mark.parametrize(
    ("true", "predicted"),
    [((2, 4, 5), (2, 4, 5, 3)), ((2, 4, 5, 1), (2, 4, 5, 3)), ((2, 5, 4), (2, 4, 5)), ((2, 4), (2, 4, 5, 1))],
)
def test_hinge_names_shapes_that_do_not_fit(true, predicted):
    said = (
        r"`y_true` has shape \(2, .*\) and `y_pred` \(2, 4, .*\), but LovaszHingeLoss needs a target .* each logit; use"
    )
    with pytest.raises(ValueError, match=said):
        LovaszHingeLoss()(np.zeros(true, np.float32), np.zeros(predicted, np.float32))


@pytest.mark.parametrize(
    ("true", "predicted"),
    [
        ((2, 4, 5), (2, 4, 5, 1)),
        ((2, 4, 5, 1), (2, 4, 5)),
        ((1, 1), (1, 1, 1, 1)),
        ((2, 4, 5, 3), (2, 4, 5, 3)),
        ((3,), (3, 1)),
    ],
)
def test_hinge_takes_last_axes_of_one(true, predicted):
    # Of zeros, every logit is off by 1: the greatest loss.
    found = LovaszHingeLoss()(np.zeros(true, np.float32), np.zeros(predicted, np.float32))
    np.testing.assert_allclose(ops.convert_to_numpy(found), 1, rtol=1e-6)

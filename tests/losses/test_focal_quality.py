"""Quality focal, distribution focal and varifocal losses by hand."""

import math

import numpy as np
import pytest
from keras import ops

from kerasvision.losses import DistributionFocalLoss, QualityFocalLoss, VarifocalLoss
from kerasvision.losses.focal_quality import distribution_focal_loss, quality_focal_loss, varifocal_loss

# Probabilities of 0.9, 0.2 and 0.5.
LOGITS = np.array([math.log(9), -math.log(4), 0], np.float32)


def _call(function, targets, logits, **options):
    targets, logits = (ops.convert_to_tensor(np.asarray(v, np.float32)) for v in (targets, logits))
    return ops.convert_to_numpy(function(targets, logits, **options))


def test_quality_focal_by_hand():
    # |q - p|^2 times the cross-entropy with q.
    expected = [
        0.1**2 * -math.log(0.9),  # q = 1
        0.2**2 * -math.log(0.8),  # q = 0
        0.25**2 * math.log(2),  # q = 0.75: both logarithms are those of 1/2
    ]
    np.testing.assert_allclose(_call(quality_focal_loss, [1, 0, 0.75], LOGITS), expected, rtol=1e-5)


def test_quality_focal_is_zero_where_the_probability_is_the_quality():
    np.testing.assert_allclose(_call(quality_focal_loss, [0.9, 0.2, 0.5], LOGITS), [0, 0, 0], atol=1e-12)


def test_quality_focal_with_beta_zero_is_cross_entropy():
    expected = [-math.log(0.9), -math.log(0.8), math.log(2)]
    np.testing.assert_allclose(_call(quality_focal_loss, [1, 0, 0.75], LOGITS, beta=0), expected, rtol=1e-5)


def test_varifocal_by_hand():
    expected = [
        0.9 * (-0.9 * math.log(0.9) - 0.1 * math.log(0.1)),  # q = 0.9: weighted by q alone
        0.75 * 0.2**2 * -math.log(0.8),  # q = 0: alpha p^2
        0.5 * math.log(2),  # q = 0.5
    ]
    np.testing.assert_allclose(_call(varifocal_loss, [0.9, 0, 0.5], LOGITS), expected, rtol=1e-5)


def test_distribution_focal_by_hand():
    logits = [[0, math.log(2), 0], [0, math.log(2), 0], [0, math.log(2), 0]]  # shares 1/4, 1/2, 1/4
    expected = [
        0.7 * math.log(2) + 0.3 * math.log(4),  # 1.3: 0.7 of bin 1, 0.3 of bin 2
        math.log(2),  # 1: bin 1 alone
        math.log(4),  # 2, the last: bin 2 alone
    ]
    np.testing.assert_allclose(_call(distribution_focal_loss, [1.3, 1, 2], logits), expected, rtol=1e-5)


def test_distribution_focal_takes_targets_out_of_range_as_the_nearest_end():
    logits = [[0, math.log(2), math.log(5)]] * 2
    found = _call(distribution_focal_loss, [-3, 99], logits)
    np.testing.assert_allclose(found, _call(distribution_focal_loss, [0, 2], logits), rtol=1e-6)


def test_distribution_focal_is_least_where_the_mean_bin_is_the_target(gradient):
    targets = ops.convert_to_tensor(np.array([1.25], np.float32))
    slopes = gradient(
        lambda x: ops.sum(distribution_focal_loss(targets, x)), [[-50, math.log(0.75), math.log(0.25), -50]]
    )
    np.testing.assert_allclose(slopes, np.zeros((1, 4)), atol=1e-6)


@pytest.mark.parametrize("loss", [QualityFocalLoss, VarifocalLoss])
def test_objects_add_classes_and_average_the_rest(loss):
    targets = np.array([[0.9, 0, 0], [0, 0.3, 0]], np.float32)
    logits = np.stack([LOGITS, -LOGITS])
    function = {"QualityFocalLoss": quality_focal_loss, "VarifocalLoss": varifocal_loss}[loss.__name__]
    elements = _call(function, targets, logits)
    np.testing.assert_allclose(loss()(targets, logits), elements.sum() / 2, rtol=1e-6)
    np.testing.assert_allclose(loss(reduction="none")(targets, logits), elements.sum(-1), rtol=1e-6)
    found = loss(from_logits=False)(targets, 1 / (1 + np.exp(-logits)))
    np.testing.assert_allclose(found, elements.sum() / 2, rtol=1e-4)


def test_distribution_focal_object_keeps_the_sides_of_a_box():
    positions = np.full((2, 5, 4), 1.5, np.float32)
    logits = np.zeros((2, 5, 4, 8), np.float32)
    found = ops.convert_to_numpy(DistributionFocalLoss(reduction="none")(positions, logits))
    np.testing.assert_allclose(found, np.full((2, 5, 4), math.log(8)), rtol=1e-6)


def test_no_boxes_give_no_losses():
    assert _call(quality_focal_loss, np.zeros((2, 0, 3)), np.zeros((2, 0, 3))).shape == (2, 0, 3)
    assert _call(varifocal_loss, np.zeros((2, 0, 3)), np.zeros((2, 0, 3))).shape == (2, 0, 3)
    assert _call(distribution_focal_loss, np.zeros((0, 4)), np.zeros((0, 4, 8))).shape == (0, 4)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="`beta` is -2"):
        QualityFocalLoss(-2)
    with pytest.raises(ValueError, match=r"`alpha` is -0\.5"):
        VarifocalLoss(-0.5)

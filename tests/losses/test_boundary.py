"""Boundary weights by hand."""

import math

import numpy as np
import pytest
from keras import ops
from keras.src.backend import set_keras_mask

from kerasvision.losses import BoundaryCrossEntropyLoss, CrossEntropyLoss, unet_weight_map
from kerasvision.losses.boundary import boundary_weights, class_boundaries


def _numpy(function, masks, **options):
    return ops.convert_to_numpy(function(ops.convert_to_tensor(np.asarray(masks)), **options))


def test_boundaries_are_both_sides_of_an_edge():
    mask = [[[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]]
    expected = [[[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]]]
    np.testing.assert_array_equal(_numpy(class_boundaries, mask), np.array(expected, bool))


def test_boundaries_with_ignored_pixels_are_none():
    assert not _numpy(class_boundaries, [[[0, 255, 1, 1]]]).any()
    assert _numpy(class_boundaries, [[[0, 255, 1, 1]]], ignore_class=None).tolist() == [[[True, True, True, False]]]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 5), (2, 5, 1), (0, 3, 3)])
def test_boundaries_of_one_class_are_none_and_weigh_one(shape):
    masks = np.full(shape, 3)
    assert not _numpy(class_boundaries, masks).any()
    np.testing.assert_array_equal(_numpy(boundary_weights, masks), np.ones(shape, np.float32))


def test_boundary_weights_by_hand():
    mask = np.zeros((1, 4, 12), int)
    mask[0, 0, 0] = 1
    # The boundary is the corner (0, 0), (0, 1) and (1, 0); at (3, 3) the nearest is (0, 1) or (1, 0), at 3^2 + 2^2.
    found = _numpy(boundary_weights, mask, w0=5.0, sigma=2.0)
    assert found[0, 0, 0] == found[0, 1, 0] == 6
    np.testing.assert_allclose(found[0, 0, 4], 1 + 5 * math.exp(-9 / 8), rtol=1e-6)
    np.testing.assert_allclose(found[0, 3, 3], 1 + 5 * math.exp(-13 / 8), rtol=1e-6)
    assert found[0, 0, 9] > 1 and found[0, 0, 10] == 1  # beyond 4 sigma


def test_boundary_cross_entropy_is_weighted_cross_entropy():
    rng = np.random.default_rng(0)
    masks, logits = rng.integers(0, 2, (2, 6, 6)), rng.normal(size=(2, 6, 6, 2)).astype(np.float32)
    masks[0, :2] = 255
    weights = _numpy(boundary_weights, masks, w0=3.0, sigma=0.5)
    assert 1 < weights.mean() < 4
    found = BoundaryCrossEntropyLoss(3.0, 0.5, class_weights=(1, 2))(masks, logits)
    expected = CrossEntropyLoss(class_weights=(1, 2))(masks, logits, weights)
    np.testing.assert_allclose(ops.convert_to_numpy(found), ops.convert_to_numpy(expected), rtol=1e-6)


def test_unet_weight_map_by_hand():
    instances = np.zeros((1, 7), int)
    instances[0, 0], instances[0, 4] = 5, 9  # any numbers
    # d1 + d2 is 4 in the gap; right of both 1 + 5 and 2 + 6. Background weighs 1, instances 1.
    found = unet_weight_map(instances, w0=10.0, sigma=5.0, background_weight=1.0)
    gap, beyond, far = (1 + 10 * math.exp(-(d**2) / 50) for d in (4, 6, 8))
    np.testing.assert_allclose(found, [[1, gap, gap, gap, 1, beyond, far]], rtol=1e-6)
    assert found.dtype == np.float32


def test_unet_weight_map_balances_background_and_instances():
    instances = np.array([[1, 0, 0, 0]])
    # One instance: no gap. 3 of 4 pixels are background: 0.5 / 0.75 and 0.5 / 0.25.
    np.testing.assert_allclose(unet_weight_map(instances), [[2, 2 / 3, 2 / 3, 2 / 3]], rtol=1e-6)


@pytest.mark.parametrize("instances", [np.zeros((3, 4), int), np.ones((3, 4), int), np.zeros((0, 4), int)])
def test_unet_weight_map_of_one_kind_of_pixel_is_one(instances):
    np.testing.assert_array_equal(unet_weight_map(instances), np.ones(instances.shape))


def test_unet_weight_map_does_not_depend_on_the_numbers():
    rng = np.random.default_rng(0)
    instances = np.kron(rng.integers(0, 3, (4, 5)), np.ones((6, 6), int))
    renamed = np.choose(instances, [0, 300, -7])
    np.testing.assert_array_equal(unet_weight_map(renamed, sigma=2.0), unet_weight_map(instances, sigma=2.0))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"`instances` has shape \(1, 3, 4\) and dtype int64.*for each image"):
        unet_weight_map(np.zeros((1, 3, 4), np.int64))
    with pytest.raises(ValueError, match=r"`instances` has shape .* float64"):
        unet_weight_map(np.zeros((3, 4)))
    for call in (BoundaryCrossEntropyLoss, lambda sigma: unet_weight_map(np.zeros((3, 4), int), sigma=sigma)):
        with pytest.raises(ValueError, match="`sigma` is 0, but must be a positive number of pixels"):
            call(sigma=0)
    with pytest.raises(ValueError, match="`w0` is -1"):
        BoundaryCrossEntropyLoss(-1)


def test_no_boundary_runs_along_masked_pixels():
    masks = np.array([[[0, 0, 1, 1]]])
    predictions = ops.convert_to_tensor(np.zeros((1, 1, 4, 2), np.float32))
    set_keras_mask(predictions, ops.convert_to_tensor([[[True, True, False, False]]]))
    found = BoundaryCrossEntropyLoss(sigma=1.0, ignore_class=None)(masks, predictions)
    np.testing.assert_allclose(ops.convert_to_numpy(found), math.log(2), rtol=1e-6)

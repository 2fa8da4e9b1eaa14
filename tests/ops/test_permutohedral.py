"""The permutohedral lattice: values by hand, and against sums over all pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasvision.ops.permutohedral import permutohedral_lattice


def _points(seed, count, dimensions, spread=3.0):
    return np.random.default_rng(seed).uniform(0, spread, (count, dimensions)).astype(np.float32)


def test_one_point_by_hand():
    # On a corner: splat (1, 0) to it and the next one; blurred twice, 1 -> (1, .5) -> 1 + .25; scale 1 / (1 + 1/2).
    found = permutohedral_lattice(np.zeros((1, 1), np.float32)).filter(np.array([[1, -6]], np.float32))
    np.testing.assert_allclose(found, [[5 / 6, -5]], rtol=1e-6)


def test_two_points_between_two_corners_by_hand():
    # In one dimension corners are 1 apart in coordinates of f * sqrt(2/3) * 2 / sqrt(2), over 2: both points lie in the
    # simplex of corners 0 and 1, a quarter and a half along. Splat of (1, 0): (.75, .25); blurred by 1, 1/2 twice:
    # (.875, .625), (1.1875, 1.0625); scaled by 2/3 and sliced: .75 1.1875 + .25 1.0625, .5 1.1875 + .5 1.0625.
    unit = 1 / (np.sqrt(2 / 3) * np.sqrt(2))
    lattice = permutohedral_lattice(np.array([[0.25 * unit], [0.5 * unit]], np.float32))
    found = lattice.filter(np.array([[1], [0]], np.float32))
    np.testing.assert_allclose(found[:, 0], [1.15625 * 2 / 3, 1.125 * 2 / 3], rtol=1e-6)


@pytest.mark.parametrize(("dimensions", "largest", "mean"), [(1, 0.15, 0.05), (2, 0.25, 0.06), (5, 0.6, 0.06)])
def test_weights_are_roughly_gaussian(dimensions, largest, mean):
    # As dense as a picture; fewer points leave holes in the lattice, over which nothing is blurred.
    points = _points(0, 700, dimensions, spread=5.0 if dimensions < 5 else 2.0)
    exact = np.exp(-0.5 * np.square(points[:, None] - points).sum(-1))
    weights = permutohedral_lattice(points).filter(np.eye(len(points), dtype=np.float32))
    weights *= (weights * exact).sum() / np.square(weights).sum()
    difference = np.abs(weights - exact)
    assert difference.max() < largest
    assert difference.mean() < mean


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 5))
def test_filter_keeps_the_order_of_points_and_is_linear(seed, count, dimensions):
    points = _points(seed, count, dimensions)
    values = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    order = np.random.default_rng(seed).permutation(count)
    filtered = permutohedral_lattice(points).filter(values)
    np.testing.assert_allclose(permutohedral_lattice(points[order]).filter(values[order]), filtered[order], atol=1e-5)
    sums = permutohedral_lattice(points).filter(values.sum(-1, keepdims=True))
    np.testing.assert_allclose(sums[:, 0], filtered.sum(-1), atol=1e-4)


def test_scaled_multiplies_before_and_after():
    lattice = permutohedral_lattice(_points(1, 30, 2))
    values = _points(2, 30, 4)
    before, after = _points(3, 30, 1)[:, 0], _points(4, 30, 1)[:, 0]
    expected = after[:, None] * lattice.filter(before[:, None] * values)
    np.testing.assert_allclose(lattice.scaled(before, after).filter(values), expected, rtol=1e-5)


def test_far_points_need_a_hash_and_disturb_nothing():
    # 5 coordinates of 2^17 values and more do not fit into 63 bits.
    near = _points(5, 200, 5)
    far = near + np.array([6e4, -6e4, 6e4, 6e4, -6e4], np.float32)
    values = _points(6, 400, 2)
    together = permutohedral_lattice(np.concatenate([near, far])).filter(values)
    np.testing.assert_allclose(together[:200], permutohedral_lattice(near).filter(values[:200]), rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e9])
def test_features_off_the_lattice_are_refused(bad):
    with pytest.raises(ValueError, match="standard deviations, but float32 can place about"):
        permutohedral_lattice(np.array([[0, 1], [2, bad]], np.float32))

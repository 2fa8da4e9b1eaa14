"""Linear assignment: by hand, against every permutation, and at the edges."""

import itertools
import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerasvision.ops.hungarian import UNASSIGNED, assign

SOLVERS = ["host", "graph"]
# Eagerly the graph solver takes seconds on PyTorch and TensorFlow: small problems there.


def _assign(cost, valid=None, solver="auto"):
    cost = np.asarray(cost, np.float32)
    rows = ops.convert_to_numpy(assign(cost, valid, solver=solver))
    assert rows.dtype == np.int32 and rows.shape == (cost.shape[0], cost.shape[2])
    return rows


@pytest.mark.parametrize("solver", SOLVERS)
def test_assign_by_hand(solver):
    # Greedy takes 1 and then 9: 10. The best is 2 + 3 = 5.
    np.testing.assert_array_equal(_assign([[[1, 2], [3, 9]]], solver=solver), [[1, 0]])


@pytest.mark.parametrize("solver", SOLVERS)
def test_assign_with_more_rows_than_columns_leaves_rows_over(solver):
    # Rows x columns. Column 0: 5, 1, 7; column 1: 2, 1, 9. 1 + 2 = 3 is lowest: rows 1 and 0.
    np.testing.assert_array_equal(_assign([[[5, 2], [1, 1], [7, 9]]], solver=solver), [[1, 0]])


@pytest.mark.parametrize("solver", SOLVERS)
def test_assign_with_fewer_rows_than_columns_leaves_the_dearest_column_over(solver):
    np.testing.assert_array_equal(_assign([[[5, 3, 9]]], solver=solver), [[UNASSIGNED, 0, UNASSIGNED]])


@pytest.mark.parametrize("solver", SOLVERS)
def test_assign_ignores_padding_columns_whatever_they_hold(solver):
    cost = [[[1, -100, 2], [3, np.nan, 9]], [[0, 0, 0], [0, 0, 0]]]
    valid = np.array([[True, False, True], [False, False, False]])
    np.testing.assert_array_equal(_assign(cost, valid, solver), [[1, -1, 0], [-1, -1, -1]])


@pytest.mark.parametrize("solver", SOLVERS)
def test_assign_takes_what_is_not_finite_only_where_nothing_else_is_left(solver):
    nan, infinity = math.nan, math.inf
    # Column 0 could take row 0 at 1, but then column 1 would be left with NaN.
    np.testing.assert_array_equal(_assign([[[1, 2], [90, nan]]], solver=solver), [[1, 0]])
    np.testing.assert_array_equal(_assign([[[1, 2], [90, -infinity]]], solver=solver), [[1, 0]])
    assert sorted(_assign([[[nan, nan], [infinity, -infinity]]], solver=solver)[0]) == [0, 1]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(2, 3, 0), (2, 0, 3), (2, 0, 0)])
def test_assign_without_rows_or_columns_is_unassigned(solver, shape):
    np.testing.assert_array_equal(_assign(np.zeros(shape), solver=solver), np.full((2, shape[2]), UNASSIGNED))


@pytest.mark.parametrize("solver", SOLVERS)
def test_assign_keeps_the_digits_of_costs_beside_a_forbidden_pair(solver):
    # A penalty of 1e9 in float32 has steps of 64 and could not tell 1.001 from 1.
    cost = np.full((1, 3, 3), np.inf)
    cost[0, :2, :2] = [[1.001, 1.0], [1.0, 1.0]]
    cost[0, 2, 2] = 5
    rows = _assign(cost, solver=solver)
    np.testing.assert_array_equal(rows, [[1, 0, 2]])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([(2, 3), (4, 4), (5, 3)]), st.booleans())
def test_assign_is_as_cheap_as_the_best_permutation_and_follows_a_shuffle(seed, shape, ties):
    rows, columns = shape
    rng = np.random.default_rng(seed)
    cost = rng.integers(0, 3, (rows, columns)) if ties else rng.normal(size=(rows, columns))
    if rows >= columns:
        totals = [cost[list(p), range(columns)].sum() for p in itertools.permutations(range(rows), columns)]
    else:
        totals = [cost[range(rows), list(p)].sum() for p in itertools.permutations(range(columns), rows)]

    def total(costs):
        chosen = _assign(costs[None], solver="host")[0]
        taken = chosen >= 0
        assert taken.sum() == min(rows, columns) == len(set(chosen[taken]))
        return costs[chosen[taken], np.nonzero(taken)[0]].sum()

    np.testing.assert_allclose(total(cost), min(totals), atol=1e-5)
    shuffled = cost[rng.permutation(rows)][:, rng.permutation(columns)]
    np.testing.assert_allclose(total(shuffled), min(totals), atol=1e-5)
    np.testing.assert_allclose(total(cost + 7), min(totals) + 7 * min(rows, columns), atol=1e-5)


def test_assign_by_both_solvers_costs_the_same():
    rng = np.random.default_rng(0)
    for cost in (rng.normal(size=(3, 9, 6)), rng.integers(0, 3, (3, 6, 9)), 1e4 + rng.random((3, 6, 6))):
        totals = []
        for solver in SOLVERS:
            rows = _assign(cost, solver=solver)
            totals.append(
                np.where(rows >= 0, np.take_along_axis(cost, np.maximum(rows, 0)[:, None], 1)[:, 0], 0).sum(1)
            )
        np.testing.assert_allclose(totals[0], totals[1], rtol=1e-6)


def _total(cost, rows):
    (columns,) = np.nonzero(rows >= 0)
    assert len(set(rows[columns])) == len(columns)
    return cost.astype(np.float64)[rows[columns], columns].sum()


@pytest.mark.parametrize("shape", [(20, 60), (100, 300), (60, 20)])
def test_assign_in_the_graph_costs_what_scipy_finds_whatever_the_range(shape):
    rng = np.random.default_rng(0)
    noise = rng.random((6, *shape))
    # One call: JAX compiles each shape anew.
    cost = np.stack(
        [noise[0], 1e-6 * noise[1], 1e6 * noise[2], 1000 + 0.1 * noise[3], noise[4] - 0.5, np.floor(9 * noise[5])]
    ).astype(np.float32)
    valid = np.ones((6, shape[1]), bool)
    valid[4, ::2] = False
    valid[5, 7:] = False  # fewer valid columns than rows
    found = _assign(cost, valid, "graph")
    best = _assign(cost, valid, "host")
    for image in range(6):
        assert ((found[image] >= 0).sum()) == min(shape[0], valid[image].sum())
        assert not (found[image][~valid[image]] >= 0).any()
        excess = _total(cost[image], found[image]) - _total(cost[image], best[image])
        # A hundred-thousandth of the range of one cost.
        assert abs(excess) < 1e-5 * np.ptp(cost[image]), (image, excess)


@pytest.mark.parametrize("solver", SOLVERS)
def test_assign_ends_whatever_the_size_of_the_costs(solver):
    # 3e38 less -3e38 overflows float32.
    np.testing.assert_array_equal(_assign([[[3e38, -3e38, 0]]], solver=solver), [[-1, 0, -1]])
    np.testing.assert_array_equal(_assign([[[3e38], [-3e38], [0]]], solver=solver), [[1]])
    np.testing.assert_array_equal(_assign([[[-3e38, 3e38], [np.inf, -3e38]]], solver=solver), [[0, 1]])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow has sizes unknown in a graph")
@pytest.mark.parametrize("xla", [False, True])
def test_assign_of_sizes_unknown_in_the_graph(xla):
    import tensorflow as tf

    function = tf.function(
        lambda cost: assign(cost, solver="graph"), jit_compile=xla, input_signature=[tf.TensorSpec((None, None, None))]
    )
    cost = np.random.default_rng(0).random((2, 3, 5)).astype(np.float32)
    for values in (cost, np.swapaxes(cost, 1, 2)):
        np.testing.assert_array_equal(function(values).numpy(), _assign(values, solver="host"))
    for shape in ((2, 3, 0), (2, 0, 3), (0, 2, 3)):
        np.testing.assert_array_equal(function(np.zeros(shape, "float32")).numpy(), np.full((shape[0], shape[2]), -1))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_assign_takes_other_floats(dtype):
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has float64 only with jax_enable_x64")
    cost = ops.cast(np.array([[[1, 2], [3, 9]]], np.float32), dtype)
    for solver in SOLVERS:
        np.testing.assert_array_equal(ops.convert_to_numpy(assign(cost, solver=solver)), [[1, 0]])


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch runs eagerly")
@pytest.mark.parametrize("xla", [False, True])
def test_assign_in_compiled_code(xla):
    cost = np.random.default_rng(0).normal(size=(2, 30, 10)).astype(np.float32)
    expected = _assign(cost)
    if keras.backend.backend() == "jax":
        import jax

        found = jax.jit(lambda values: assign(values, solver="graph" if xla else "auto"))(cost)
    else:
        import tensorflow as tf

        # XLA needs sizes; a graph takes any.
        signature = [tf.TensorSpec((2, 30, 10) if xla else (None, None, None))]
        found = tf.function(lambda values: assign(values), jit_compile=xla, input_signature=signature)(cost)
    np.testing.assert_array_equal(np.asarray(found), expected)


def test_assign_inside_fit_lets_gradients_through_to_what_was_chosen():
    class Nearest(keras.losses.Loss):
        def call(self, y_true, y_pred):
            distance = ops.abs(ops.expand_dims(y_pred, 2) - ops.expand_dims(y_true, 1))  # (B, R, C)
            rows = assign(distance)
            return ops.sum(distance * ops.one_hot(rows, 3, axis=1), axis=(1, 2))

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.Adam(0.1), Nearest())
    targets = np.tile([[5.0, -5.0]], (320, 1)).astype(np.float32)
    history = model.fit(np.ones((320, 1), np.float32), targets, batch_size=8, epochs=3, verbose=0).history["loss"]
    assert history[-1] < 0.1 * history[0]


def test_assign_with_an_unknown_solver_says_which_there_are():
    with pytest.raises(ValueError, match=r"`solver` 'greedy' is unknown; use one of 'auto', 'host', 'graph'"):
        assign(np.zeros((1, 2, 2)), solver="greedy")

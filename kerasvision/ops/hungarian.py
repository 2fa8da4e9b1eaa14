"""The linear assignment problem: one row for each column, at the lowest total cost ("Hungarian matching")."""

from typing import Literal

import keras
import numpy as np
from keras import ops

from kerasvision.ops.compilers import under_xla

Solver = Literal["auto", "host", "graph"]
SOLVERS = ("auto", "host", "graph")
UNASSIGNED = -1


def assign(cost, valid=None, *, solver: Solver = "auto"):
    """Return, for each column, the row assigned to it, so that the sum of the costs is the lowest possible.

    No row is used twice. As many valid columns as possible get a row: all of them, if there are at least as many rows.

    Args:
        cost: (B, R, C), of any float dtype. An entry that is NaN or infinite (of either sign) is a pair to avoid:
            taken only where nothing else is left, as few times as possible.
        valid: (B, C) bool; False marks padding columns, which are assigned to nothing. ``None``: all are valid.
        solver: ``"host"`` calls `scipy.optimize.linear_sum_assignment` for each image, in float64.
            ``"graph"`` runs `keras.ops` only: the shortest-augmenting-path algorithm that SciPy has too, for all images
            at once, in float64 on TensorFlow and PyTorch and on JAX with `jax_enable_x64`; on JAX without, in
            float32, and the total is the lowest to within float32 rounding.
            ``"auto"`` is the host, except under TensorFlow's XLA (`jit_compile=True`), which cannot call it.

    Returns:
        int32 (B, C): row indices, `UNASSIGNED` (-1) for padding and for columns left without a row. No gradient.

    Raises:
        ValueError: An unknown solver.

    Both are exact: costs are never offset by a penalty that would swallow their digits. The host solver works
    eagerly, in `tf.function` and in `fit` on TensorFlow, under `jax.jit` (as a `pure_callback`) and eagerly on PyTorch,
    on a GPU at the price of a copy; it does not export. Use ``"graph"`` for accelerators without callbacks and for
    exported graphs. Four 300x100 problems take the host about 2 ms; the graph 3 ms under JAX's XLA and 30 ms in a
    `tf.function` (on two CPU cores), and seconds run eagerly.

    Source: Crouse 2016, "On implementing 2D rectangular assignment algorithms", the algorithm of SciPy.
    """
    if solver not in SOLVERS:
        raise ValueError(f"`solver` {solver!r} is unknown; use one of {', '.join(map(repr, SOLVERS))}")
    cost = ops.stop_gradient(ops.convert_to_tensor(cost))
    if keras.backend.standardize_dtype(cost.dtype) != "float64":
        cost = ops.cast(cost, "float32")
    batch, _, columns = ops.shape(cost)
    valid = ops.ones((batch, columns), "bool") if valid is None else ops.cast(valid, "bool")
    if solver == "auto":
        # Under TensorFlow's XLA there is no kernel for calls to Python.
        solver = "graph" if keras.backend.backend() == "tensorflow" and under_xla() else "host"
    return _assign_on_host(cost, valid) if solver == "host" else _assign_in_graph(cost, valid)


def _assign_on_host(cost, valid):
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        rows = tf.numpy_function(_solve_batch, [tf.cast(cost, tf.float64), valid], tf.int32, stateful=False)
        rows.set_shape((cost.shape[0], cost.shape[2]))
        return rows
    if backend == "jax":
        import jax

        shape = jax.ShapeDtypeStruct((cost.shape[0], cost.shape[2]), "int32")
        return jax.pure_callback(_solve_batch, shape, cost, valid, vmap_method="sequential")
    return ops.convert_to_tensor(_solve_batch(ops.convert_to_numpy(cost), ops.convert_to_numpy(valid)))


def _solve_batch(cost, valid):
    """Return the rows of each image's columns: NumPy in, NumPy out."""
    from scipy.optimize import linear_sum_assignment

    cost, valid = np.asarray(cost, np.float64), np.asarray(valid)
    rows = np.full(valid.shape, UNASSIGNED, np.int32)
    for image, (image_cost, image_valid) in enumerate(zip(cost, valid, strict=True)):
        (columns,) = np.nonzero(image_valid)
        chosen, positions = linear_sum_assignment(_without_infinities(image_cost[:, columns]))
        rows[image, columns[positions]] = chosen
    return rows


def _without_infinities(cost):
    """Return the costs with one more than the worst possible total in place of what is not finite."""
    finite = np.isfinite(cost)
    if finite.all():
        return cost
    lowest, highest = cost.min(where=finite, initial=0), cost.max(where=finite, initial=0)
    return np.where(finite, cost, highest + (highest - lowest + 1) * (min(cost.shape) + 1))


def _assign_in_graph(cost, valid):
    """Assign column after column, each by a shortest augmenting path (Dijkstra on reduced costs)."""
    columns_are_none = cost.shape[2] == 0 or cost.shape[1] == 0
    if columns_are_none:
        return ops.cast(ops.zeros_like(valid), "int32") + UNASSIGNED
    dtype = "float32" if keras.backend.backend() == "jax" else "float64"
    if keras.backend.backend() == "jax":
        import jax

        dtype = "float64" if jax.config.jax_enable_x64 else dtype
    rows_count = ops.shape(cost)[1]
    cost = _with_spare_rows(ops.cast(cost, dtype), valid)  # (B, R + C, C)
    batch, rows, columns = ops.shape(cost)
    cost = ops.transpose(cost, (0, 2, 1))  # (B, C, R + C): one column's costs lie together
    free = ops.full((batch, rows), UNASSIGNED, "int32")
    state = (
        0,
        ops.zeros((batch, columns), dtype),  # duals of columns
        ops.zeros((batch, rows), dtype),  # duals of rows
        free,  # column of each row
        ops.full((batch, columns), UNASSIGNED, "int32"),  # row of each column
    )

    def add_column(column, column_duals, row_duals, column_of_row, row_of_column):
        active = ops.take(valid, column, axis=1)  # (B,)
        start = ops.where(active, column, UNASSIGNED)
        found = _shortest_path(cost, start, column_duals, row_duals, column_of_row)
        sink, came_from, distance, visited_rows, total = found
        # Duals: visited columns rise, and visited rows fall, by what the path saved over their own distance.
        slack = ops.where(visited_rows, ops.expand_dims(total, 1) - distance, 0)  # (B, R + C)
        row_duals = row_duals - slack
        column_duals = column_duals + _spread(slack, column_of_row, columns)
        started = ops.expand_dims(ops.arange(columns) == column, 0) & ops.expand_dims(active, 1)  # (B, C)
        column_duals = column_duals + ops.where(started, ops.expand_dims(total, 1), 0)
        column_of_row, row_of_column = _augment(start, sink, came_from, column_of_row, row_of_column)
        return column + 1, column_duals, row_duals, column_of_row, row_of_column

    state = ops.while_loop(lambda column, *_: column < columns, add_column, state)
    row_of_column = state[-1]
    return ops.where(row_of_column < rows_count, row_of_column, UNASSIGNED)


def _with_spare_rows(cost, valid):
    """Append one row for each column, dearer than any total: who gets it has no row. Replaces what is not finite."""
    rows, columns = ops.shape(cost)[1], ops.shape(cost)[2]
    usable = ops.isfinite(cost)
    lowest = ops.min(ops.where(usable, cost, 0), axis=(1, 2), keepdims=True)  # (B, 1, 1)
    highest = ops.max(ops.where(usable, cost, 0), axis=(1, 2), keepdims=True)
    count = ops.cast(ops.minimum(rows, columns) + 1, cost.dtype)
    avoided = highest + (highest - lowest + 1) * count
    cost = ops.where(usable, cost, avoided)
    if isinstance(rows, int) and isinstance(columns, int) and rows >= columns:
        return cost  # every column gets a row
    spare = avoided + (avoided - lowest + 1) * count  # (B, 1, 1)
    return ops.concatenate([cost, ops.broadcast_to(spare, (ops.shape(cost)[0], columns, columns))], axis=1)


def _pick(values, indices):
    """Return values[b, indices[b]] of (B, N), 0 where an index is negative."""
    chosen = ops.arange(ops.shape(values)[1], dtype="int32") == ops.expand_dims(indices, 1)  # (B, N)
    return ops.sum(ops.where(chosen, values, ops.zeros_like(values)), axis=1)


def _spread(values, indices, count):
    """Return sums (B, count) of values (B, N) by their indices (B, N); negative indices drop out."""
    batch = ops.shape(values)[0]
    places = ops.where(indices < 0, count, indices)  # one more place, for those that drop out
    places = places + (count + 1) * ops.expand_dims(ops.arange(batch, dtype="int32"), 1)
    sums = ops.segment_sum(ops.reshape(values, (-1,)), ops.reshape(places, (-1,)), batch * (count + 1))
    return ops.reshape(sums, (batch, count + 1))[:, :count]


def _shortest_path(cost, start, column_duals, row_duals, column_of_row):
    """Return the free row nearest to the column `start` (B,), -1 for no column, and how Dijkstra got there.

    Returns:
        sink (B,), came_from (B, R) columns, distance (B, R), visited (B, R) bool, total (B,): the sink's distance.
    """
    batch, _, rows = ops.shape(cost)
    infinity = float("inf")
    positions = ops.expand_dims(ops.arange(rows, dtype="int32"), 0)  # (1, R)

    def keep_going(column, *_):
        return ops.any(column >= 0)

    def visit(column, sink, came_from, distance, visited, total):
        searching = column >= 0  # (B,)
        safe = ops.maximum(column, 0)
        index = ops.arange(batch, dtype="int32") * ops.shape(cost)[1] + safe
        costs = ops.take(ops.reshape(cost, (-1, rows)), index, axis=0)  # (B, R)
        through = costs + ops.expand_dims(total - _pick(column_duals, safe), 1) - row_duals
        closer = ops.expand_dims(searching, 1) & ops.logical_not(visited) & (through < distance)
        distance = ops.where(closer, through, distance)
        came_from = ops.where(closer, ops.expand_dims(column, 1), came_from)
        open_distance = ops.where(visited, infinity, distance)
        # A free row among equally near ones ends the search.
        nearest = ops.min(open_distance, axis=1)  # (B,)
        preferred = (open_distance == ops.expand_dims(nearest, 1)) & (column_of_row < 0)
        best = ops.where(ops.any(preferred, axis=1), ops.argmax(preferred, axis=1), ops.argmin(open_distance, axis=1))
        best = ops.cast(best, "int32")
        owner = _pick(column_of_row, best)
        visited = visited | (ops.expand_dims(searching, 1) & (positions == ops.expand_dims(best, 1)))
        total = ops.where(searching, nearest, total)
        sink = ops.where(searching & (owner < 0), best, sink)
        column = ops.where(searching, owner, UNASSIGNED)  # -1 too when a free row is found
        return column, sink, came_from, distance, visited, total

    unassigned = ops.full((batch, rows), UNASSIGNED, "int32")
    state = (
        start,
        ops.full((batch,), UNASSIGNED, "int32"),
        unassigned,
        ops.full((batch, rows), infinity, cost.dtype),
        ops.zeros((batch, rows), "bool"),
        ops.zeros((batch,), cost.dtype),
    )
    return ops.while_loop(keep_going, visit, state)[1:]


def _augment(start, sink, came_from, column_of_row, row_of_column):
    """Hand the rows along the path on: each column takes the row that the search reached from it."""
    rows = ops.expand_dims(ops.arange(ops.shape(column_of_row)[1], dtype="int32"), 0)
    columns = ops.expand_dims(ops.arange(ops.shape(row_of_column)[1], dtype="int32"), 0)

    def keep_going(row, *_):
        return ops.any(row >= 0)

    def step(row, column_of_row, row_of_column):
        column = ops.where(row >= 0, _pick(came_from, row), UNASSIGNED)  # (B,)
        previous = ops.where(column == start, UNASSIGNED, _pick(row_of_column, column))
        here = ops.expand_dims(column, 1)
        row_here = ops.expand_dims(row, 1)
        column_of_row = ops.where((rows == row_here) & (row_here >= 0), here, column_of_row)
        row_of_column = ops.where((columns == here) & (here >= 0), row_here, row_of_column)
        return ops.where(row >= 0, previous, UNASSIGNED), column_of_row, row_of_column

    return ops.while_loop(keep_going, step, (sink, column_of_row, row_of_column))[1:]

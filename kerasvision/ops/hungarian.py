"""The linear assignment problem: one row for each column, at the lowest total cost ("Hungarian matching")."""

from typing import Literal

import keras
import numpy as np
from keras import ops

from kerasvision.ops.compilers import call_on_host, can_call_host
from kerasvision.ops.rows import take_rows

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
            ``"auto"`` is the host, except under TensorFlow's XLA (`jit_compile=True`), which cannot call it, and under
            JAX on a CPU with as many devices as cores, or one core, where calls out of a program wait for ever.

    Returns:
        int32 (B, C): row indices, `UNASSIGNED` (-1) for padding and for columns left without a row. No gradient.

    Raises:
        ValueError: An unknown solver.

    Both are exact: costs are never offset by a penalty that would swallow their digits (but finite costs beside pairs
    to avoid have about min(R, C) times less of them). The host solver works
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
        solver = "host" if can_call_host() else "graph"
    if solver == "graph":
        return _assign_in_graph(cost, valid)
    return call_on_host(_solve_batch, (cost.shape[0], cost.shape[2]), cost, valid)


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
    """Match all of the smaller side: columns where there are at least as many rows, else rows."""
    if cost.shape[2] == 0 or cost.shape[1] == 0:
        return ops.cast(ops.zeros_like(valid), "int32") + UNASSIGNED
    dtype = "float64"
    if keras.backend.backend() == "jax":
        import jax

        dtype = "float64" if jax.config.jax_enable_x64 else "float32"
    cost = _in_unit_range(ops.cast(cost, dtype))
    if cost.shape[1] is None or cost.shape[2] is None:
        rows, columns = ops.shape(cost)[1:]
        return ops.cond(rows >= columns, lambda: _match_columns(cost, valid), lambda: _match_rows(cost, valid))
    return _match_columns(cost, valid) if cost.shape[1] >= cost.shape[2] else _match_rows(cost, valid)


def _in_unit_range(cost):
    """Move the finite costs of each image to [0, 1], and what is not finite above any total of them."""
    usable = ops.isfinite(cost)
    # By the largest first, so that the difference of the highest and the lowest does not overflow; and by 16 before,
    # so that the inverse of the largest is no subnormal, which compilers take for 0.
    cost = cost / 16
    size = ops.max(ops.where(usable, ops.absolute(cost), 0), axis=(1, 2), keepdims=True, initial=1e-30)  # (B, 1, 1)
    cost = cost / size
    lowest = ops.min(ops.where(usable, cost, 1), axis=(1, 2), keepdims=True, initial=1)
    highest = ops.max(ops.where(usable, cost, -1), axis=(1, 2), keepdims=True, initial=-1)
    spread = ops.maximum(highest - lowest, 1e-30)  # there may be one cost only
    pairs = ops.minimum(ops.shape(cost)[1], ops.shape(cost)[2])
    return ops.where(usable, (cost - lowest) / spread, ops.cast(pairs + 2, cost.dtype))


def _match_columns(cost, valid):
    """Return the row of each column (B, C), of costs (B, R, C): at least as many rows as columns."""
    return _match_workers(ops.transpose(cost, (0, 2, 1)), valid)[0]


def _match_rows(cost, valid):
    """Return the row of each column (B, C), of costs (B, R, C): fewer rows than columns.

    Where an image has fewer valid columns than rows, just as many padding columns take part, at no cost, as there are
    rows left over: every valid column is used, and no row has to be kept out at a price that would swallow digits.
    """
    rows = ops.shape(cost)[1]
    padding = ops.cast(ops.logical_not(valid), "int32")  # (B, C)
    left_over = rows - ops.sum(1 - padding, axis=1, keepdims=True)  # (B, 1)
    takes_part = ops.logical_and(padding > 0, ops.cumsum(padding, axis=1) <= left_over)
    cost = ops.where(ops.expand_dims(valid, 1), cost, float("inf"))
    cost = ops.where(ops.expand_dims(takes_part, 1), ops.zeros_like(cost), cost)
    active = ops.ones(ops.shape(cost)[:2], "bool")
    return ops.where(valid, _match_workers(cost, active)[1], UNASSIGNED)


def _match_workers(cost, active):
    """Match worker after worker, each by a shortest augmenting path (Dijkstra on reduced costs).

    Args:
        cost: (B, W, T) of workers and targets; infinite for targets that nobody may have.
        active: (B, W) bool, which workers get a target; no more than there are targets.

    Returns:
        int32 (B, W) targets of the workers, and (B, T) workers of the targets, -1 for none.
    """
    targets = ops.shape(cost)[2]
    if cost.shape[1] is None or cost.shape[2] is None:
        # Sizes may turn out to be 0, and compilers refuse the least of nothing: one more of each, for nobody.
        cost = ops.pad(cost, ((0, 0), (0, 1), (0, 1)), constant_values=float("inf"))
        active = ops.pad(active, ((0, 0), (0, 1)), constant_values=False)
    batch, workers, places = ops.shape(cost)
    state = (
        0,
        ops.zeros((batch, workers), cost.dtype),  # duals of workers
        ops.zeros((batch, places), cost.dtype),  # duals of targets
        ops.full((batch, workers), UNASSIGNED, "int32"),  # target of each worker
        ops.full((batch, places), UNASSIGNED, "int32"),  # worker of each target
    )

    def add(worker, worker_duals, target_duals, target_of, worker_of):
        is_active = ops.take(active, worker, axis=1)  # (B,)
        start = ops.where(is_active, worker, UNASSIGNED)
        sink, came_from, distance, visited, total = _shortest_path(cost, start, worker_duals, target_duals, worker_of)
        # Duals: visited workers rise, and visited targets fall, by what the path saved over their own distance.
        slack = ops.where(visited, ops.expand_dims(total, 1) - distance, 0)  # (B, T)
        target_duals = target_duals - slack
        own = take_rows(slack, ops.maximum(target_of, 0))  # (B, W)
        worker_duals = worker_duals + ops.where(target_of >= 0, own, 0)
        started = ops.expand_dims(ops.arange(workers) == worker, 0) & ops.expand_dims(is_active, 1)  # (B, W)
        worker_duals = worker_duals + ops.where(started, ops.expand_dims(total, 1), 0)
        target_of, worker_of = _augment(start, sink, came_from, target_of, worker_of)
        return worker + 1, worker_duals, target_duals, target_of, worker_of

    *_, target_of, worker_of = ops.while_loop(lambda worker, *_: worker < workers, add, state)
    return target_of[:, : ops.shape(target_of)[1] - places + targets], worker_of[:, :targets]


def _pick(values, indices):
    """Return values[b, indices[b]] of (B, N), 0 where an index is negative."""
    chosen = ops.arange(ops.shape(values)[1], dtype="int32") == ops.expand_dims(indices, 1)  # (B, N)
    return ops.sum(ops.where(chosen, values, ops.zeros_like(values)), axis=1)


def _shortest_path(cost, start, worker_duals, target_duals, worker_of):
    """Return the free target nearest to the worker `start` (B,), -1 for no worker, and how Dijkstra got there.

    Returns:
        sink (B,), came_from (B, T) workers, distance (B, T), visited (B, T) bool, total (B,): the sink's distance.
    """
    batch, workers, targets = ops.shape(cost)
    infinity = float("inf")
    positions = ops.expand_dims(ops.arange(targets, dtype="int32"), 0)  # (1, T)

    def keep_going(step, worker, *_):
        # A path visits no worker twice; rounding must not keep it from ending.
        return ops.logical_and(step < workers, ops.any(worker >= 0))

    def visit(step, worker, sink, came_from, distance, visited, total):
        searching = worker >= 0  # (B,)
        safe = ops.maximum(worker, 0)
        index = ops.arange(batch, dtype="int32") * workers + safe
        costs = ops.take(ops.reshape(cost, (-1, targets)), index, axis=0)  # (B, T)
        through = costs + ops.expand_dims(total - _pick(worker_duals, safe), 1) - target_duals
        closer = ops.expand_dims(searching, 1) & ops.logical_not(visited) & (through < distance)
        distance = ops.where(closer, through, distance)
        came_from = ops.where(closer, ops.expand_dims(worker, 1), came_from)
        open_distance = ops.where(visited, infinity, distance)
        # A free target among equally near ones ends the search.
        nearest = ops.min(open_distance, axis=1)  # (B,)
        preferred = (open_distance == ops.expand_dims(nearest, 1)) & (worker_of < 0)
        best = ops.where(ops.any(preferred, axis=1), ops.argmax(preferred, axis=1), ops.argmin(open_distance, axis=1))
        best = ops.cast(best, "int32")
        owner = _pick(worker_of, best)
        visited = visited | (ops.expand_dims(searching, 1) & (positions == ops.expand_dims(best, 1)))
        total = ops.where(searching, nearest, total)
        sink = ops.where(searching & (owner < 0), best, sink)
        worker = ops.where(searching, owner, UNASSIGNED)  # -1 too when a free target is found
        return step + 1, worker, sink, came_from, distance, visited, total

    unassigned = ops.full((batch, targets), UNASSIGNED, "int32")
    state = (
        0,
        start,
        ops.full((batch,), UNASSIGNED, "int32"),
        unassigned,
        ops.full((batch, targets), infinity, cost.dtype),
        ops.zeros((batch, targets), "bool"),
        ops.zeros((batch,), cost.dtype),
    )
    return ops.while_loop(keep_going, visit, state)[2:]


def _augment(start, sink, came_from, target_of, worker_of):
    """Hand the targets along the path on: each worker takes the target that the search reached from it."""
    workers = ops.shape(target_of)[1]
    targets = ops.expand_dims(ops.arange(ops.shape(worker_of)[1], dtype="int32"), 0)
    numbers = ops.expand_dims(ops.arange(workers, dtype="int32"), 0)

    def keep_going(step, target, *_):
        return ops.logical_and(step < workers, ops.any(target >= 0))

    def hand_on(step, target, target_of, worker_of):
        worker = ops.where(target >= 0, _pick(came_from, target), UNASSIGNED)  # (B,)
        previous = ops.where(worker == start, UNASSIGNED, _pick(target_of, worker))
        here = ops.expand_dims(worker, 1)
        target_here = ops.expand_dims(target, 1)
        worker_of = ops.where((targets == target_here) & (target_here >= 0), here, worker_of)
        target_of = ops.where((numbers == here) & (here >= 0), target_here, target_of)
        return step + 1, ops.where(target >= 0, previous, UNASSIGNED), target_of, worker_of

    return ops.while_loop(keep_going, hand_on, (0, sink, target_of, worker_of))[2:]

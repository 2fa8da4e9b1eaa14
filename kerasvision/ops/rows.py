"""Picking, marking and counting rows of each image in a batch."""

import keras
from keras import ops


def take_rows(values, indices):
    """Return the rows `indices` of each image.

    Args:
        values: (B, N) or (B, N, ...), N at least 1.
        indices: (B, K) int32 in [0, N).

    Returns:
        (B, K) or (B, K, ...): row `indices[b, k]` of `values[b]`.

    As `ops.take_along_axis`, which takes an index for every element instead: picking 1000 of 120,000 rows of 91 takes
    0.5 ms here and 15 ms there on TensorFlow.
    """
    batch, rows, *rest = ops.shape(values)
    starts = ops.expand_dims(ops.arange(batch, dtype="int32") * rows, 1)  # (B, 1)
    rows = ops.take(ops.reshape(values, (-1, *rest)), ops.cast(indices, "int32") + starts, axis=0)
    return ops.reshape(rows, (*ops.shape(indices), *rest))  # (B, K, ...), which JAX gets wrong for B of 0


def top_rows(values, count):
    """Return the highest values of each image and their places, at most as many as there are.

    Args:
        values: (B, N), N perhaps unknown in a graph.
        count: Number wanted, 1 or more.

    Returns:
        values (B, K) and indices (B, K) int32, highest first; K = min(count, N).
    """
    rows = ops.shape(values)[1]
    return ops.top_k(values, min(count, rows) if isinstance(rows, int) else ops.minimum(count, rows))


def mark_rows(indices, chosen, count):
    """Return which rows of each image are named by its indices.

    Args:
        indices: (B, K) int32 in [0, count).
        chosen: (B, K) bool; indices where it is False name nothing.
        count: N, the number of rows.

    Returns:
        (B, N) bool.
    """
    batch = ops.shape(indices)[0]
    starts = ops.expand_dims(ops.arange(batch, dtype="int32") * (count + 1), 1)  # (B, 1)
    # One more row in each image takes what names nothing.
    places = ops.where(chosen, ops.cast(indices, "int32"), count) + starts
    places = ops.reshape(places, (-1, 1))
    marks = ops.zeros((batch * (count + 1),), "int32")
    marks = ops.scatter_update(marks, places, ops.ones_like(places[:, 0]))
    return ops.reshape(marks, (batch, count + 1))[:, :count] > 0


def count_ids(ids, count):
    """Return how often each number occurs.

    Args:
        ids: Integers of any shape; those outside [0, count) are counted nowhere.
        count: K, how many numbers there are.

    Returns:
        int32 (K,), exact up to 2^31 - 1 of one number. `ops.segment_sum` is not: on PyTorch it sums in float32, which
        stops at 2^24 = 16,777,216, less than the pixels of 65 images of 512 x 512.
    """
    ids = ops.reshape(ops.cast(ids, "int32"), (-1,))
    ids = ops.where((ids >= 0) & (ids < count), ids, count)  # one more number, which is cut off
    if keras.backend.backend() == "torch":
        import torch

        return torch.bincount(ids, minlength=count + 1)[:count].to(torch.int32)
    return ops.segment_sum(ops.ones_like(ids), ids, count + 1)[:count]

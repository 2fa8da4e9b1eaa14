"""Picking rows of each image in a batch."""

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
    return ops.take(ops.reshape(values, (-1, *rest)), ops.cast(indices, "int32") + starts, axis=0)

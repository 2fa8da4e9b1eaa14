"""Boundaries between the classes of masks."""

import numpy as np
from keras import ops


def class_boundaries(labels, counted=None):
    """Return which pixels have a neighbour above, below, left or right of another class.

    Args:
        labels: (..., H, W) integer masks: a tensor, or a numpy array, for which nothing leaves the host.
        counted: (..., H, W) bool of the same kind, False for pixels that have no boundary, neither their own nor their
            neighbours'; ``None`` if there are none.

    Returns:
        (..., H, W) bool of the same kind: pixels on both sides of each boundary. The image's edge is none.
    """
    on_host = isinstance(labels, np.ndarray)
    rank = len(labels.shape)
    found = None
    for axis in (rank - 2, rank - 1):
        here, there = ([slice(None)] * rank for _ in range(2))
        here[axis], there[axis] = slice(1, None), slice(None, -1)
        here, there = tuple(here), tuple(there)
        edges = labels[here] != labels[there]
        if counted is not None:
            edges = edges & counted[here] & counted[there]
        edges = edges.astype("int32") if on_host else ops.cast(edges, "int32")
        widths = [(1, 1) if other == axis else (0, 0) for other in range(rank)]
        padded = np.pad(edges, widths) if on_host else ops.pad(edges, widths)
        beside = padded[here] + padded[there]  # the edge behind each pixel, and that before it
        found = beside if found is None else found + beside
    return found > 0

"""Anchor boxes: the grid of reference boxes that dense detectors classify and refine."""

import numpy as np
from keras import ops


def cell_anchors(sizes, aspect_ratios, *, rounded=True):
    """Return the anchors of one grid cell, centred on the origin.

    Args:
        sizes: Square roots of the anchors' areas, in pixels.
        aspect_ratios: Height divided by width.
        rounded: Round corners to whole pixels, as torchvision's `AnchorGenerator` does.

    Returns:
        float32 numpy array (len(aspect_ratios) * len(sizes), 4), `xyxy`; sizes vary fastest.
    """
    ratios = np.sqrt(np.asarray(aspect_ratios, np.float32))
    sizes = np.asarray(sizes, np.float32)
    heights = (ratios[:, None] * sizes[None, :]).reshape(-1)  # (ratios * sizes,)
    widths = ((1 / ratios)[:, None] * sizes[None, :]).reshape(-1)  # (ratios * sizes,)
    anchors = np.stack([-widths, -heights, widths, heights], axis=1) / 2
    return (np.round(anchors) if rounded else anchors).astype(np.float32)


def grid_anchors(grid_hw, strides_hw, anchors):
    """Shift one cell's anchors to every cell of a grid.

    Args:
        grid_hw: (rows, columns) of the grid; integers or scalar tensors.
        strides_hw: (vertical, horizontal) pixels from one cell to the next; numbers or scalar tensors.
        anchors: (K, 4) anchors of the cell at the origin.

    Returns:
        float32 (rows * columns * K, 4), `xyxy` pixels; row by row, all anchors of a cell together.
    """
    y = ops.arange(grid_hw[0], dtype="float32") * ops.cast(strides_hw[0], "float32")
    x = ops.arange(grid_hw[1], dtype="float32") * ops.cast(strides_hw[1], "float32")
    y, x = ops.meshgrid(y, x, indexing="ij")
    shifts = ops.stack([x, y, x, y], axis=-1)  # (rows, columns, 4)
    shifted = ops.expand_dims(shifts, 2) + ops.convert_to_tensor(anchors, "float32")  # (rows, columns, K, 4)
    return ops.reshape(shifted, (-1, 4))

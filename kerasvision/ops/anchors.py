"""Anchor boxes: the grid of reference boxes that dense detectors classify and refine.

Every convention is a set of boxes centred on the origin, one set for each level (`cell_anchors` for RPN and RetinaNet,
`octave_cells` for EfficientDet, `default_box_cells` for SSD, `prior_cells` for YOLO), which `grid_anchors` moves to all
cells of the level's grid. `kerasvision.layers` has a layer for each.
"""

import numpy as np
from keras import ops

from kerasvision.ops.arguments import all_positive, is_count
from kerasvision.ops.boxes import MAX_LOG_SIZE


def cell_anchors(sizes, aspect_ratios, *, rounded=True):
    """Return the anchors of one grid cell, centred on the origin.

    Args:
        sizes: Square roots of the anchors' areas, in pixels.
        aspect_ratios: Height divided by width.
        rounded: Round corners to whole pixels, as torchvision's `AnchorGenerator` does.

    Returns:
        float32 numpy array (len(aspect_ratios) * len(sizes), 4), `xyxy`; sizes vary fastest.

    Raises:
        ValueError: No size or ratio, one that is not above 0, or a size that rounding makes nothing of.
    """
    _check_ratios(aspect_ratios, "heights divided by widths")
    _check_sizes("sizes", sizes, "pixels")
    ratios = np.sqrt(np.asarray(aspect_ratios, np.float32))
    sizes = np.asarray(sizes, np.float32)
    heights = (ratios[:, None] * sizes[None, :]).reshape(-1)  # (ratios * sizes,)
    widths = ((1 / ratios)[:, None] * sizes[None, :]).reshape(-1)  # (ratios * sizes,)
    anchors = np.stack([-widths, -heights, widths, heights], axis=1) / 2
    anchors = (np.round(anchors) if rounded else anchors).astype(np.float32)
    if not np.all(anchors[:, 2:] > 0):
        raise ValueError(f"`sizes` {sizes.tolist()!r} hold anchors that round to no width or height; set rounded=False")
    return anchors


def _check_ratios(aspect_ratios, meaning):
    """Raise ValueError for aspect ratios, or pairs of factors, that are none, or not all above 0."""
    if not len(aspect_ratios) or not all(map(all_positive, aspect_ratios)):
        raise ValueError(f"`aspect_ratios` {aspect_ratios!r} must be above 0: {meaning}, such as 0.5")


def _check_sizes(name, values, unit):
    """Raise ValueError for sizes that are none, or not all above 0."""
    if not all_positive(values):
        raise ValueError(f"`{name}` {values!r} must be one number of {unit} or more, all above 0")


def octave_cells(octaves=3, aspect_ratios=((1.0, 1.0), (1.4, 0.7), (0.7, 1.4)), anchor_scale=4.0):
    """Return the anchors of one cell as EfficientDet has them, in units of the level's stride.

    Args:
        octaves: Number of sizes from one power of two (included) to the next.
        aspect_ratios: Factors (width, height) of the size, or single numbers: width divided by height.
        anchor_scale: Smallest size, in strides.

    Returns:
        float32 numpy array (octaves * len(aspect_ratios), 4), `xyxy` around the origin; ratios vary fastest. To be
        multiplied by (stride x, stride y, stride x, stride y).

    Raises:
        ValueError: No ratio, or a number that is not above 0.

    Reference: effdet/anchors.py, `Anchors`; Tan et al. 2020, https://arxiv.org/abs/1911.09070.
    """
    if not is_count(octaves):
        raise ValueError(f"`octaves` {octaves!r} must be 1 or more, a whole number; 3 is usual")
    _check_ratios(aspect_ratios, "factors (width, height), or widths divided by heights")
    _check_sizes("anchor_scale", anchor_scale, "strides")
    pairs = [ratio if np.ndim(ratio) else (np.sqrt(ratio), 1 / np.sqrt(ratio)) for ratio in aspect_ratios]
    sizes = anchor_scale * 2.0 ** (np.arange(octaves) / octaves)
    return prior_cells((sizes[:, None, None] * np.asarray(pairs, np.float64)).reshape(-1, 2))  # (octaves * ratios, 2)


def default_box_scales(levels, smallest=0.15, largest=0.9):
    """Return SSD's scales: equally spaced from `smallest` to `largest`, and a last 1 (`levels` + 1 numbers).

    Raises:
        ValueError: One of the two is not above 0.

    Source: Liu et al. 2016, https://arxiv.org/abs/1512.02325, equation 4; of a single level, `smallest` and `largest`.
    """
    _check_sizes("smallest", smallest, "fractions of the image")
    _check_sizes("largest", largest, "fractions of the image")
    if levels == 1:
        return (smallest, largest)
    return (*(smallest + (largest - smallest) * level / (levels - 1) for level in range(levels)), 1.0)


def default_box_cells(scales, aspect_ratios, *, clipped=True):
    """Return the default boxes of one cell of each SSD level, as fractions of the image.

    Args:
        scales: One more than levels: sizes of the levels' square boxes, as fractions of the image.
        aspect_ratios: For each level, ratios of the longer to the shorter side; each gives a wide and a high box.
        clipped: Whether widths and heights are cut to the image's.

    Returns:
        A list of float32 numpy arrays (2 + 2 * len(ratios), 4), `xyxy` around the origin: a square of the level's
        scale, one of the geometric mean with the next level's, then wide and high for each ratio. To be multiplied by
        the image's (width, height, width, height).

    Raises:
        ValueError: If there is not one scale more than levels, or a scale or ratio is not above 0.

    Reference: torchvision/models/detection/anchor_utils.py, `DefaultBoxGenerator`.
    """
    if len(scales) != len(aspect_ratios) + 1:
        levels = len(aspect_ratios)
        raise ValueError(f"`scales` {tuple(scales)!r} must have {levels + 1} numbers for {levels} levels: one more")
    _check_sizes("scales", scales, "fractions of the image")
    for ratios in aspect_ratios:
        if len(ratios):  # a level may have squares alone
            _check_ratios(ratios, "longer divided by shorter sides")
    cells = []
    for level, ratios in enumerate(aspect_ratios):
        scale, between = scales[level], np.sqrt(scales[level] * scales[level + 1])
        sizes = [(scale, scale), (between, between)]
        for ratio in np.sqrt(ratios):
            sizes += [(scale * ratio, scale / ratio), (scale / ratio, scale * ratio)]
        cells.append(prior_cells(np.minimum(sizes, 1.0) if clipped else sizes))
    return cells


def prior_cells(sizes_wh):
    """Return boxes of the given widths and heights around the origin: float32 numpy (K, 4) `xyxy` of (K, 2).

    Raises:
        ValueError: No size, or one that is not above 0.
    """
    _check_sizes("sizes_wh", sizes_wh, "pixels")
    halves = np.asarray(sizes_wh, np.float32).reshape(-1, 2) / 2
    return np.concatenate([-halves, halves], axis=1)


def grid_anchors(grid_hw, strides_hw, anchors, *, offset=0.0):
    """Shift one cell's anchors to every cell of a grid.

    Args:
        grid_hw: (rows, columns) of the grid; integers or scalar tensors.
        strides_hw: (vertical, horizontal) pixels from one cell to the next; numbers or scalar tensors.
        anchors: (K, 4) anchors of the cell at the origin.
        offset: Where in its cell an anchor's centre lies: 0, the upper left corner, for RPN and RetinaNet in
            torchvision's and Detectron's convention; 0.5, the centre, for EfficientDet, SSD and YOLO.

    Returns:
        float32 (rows * columns * K, 4), `xyxy` pixels; row by row, all anchors of a cell together. (0, 4) of a grid
        without a row or column.

    Raises:
        ValueError: A negative number of rows or columns, if it is known.
    """
    if any(isinstance(size, int) and size < 0 for size in grid_hw):
        raise ValueError(f"`grid_hw` {tuple(grid_hw)!r} must be numbers of rows and columns of at least 0")
    y = (ops.arange(grid_hw[0], dtype="float32") + offset) * ops.cast(strides_hw[0], "float32")
    x = (ops.arange(grid_hw[1], dtype="float32") + offset) * ops.cast(strides_hw[1], "float32")
    y, x = ops.meshgrid(y, x, indexing="ij")
    shifts = ops.stack([x, y, x, y], axis=-1)  # (rows, columns, 4)
    shifted = ops.expand_dims(shifts, 2) + ops.convert_to_tensor(anchors, "float32")  # (rows, columns, K, 4)
    return ops.reshape(shifted, (-1, 4))


def decode_yolo(outputs, priors_xyxy, strides, *, scale_xy=1.0):
    """Turn a YOLO head's four box outputs into boxes.

    The centre moves within its cell, `sigmoid(t)` from the cell's left or upper edge, and the prior's size is
    multiplied by `exp(t)`.

    Args:
        outputs: (..., A, 4) tx, ty, tw, th.
        priors_xyxy: (A, 4) absolute pixels, centred in their cells: `grid_anchors(..., offset=0.5)`.
        strides: A number, or (A, 1): the cells' size in pixels.
        scale_xy: How much further than its cell a centre can reach: 1 in YOLOv3; 1.2, 1.1 and 1.05 for strides 8, 16
            and 32 in YOLOv4 (its `scale_x_y`).

    Returns:
        (..., A, 4) float32 `xyxy` pixels, not clipped. The logarithm of a size is bounded by
        `kerasvision.ops.boxes.MAX_LOG_SIZE`, so that no box is infinite.

    Source: Redmon and Farhadi 2018, https://arxiv.org/abs/1804.02767, section 2.1; darknet's `yolo_layer.c`. YOLOX's
    centres, which are not bounded, are `boxes.decode_deltas` of anchors as large as a cell with `offset=0`.
    """
    outputs, priors = ops.cast(outputs, "float32"), ops.cast(priors_xyxy, "float32")
    sizes = priors[..., 2:] - priors[..., :2]
    centers = 0.5 * (priors[..., 2:] + priors[..., :2])
    centers = centers + (ops.sigmoid(outputs[..., :2]) - 0.5) * scale_xy * ops.cast(strides, "float32")
    halves = 0.5 * sizes * ops.exp(ops.minimum(outputs[..., 2:], MAX_LOG_SIZE))
    return ops.concatenate([centers - halves, centers + halves], axis=-1)

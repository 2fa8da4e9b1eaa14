"""RoIPool: the largest feature in each bin of a grid over each box, on whole cells (Fast R-CNN)."""

from keras import ops

from kerasvision.ops.compilers import compiled_once
from kerasvision.ops.roi_align import check_numbers, in_pieces, readable_boxes, readable_cells

# Boxes at a time: 4 features for each of 7 x 7 bins, of 512 channels, make 16 MB.
_GATHERED = 8_000_000

# Window sizes where the map's is not known when the graph is made: up to 64 cells, two of which cover bins of 128.
_SCALES_OF_UNKNOWN = 7

# Corners are cut here, so that no product overflows.
_LARGEST_CELL = 1_000_000


def roi_pool(features, boxes_xyxy, *, output_size, stride, valid=None):
    """Take the maximum of the features in the bins of a grid over each box, all borders rounded to whole cells.

    Args:
        features: (B, H, W, C), H and W of 1 or more. Where they are not known when the graph is made, bins of up to 128
            cells are exact: boxes of up to 896 cells, where P is 7.
        boxes_xyxy: (B, N, 4) absolute pixels of the image; cells beyond ±1e6 count as that.
        output_size: P, or (rows, columns), bins per box.
        stride: Pixels per cell.
        valid: bool (B, N); False marks padding. Default: all boxes but those of -1, -1, -1, -1.

    Returns:
        (B, N, rows, columns, C) in the dtype of `features`: zeros for bins outside the map, for padding and for boxes
        with a NaN or infinite coordinate. Corners are rounded to the nearest cell, halves away from 0; a box covers
        both corners' cells, and at least one; neighbouring bins share the cells that they cut. Borders of bins are
        exact; the reference's, in float32, are one cell off for rare sizes, such as the 57 cells of 7 bins.

    Raises:
        ValueError: A number out of range.

    Gradients never reach the boxes. They reach the largest feature of a bin; equal ones share or take them as the
    backend's maximum has it, where the reference gives all to the first.

    The maxima of all windows of 2^i x 2^j cells are computed first; four of them, overlapping, make up any bin. Memory:
    (1 + floor(log2 H)) (1 + floor(log2 W)) times the map, 36 times for 50 x 50 cells, 49 times where they are unknown.

    Source: Girshick 2015, Fast R-CNN, https://arxiv.org/abs/1504.08083, section 2.1; torchvision.ops.roi_pool.
    """
    height, width = ops.shape(features)[1:3]
    channels = features.shape[-1]
    grid, *_ = check_numbers(output_size)
    if stride <= 0:
        raise ValueError(f"`stride` {stride} must be above 0 pixels per cell")
    valid, boxes_xyxy = readable_boxes(ops.stop_gradient(ops.cast(boxes_xyxy, "float32")), valid)
    batch, count = ops.shape(boxes_xyxy)[0], ops.shape(boxes_xyxy)[1]
    if boxes_xyxy.shape[1] == 0:
        return ops.zeros((batch, 0, *grid, channels), features.dtype)
    table, row_scales, column_scales = _window_maxima(features)
    corners = boxes_xyxy * (1.0 / stride)
    corners = ops.sign(corners) * ops.floor(ops.absolute(corners) + 0.5)  # halves away from 0
    corners = ops.clip(ops.reshape(corners, (-1, 4)), -_LARGEST_CELL, _LARGEST_CELL)
    corners = ops.cast(corners, "int32")
    y, row_scale, rows_filled = _windows(corners[:, 1:2], corners[:, 3:4], grid[0], height, row_scales)
    x, column_scale, columns_filled = _windows(corners[:, 0:1], corners[:, 2:3], grid[1], width, column_scales)
    image = ops.expand_dims(ops.repeat(ops.arange(batch, dtype="int32"), count), 1)  # (B N, 1)
    # Where the map of a window size starts, for rows (B N, P, 1) and columns (B N, 1, P) of bins.
    place = ops.expand_dims(row_scale * column_scales, 2) + ops.expand_dims(column_scale, 1)  # (B N, P, P)
    place = (place * batch + ops.expand_dims(image, 2)) * (height * width)
    place = ops.repeat(ops.repeat(place, 2, axis=1), 2, axis=2)  # (B N, 2 P, 2 P)
    indices = place + ops.expand_dims(y * width, 2) + ops.expand_dims(x, 1)
    filled = ops.logical_and(ops.expand_dims(rows_filled, 2), ops.expand_dims(columns_filled, 1))  # (B N, P, P)
    filled = ops.logical_and(filled, ops.reshape(valid, (-1, 1, 1)))
    pooled = compiled_once(_largest, 1)(table, indices, filled, grid)
    return ops.reshape(pooled, (batch, count, *grid, channels))


def _window_maxima(features):
    """Return the largest feature of the 2^i x 2^j cells from every cell on.

    Returns:
        (I J B H W, C), J varying faster than I; windows that leave the map hold nothing of use. I and J.
    """
    by_rows = _doubled(features, axis=1)
    by_columns = [_doubled(rows, axis=2) for rows in by_rows]
    windows = [ops.reshape(window, (-1, features.shape[-1])) for row in by_columns for window in row]
    return ops.concatenate(windows, axis=0), len(by_rows), len(by_columns[0])


def _doubled(features, axis):
    """Return the maxima of 1, 2, 4 ... cells along an axis, as long as they fit."""
    size = ops.shape(features)[axis]
    known = isinstance(size, int)
    found = [features]
    for scale in range(1, size.bit_length() if known else _SCALES_OF_UNKNOWN):
        reach = 2 ** (scale - 1)
        reach = reach if known else ops.minimum(reach, size)
        last = found[-1]
        index = [slice(None)] * 4
        index[axis] = slice(reach, None)
        following = last[tuple(index)]
        index[axis] = slice(size - reach, None)
        # The tail, where windows leave the map, keeps its place so that all have the same shape.
        following = ops.concatenate([following, last[tuple(index)]], axis=axis)
        found.append(ops.reshape(ops.maximum(last, following), ops.shape(features)))
    return found


def _windows(first, last, bins, size, scales):
    """Return the two windows that cover each bin along one axis.

    Args:
        first: int32 (M, 1) cells of the first corners.
        last: int32 (M, 1) of the last corners.
        bins: P.
        size: Cells of the map.
        scales: How many window sizes there are.

    Returns:
        int32 (M, 2 P) where the windows start; int32 (M, P) their size as a power of 2; bool (M, P), False for bins
        outside the map.
    """
    length = ops.maximum(last - first + 1, 1)  # (M, 1)
    numbers = ops.expand_dims(ops.arange(bins, dtype="int32"), 0)  # (1, P)
    start = ops.clip(numbers * length // bins + first, 0, size)  # (M, P), rounded down
    end = ops.clip(((numbers + 1) * length + bins - 1) // bins + first, 0, size)  # rounded up
    filled = end > start
    start = ops.where(filled, start, 0)
    length = ops.where(filled, end - start, 1)
    scale = ops.zeros_like(length)
    reach = ops.ones_like(length)
    for power in range(1, scales):
        fits = length >= 2**power
        scale = scale + ops.cast(fits, "int32")
        reach = ops.where(fits, 2**power, reach)
    pairs = ops.stack([start, start + length - reach], axis=2)  # (M, P, 2)
    return ops.reshape(pairs, (-1, 2 * bins)), scale, filled


def _largest(table, indices, filled, grid):
    """Return (M, rows, columns, C): the largest of four entries of the table, 0 for bins that are not filled."""
    channels, table = table.shape[-1], readable_cells(table)
    piece = max(1, _GATHERED // (4 * grid[0] * grid[1] * channels))

    def pool(inputs):
        places, counts = inputs
        gathered = ops.take(table, places, axis=0)  # (K, 2 rows, 2 columns, C)
        gathered = ops.reshape(gathered, (-1, grid[0], 2, grid[1], 2, channels))
        pooled = ops.maximum(gathered[:, :, 0], gathered[:, :, 1])  # (K, rows, columns, 2, C)
        pooled = ops.maximum(pooled[..., 0, :], pooled[..., 1, :])
        return ops.where(ops.expand_dims(counts, -1), pooled, ops.zeros_like(pooled))

    return in_pieces(pool, (indices, filled), piece)

"""RoIAlign: features of boxes by bilinear interpolation, from one map or from the levels of a pyramid."""

import itertools
import math

import numpy as np
from keras import ops

from kerasvision.ops.arguments import is_count, plain_number
from kerasvision.ops.boxes import area
from kerasvision.ops.compilers import compiled_once, under_tensorflow_xla

# Features gathered at once, in elements: 32 MB of float32. Larger pieces leave the processor's caches, smaller ones
# spend their time on starting operations.
_GATHERED = 8_000_000

# Cells along each side of a box up to which the number of samples adapts to it, at least. Pyramids assign boxes of 14
# to 28 cells, times the square root of their aspect ratio, so that 56 leave out next to none but on the coarsest level.
_ADAPTIVE_CELLS = 56

# Coordinates are cut here, so that no difference overflows.
LARGEST_COORDINATE = 1e9


def assign_levels(boxes_xyxy, strides, *, canonical_size=224, canonical_level=4, epsilon=1e-6):
    """Assign every box to the pyramid level that shows it at a suitable size.

    Level k = floor(canonical_level + log2(sqrt(w h) / canonical_size) + epsilon), but no other than `strides` have.

    Args:
        boxes_xyxy: (..., 4) absolute pixels.
        strides: Pixels per cell of each level, each twice the one before; level k has stride 2^k.
        canonical_size: Side in pixels of a box that belongs to `canonical_level`.
        canonical_level: See above.
        epsilon: Boxes that are smaller than a limit by this much, as a power of 2, count as on it.

    Returns:
        int32 (...): positions in `strides`; 0 for boxes without area and boxes that are not finite.

    Raises:
        ValueError: `strides` are not successive powers of 2.

    Source: Lin et al. 2017, Feature Pyramid Networks, https://arxiv.org/abs/1612.03144, equation 1; epsilon from
    torchvision/ops/poolers.py, `LevelMapper`.
    """
    exponents = level_exponents(strides)
    boxes_xyxy = ops.cast(boxes_xyxy, "float32")
    areas = ops.where(ops.all(ops.isfinite(boxes_xyxy), axis=-1), area(boxes_xyxy), 0)
    # Compared with the limits between levels: no logarithm, which backends round in their own ways.
    levels = ops.zeros_like(areas, dtype="int32")
    for exponent in exponents[1:]:
        limit = canonical_size * 2.0 ** (exponent - canonical_level - epsilon)
        levels = levels + ops.cast(areas >= limit * limit, "int32")
    return levels


def level_exponents(strides):
    """Return the logarithms to base 2 of a pyramid's strides; raise ValueError if they are not successive."""
    strides = tuple(strides)
    exponents = [math.log2(stride) if stride > 0 else math.nan for stride in strides]
    if any(b != a + 1 for a, b in itertools.pairwise(exponents)) or exponents[0] % 1:
        raise ValueError(f"`strides` {strides} must be successive powers of 2, such as (4, 8, 16, 32)")
    return exponents


def check_strides(strides):
    """Return a list of the strides of one map or several; raise ValueError for one that is not above 0."""
    strides = strides.tolist() if isinstance(strides, np.ndarray) else strides
    strides = list(strides) if isinstance(strides, list | tuple) else [strides]
    strides = [plain_number(stride) for stride in strides]
    if not strides or not all(stride > 0 for stride in strides):
        raise ValueError(f"`strides` {strides} must be above 0 pixels per cell")
    return strides


def roi_align(
    features,
    boxes_xyxy,
    *,
    output_size,
    strides,
    sampling_ratio: int | None = 2,
    aligned=False,
    valid=None,
    levels=None,
    canonical_size=224,
    canonical_level=4,
    max_adaptive_samples=None,
):
    """Average bilinear samples in the bins of a grid over each box.

    Args:
        features: One map (B, H, W, C), or the maps of a pyramid, finest first; any H and W of 1 or more.
        boxes_xyxy: (B, N, 4) absolute pixels of the image; coordinates beyond ±1e9 count as that.
        output_size: P, or (rows, columns), bins per box.
        strides: Pixels per cell: one number for one map, one per map of a pyramid.
        sampling_ratio: Samples along each side of a bin; ``None`` for as many as the bin has cells along that side,
            rounded up, for each box its own number.
        aligned: Place the centre of cell 0 at `stride / 2` pixels (Detectron2, Mask R-CNN's successors); else at
            pixel 0, and boxes are at least one cell wide and high (Mask R-CNN, torchvision's models).
        valid: bool (B, N); False marks padding. Default: all boxes but those of -1, -1, -1, -1.
        levels: int (B, N), the position of each box's map in `features`; default: `assign_levels`.
        canonical_size: As in `assign_levels`.
        canonical_level: As in `assign_levels`.
        max_adaptive_samples: Bound S of the samples that ``sampling_ratio=None`` takes along a side of a bin; default:
            what boxes need that cover the map, or the coarsest map of a pyramid, but no less than boxes of 56 cells:
            (cells + 1) / P rounded up, cells being its height or width; 56 / P where that is unknown in the graph. It
            is exact for boxes of up to S x P cells along that side; the samples of larger boxes, S for each bin, are
            moved to the nearest cell, and differ from the reference by as much as features do from cell to cell. Such
            are, in a pyramid, narrow boxes on fine maps (20 x 1333 pixels at a stride of 4 need S = 48 where P is 7),
            and boxes far beyond their map. Time and memory grow with S^2: bound it for large single maps.

    Returns:
        (B, N, rows, columns, C) in the dtype of `features`; sums are taken in float32. Zeros for padding, for boxes
        with a NaN or infinite coordinate, and for what lies more than a cell outside the map. Boxes of
        negative width or height give, unaligned, the features around their first corner; aligned, mirrored ones
        (zeros where the number of samples is adaptive).

    Raises:
        ValueError: Numbers of maps and strides differ, or a number is out of range.

    Gradients reach the features, not the boxes, as in the reference. A box reads every cell that its samples touch;
    a feature that is NaN may spoil all bins of a box, not one alone. Memory beyond input and output is about 50 MB,
    and a copy of the features where there are several maps. Under a backend that multiplies float32 matrices in lower
    precision (TensorFloat-32 on GPUs), so does this function.

    Source: He et al. 2017, Mask R-CNN, https://arxiv.org/abs/1703.06870, section 3; torchvision.ops.roi_align and
    MultiScaleRoIAlign, detectron2's ROIPooler. A bin's average over its samples is a sum over rows and columns, so
    that two small matrix products per box do it.
    """
    maps, strides = _maps_and_strides(features, strides)
    grid, sampling_ratio, max_adaptive_samples = check_numbers(output_size, sampling_ratio, max_adaptive_samples)
    boxes_xyxy = ops.stop_gradient(ops.cast(boxes_xyxy, "float32"))
    valid, boxes_xyxy = readable_boxes(boxes_xyxy, valid)
    batch, count, channels = ops.shape(boxes_xyxy)[0], ops.shape(boxes_xyxy)[1], maps[0].shape[-1]
    if boxes_xyxy.shape[1] == 0:
        return ops.zeros((batch, 0, *grid, channels), maps[0].dtype)
    if len(maps) == 1:
        levels = ops.zeros_like(valid, dtype="int32")
    elif levels is None:
        sizes = {"canonical_size": canonical_size, "canonical_level": canonical_level}
        levels = assign_levels(boxes_xyxy, strides, **sizes)
    cells, first_cells, sizes_hw = _as_rows(maps)
    per_box = _per_box(boxes_xyxy, ops.cast(levels, "int32"), strides, first_cells, sizes_hw)
    valid = ops.expand_dims(ops.reshape(valid, (-1,)), 1)  # (B N, 1)
    # Cells that boxes may have along each side; one more, as rounding may lift a bin above a whole number of cells.
    extents = [max(_ADAPTIVE_CELLS, (size or 0) + 1) for size in maps[-1].shape[1:3]]
    bounds = tuple(max_adaptive_samples or -(-extent // bins) for extent, bins in zip(extents, grid, strict=True))
    pooled = compiled_once(_in_pieces, 4)(cells, per_box, valid, grid, sampling_ratio, aligned, bounds)
    return ops.reshape(pooled, (batch, count, *grid, channels))


def readable_boxes(boxes_xyxy, valid):
    """Return which boxes are neither padding nor of NaN or infinite corners, (B, N) bool; and the boxes, else 0."""
    if valid is None:
        valid = ops.any(boxes_xyxy != -1, axis=-1)
    finite = ops.all(ops.absolute(boxes_xyxy) <= 3.4e38, axis=-1)  # False for NaN
    valid = ops.logical_and(ops.cast(valid, "bool"), finite)
    boxes_xyxy = ops.where(ops.expand_dims(valid, -1), boxes_xyxy, 0.0)
    return valid, ops.clip(boxes_xyxy, -LARGEST_COORDINATE, LARGEST_COORDINATE)


def _maps_and_strides(features, strides):
    """Return lists of equal length."""
    maps = list(features) if isinstance(features, list | tuple) else [features]
    strides = check_strides(strides)
    if len(maps) != len(strides):
        raise ValueError(f"`strides` {strides} must have one number for each of the {len(maps)} maps in `features`")
    return maps, strides


def check_numbers(output_size, sampling_ratio: int | None = 2, max_adaptive_samples: int | None = None):
    """Return (rows, columns) of bins and the other two as plain ints or ``None``.

    Raises:
        ValueError: One is no whole number, NumPy's included, or out of range.
    """
    grid = (output_size,) * 2 if np.ndim(output_size) == 0 else tuple(output_size)
    if len(grid) != 2 or not all(map(is_count, grid)):
        raise ValueError(
            f"`output_size` {output_size!r} must be a number of bins of 1 or more, a whole number, or two of them"
        )
    if sampling_ratio is not None and not is_count(sampling_ratio):
        raise ValueError(
            f"`sampling_ratio` {sampling_ratio!r} must be 1 or more, a whole number, or None to adapt it to each box"
        )
    if max_adaptive_samples is not None and not is_count(max_adaptive_samples):
        raise ValueError(
            f"`max_adaptive_samples` {max_adaptive_samples!r} must be 1 or more, a whole number, or None for the "
            "default"
        )
    rows, columns = map(int, grid)
    return (
        (rows, columns),
        None if sampling_ratio is None else int(sampling_ratio),
        None if max_adaptive_samples is None else int(max_adaptive_samples),
    )


def _as_rows(maps):
    """Lay all cells of all maps one after the other.

    Returns:
        (cells, C); the index of each map's first cell, a list; each map's (H, W), a list.
    """
    channels = maps[0].shape[-1]
    sizes_hw = [tuple(ops.shape(level)[1:3]) for level in maps]
    rows = [ops.reshape(level, (-1, channels)) for level in maps]  # (B H W, C) each
    first_cells, total = [], 0
    for level, (height, width) in zip(maps, sizes_hw, strict=True):
        first_cells.append(total)
        total = total + ops.shape(level)[0] * height * width
    return (rows[0] if len(rows) == 1 else ops.concatenate(rows, axis=0)), first_cells, sizes_hw


def _per_box(boxes_xyxy, levels, strides, first_cells, sizes_hw):
    """Return for each of the B N boxes: corners in cells (B N, 4), and (B N, 3) first cell, height and width."""

    def pick(values, dtype):
        table = ops.stack([ops.cast(value, dtype) for value in values])
        return ops.take(table, levels, axis=0)  # (B, N)

    heights = pick([height for height, _ in sizes_hw], "int32")
    widths = pick([width for _, width in sizes_hw], "int32")
    image = ops.expand_dims(ops.arange(ops.shape(levels)[0], dtype="int32"), 1)  # (B, 1)
    first = pick(first_cells, "int32") + image * heights * widths
    scale = pick([1.0 / stride for stride in strides], "float32")
    corners = ops.reshape(boxes_xyxy * ops.expand_dims(scale, -1), (-1, 4))
    return corners, ops.reshape(ops.stack([first, heights, widths], axis=-1), (-1, 3))


def _in_pieces(cells, per_box, valid, grid, sampling_ratio, aligned, bounds):
    """Pool a bounded number of boxes at a time; returns (M, rows, columns, C)."""
    channels, cells = cells.shape[-1], readable_cells(cells)
    # Cells that are read for each box, down and across.
    if sampling_ratio is None:
        taps = [bins * bound + 2 for bins, bound in zip(grid, bounds, strict=True)]
    else:
        taps = [2 * bins * sampling_ratio for bins in grid]
    piece = max(1, _GATHERED // (taps[0] * taps[1] * channels))

    def pool(inputs):
        corners, places, counts = inputs
        first, height, width = ops.split(places, 3, axis=-1)  # (K, 1) each
        left, top, right, bottom = ops.split(corners, 4, axis=-1)  # (K, 1) each
        # (K, Ty) and (K, rows, Ty); (K, Tx) and (K, columns, Tx).
        y, down = _taps(top, bottom, height, grid[0], sampling_ratio, aligned, bounds[0])
        x, across = _taps(left, right, width, grid[1], sampling_ratio, aligned, bounds[1])
        indices = ops.expand_dims(first + y * width, 2) + ops.expand_dims(x, 1)  # (K, Ty, Tx)
        gathered = ops.cast(ops.take(cells, indices, axis=0), "float32")  # (K, Ty, Tx, C)
        rows = ops.matmul(down, ops.reshape(gathered, (-1, taps[0], taps[1] * channels)))  # (K, rows, Tx C)
        rows = ops.reshape(rows, (-1, grid[0], taps[1], channels))  # (K, rows, Tx, C)
        pooled = ops.matmul(ops.expand_dims(across, 1), rows)  # (K, rows, columns, C)
        # Chosen, not multiplied: the features that padding reads may be NaN.
        pooled = ops.where(ops.reshape(counts, (-1, 1, 1, 1)), pooled, 0.0)
        return ops.cast(pooled, cells.dtype)

    return in_pieces(pool, (*per_box, valid), piece)


def readable_cells(cells):
    """Return cells (M, C), one more where there is none under XLA, which reads them even if there is no box."""
    if cells.shape[0] is not None or not under_tensorflow_xla():
        return cells
    missing = ops.maximum(1 - ops.shape(cells)[0], 0)  # known to XLA, which leaves out the copy
    return ops.concatenate([cells, ops.zeros((missing, cells.shape[1]), cells.dtype)], axis=0)


def in_pieces(function, inputs, piece):
    """Apply a function to a bounded number of boxes at a time.

    Args:
        function: Takes a tuple of arrays (K, ...) and returns one (K, ...).
        inputs: Tuple of arrays (M, ...); they are filled up with zeros.
        piece: Largest K.

    Returns:
        (M, ...).
    """
    total = inputs[0].shape[0]
    if total is not None and total <= piece:
        return function(inputs)
    if total is not None:
        piece = -(-total // -(-total // piece))  # pieces of about the same size
    total = ops.shape(inputs[0])[0]
    # XLA traces the loop's body even if there is no box, and cannot take a piece of nothing.
    filled = ops.maximum(total, 1) if under_tensorflow_xla() else total

    def split(values):
        filling = ops.zeros((filled + (-filled) % piece - total, *values.shape[1:]), values.dtype)
        return ops.reshape(ops.concatenate([values, filling], axis=0), (-1, piece, *values.shape[1:]))

    found = ops.map(function, tuple(split(values) for values in inputs))  # (pieces, K, ...)
    return ops.reshape(found, (-1, *found.shape[2:]))[:total]


def _taps(start, end, size, bins, sampling_ratio, aligned, max_samples):
    """Return which cells each box reads along one axis, and how much each counts in each bin.

    Args:
        start: (K, 1) first side of the boxes, in cells.
        end: (K, 1) last side.
        size: int (K, 1) cells of the map.
        bins: P.
        sampling_ratio: Samples per bin or ``None``.
        aligned: As in `roi_align`.
        max_samples: Bound of the samples per bin where they are adaptive.

    Returns:
        int32 (K, T) in [0, size), and float32 (K, P, T).
    """
    if aligned:
        start, end = start - 0.5, end - 0.5
        extent = end - start
    else:
        extent = ops.maximum(end - start, 1)
    if sampling_ratio is None:
        return _adaptive_taps(start, extent, size, bins, max_samples)
    count = bins * sampling_ratio
    per_bin = extent / bins  # (K, 1)
    in_bin = (ops.expand_dims(ops.arange(sampling_ratio, dtype="float32"), 0) + 0.5) * per_bin / sampling_ratio
    position, inside = _inside(_positions(start, per_bin, in_bin, bins), size)  # (K, P S)
    lower = ops.minimum(ops.floor(position), ops.cast(size - 1, "float32"))
    upper_share = position - lower
    lower = ops.cast(lower, "int32")
    upper = ops.minimum(lower + 1, size - 1)
    share = ops.cast(inside, "float32") / sampling_ratio
    weights = ops.stack([(1 - upper_share) * share, upper_share * share], axis=-1)  # (K, P S, 2)
    weights = ops.reshape(weights, (-1, 1, bins, 2 * sampling_ratio))
    # Each bin has its own samples: blocks on the diagonal of a (P, P) grid.
    weights = weights * ops.reshape(ops.eye(bins, dtype="float32"), (1, bins, bins, 1))  # (K, P, P, 2 S)
    cells = ops.reshape(ops.stack([lower, upper], axis=-1), (-1, 2 * count))
    return cells, ops.reshape(weights, (-1, bins, 2 * count))


def _positions(start, per_bin, in_bin, bins):
    """Return where the samples lie (K, P S), rounded as the reference does: start + bin, then in the bin (K, S)."""
    bin_starts = start + ops.expand_dims(ops.arange(bins, dtype="float32"), 0) * per_bin  # (K, P)
    position = ops.expand_dims(bin_starts, 2) + ops.expand_dims(in_bin, 1)  # (K, P, S)
    return ops.reshape(position, (-1, bins * in_bin.shape[1]))


def _inside(position, size):
    """Return positions moved to the nearest cell, and whether they were at most one cell away from the map."""
    last = ops.cast(size, "float32")
    inside = ops.logical_and(position >= -1, position <= last)
    return ops.clip(position, 0.0, last - 1), inside


def _adaptive_taps(start, extent, size, bins, max_samples):
    """As `_taps`, with ceil(cells per bin) samples.

    So many samples leave no cell between them unread: a row of P S + 2 successive cells holds all that are read.
    """
    per_bin = extent / bins  # (K, 1)
    # The quotient rounded up, but not by division: XLA multiplies by the inverse, and 84 / 7 comes out above 12.
    whole = ops.floor(per_bin)
    samples = ops.minimum(whole + ops.cast(whole * bins < extent, "float32"), max_samples)
    reach = bins * max_samples + 2
    numbers = ops.arange(max_samples, dtype="float32")  # (S,)
    in_bin = (ops.expand_dims(numbers, 0) + 0.5) * per_bin / ops.maximum(samples, 1)  # (K, S)
    position, inside = _inside(_positions(start, per_bin, in_bin, bins), size)  # (K, P S)
    counts = ops.reshape(ops.expand_dims(numbers, 0) < samples, (-1, 1, max_samples))  # (K, 1, S)
    inside = ops.logical_and(ops.reshape(inside, (-1, bins, max_samples)), counts)
    share = ops.cast(inside, "float32") / ops.maximum(ops.expand_dims(samples, 2), 1)  # (K, P, S)
    first = ops.floor(ops.clip(start, 0.0, ops.cast(size - 1, "float32")))  # (K, 1)
    window = first + ops.expand_dims(ops.arange(reach, dtype="float32"), 0)  # (K, T)
    # A sample counts in the two cells around it, by its distance from them.
    distance = ops.reshape(position, (-1, bins, max_samples, 1)) - ops.reshape(window, (-1, 1, 1, reach))
    weights = ops.sum(ops.maximum(1 - ops.absolute(distance), 0.0) * ops.expand_dims(share, 3), axis=2)  # (K, P, T)
    # Boxes too large for the window: its first P S places are the samples themselves, at their nearest cells.
    nearest = ops.pad(ops.floor(position + 0.5), ((0, 0), (0, 2)))  # (K, T)
    own = ops.expand_dims(share, 1) * ops.reshape(ops.eye(bins, dtype="float32"), (1, bins, bins, 1))  # (K, P, P, S)
    own = ops.pad(ops.reshape(own, (-1, bins, bins * max_samples)), ((0, 0), (0, 0), (0, 2)))
    large = per_bin > max_samples
    cells = ops.cast(ops.where(large, nearest, window), "int32")
    return ops.minimum(cells, size - 1), ops.where(ops.expand_dims(large, 2), own, weights)

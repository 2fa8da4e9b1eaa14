"""3x3 convolutions with fewer multiplications: Winograd's minimal filtering.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), sections 3 and 4.

Outputs are cut into tiles of m x m. Each is computed from m+2 x m+2 inputs, which a fixed matrix transforms; so are the
kernel, beforehand, and the result. In between, each of the (m+2)^2 positions is one matrix product over channels: 36
multiplications for the 16 outputs of a 4x4 tile in place of 144, 16 for the 4 of a 2x2 tile in place of 36.

Gathering and the transforms are passes over memory, so the gain grows with channels. In float32, results differ from
the direct sum by some 1e-5 of the largest; half precision is not meant for it.
"""

from dataclasses import dataclass
from functools import cache

import keras
import numpy as np
from keras import ops

# For tiles of 2 (section 4.1) and of 4 (section 4.2): the transforms B^T of inputs, G of kernels, A^T of outputs.
_TRANSFORMS = {
    2: (
        [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
        [[1, 1, 1, 0], [0, 1, -1, -1]],
    ),
    4: (
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ],
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    ),
}
# What moving one number through gathering and a transform costs, in multiplications of the matrix product. Measured on
# a 2-core Xeon, where it ranks 8 shapes from 64 channels at 200x200 to 2048 at 65x65 as their times do.
_COST_OF_MOVING = 100
# Of the direct convolution's cost; above it, the gain is not worth another order of summation.
_WORTHWHILE = 0.9


@dataclass(frozen=True)
class Tiling:
    """How the outputs of one axis are cut into tiles.

    With a dilation d, every d-th output makes a sequence of its own, which is cut as if it were the whole axis.

    Attributes:
        sources: (m+2, T) int, which padded inputs each tile needs.
        targets: (H_out,) int, ``i * T + t`` for the output that is number i of tile t.
        before: Zeros before the first input.
        after: Zeros after the last one.
    """

    sources: np.ndarray
    targets: np.ndarray
    before: int
    after: int

    @property
    def count(self) -> int:
        """Number of tiles T."""
        return self.sources.shape[1]


def _tiling(size: int, tile: int, dilation: int, padding: str) -> Tiling:
    """Cut one axis of `size` inputs."""
    before = dilation if padding == "same" else 0
    outputs = np.arange(size + 2 * before - 2 * dilation)
    phase, place = outputs % dilation, outputs // dilation
    firsts, tile_of = np.unique(phase + dilation * (place // tile * tile), return_inverse=True)
    sources = firsts + dilation * np.arange(tile + 2)[:, None]
    after = max(int(sources.max()) + 1 - before - size, before)
    return Tiling(sources, place % tile * len(firsts) + tile_of, before, after)


def winograd_tile(input_shape, channels: int, *, padding: str = "same", dilation: int = 1) -> int | None:
    """Return the tile size that makes a convolution cheapest on a CPU, ``None`` where the direct one is best.

    Args:
        input_shape: Static (B, H, W, C).
        channels: Channels of the output.
        padding: "same" or "valid".
        dilation: Of the kernel.
    """
    batch, height, width, depth = input_shape
    shrink = 0 if padding == "same" else 2 * dilation
    if min(height, width) <= shrink or 0 in (batch, depth, channels):
        return None
    costs: dict[int | None, float] = {}
    for tile in _TRANSFORMS:
        tiles = _tiling(height, tile, dilation, padding).count * _tiling(width, tile, dilation, padding).count
        positions = batch * tiles * (tile + 2) ** 2
        costs[tile] = positions * (depth * channels + _COST_OF_MOVING * (depth + channels))
    if padding == "same":  # products with padding are left out
        products = (3 * height - 2 * min(dilation, height)) * (3 * width - 2 * min(dilation, width))
    else:
        products = 9 * (height - shrink) * (width - shrink)
    costs[None] = _WORTHWHILE * batch * products * depth * channels
    return min(costs, key=lambda tile: costs[tile])


def winograd_kernel(kernel, tile: int = 4) -> np.ndarray:
    """Transform a kernel for `winograd_convolution`.

    Args:
        kernel: (3, 3, C, K) array.
        tile: 2 or 4.

    Returns:
        ((tile + 2)^2, C, K) of the kernel's type.

    Raises:
        ValueError: Another kernel or tile.
    """
    kernel = np.asarray(kernel)
    if kernel.ndim != 4 or kernel.shape[:2] != (3, 3):
        raise ValueError(f"`kernel` of shape {kernel.shape} must be (3, 3, channels in, channels out)")
    rows = _transforms(tile)[1]
    moved = np.kron(rows, rows) @ kernel.reshape(9, -1).astype(np.float64)  # ((m+2)^2, CK)
    return moved.reshape(-1, *kernel.shape[2:]).astype(kernel.dtype)


def winograd_convolution(inputs, kernel, *, padding: str = "same", dilation: int = 1):
    """Convolve with a 3x3 kernel at stride 1.

    Args:
        inputs: (B, H, W, C) float32 of static shape, channels last.
        kernel: ((m+2)^2, C, K), from `winograd_kernel`; m is 2 or 4.
        padding: "same" (zeros) or "valid".
        dilation: Of the kernel.

    Returns:
        (B, H, W, K), for "valid" (B, H - 2 dilation, W - 2 dilation, K).

    Raises:
        ValueError: Shapes that are not static or do not fit.
    """
    if padding not in ("same", "valid"):
        raise ValueError(f"`padding` {padding!r} must be 'same' or 'valid'")
    shape, kernel_shape = tuple(inputs.shape), tuple(kernel.shape)
    tile = {(size + 2) ** 2: size for size in _TRANSFORMS}.get(kernel_shape[0])
    if len(shape) != 4 or None in shape or tile is None or kernel_shape[1] != shape[3]:
        raise ValueError(
            f"`inputs` {shape} must be (B, H, W, C) without None, and `kernel` {kernel_shape} (16 or 36, C, K) from "
            "winograd_kernel"
        )
    batch, height, width, depth = shape
    if padding == "valid" and min(height, width) <= 2 * dilation:
        raise ValueError(f"`inputs` {shape} must be larger than {2 * dilation}, what 'valid' padding takes off")
    rows, columns = (_tiling(size, tile, dilation, padding) for size in (height, width))
    padded_hw = [size + axis.before + axis.after for size, axis in ((height, rows), (width, columns))]
    into, _, out_of = _transforms(tile)

    pads = [[0, 0], [rows.before, rows.after], [columns.before, columns.after], [0, 0]]
    pixels = ops.reshape(ops.pad(inputs, pads), (-1, depth))  # (B * padded H * padded W, C)
    sources = (np.arange(batch)[:, None, None] * padded_hw[0] + rows.sources[:, None, None, :, None]) * padded_hw[
        1
    ] + columns.sources[:, None, None, :]  # (m+2, m+2, B, T, U)
    positions, count = (tile + 2) ** 2, batch * rows.count * columns.count
    gathered = ops.take(pixels, sources.reshape(-1).astype("int32"), axis=0)
    gathered = ops.reshape(gathered, (positions, count * depth))
    moved = ops.matmul(_pairs(into, inputs.dtype), gathered)
    products = ops.matmul(ops.reshape(moved, (positions, count, depth)), kernel)  # ((m+2)^2, BTU, K)
    moved = ops.matmul(_pairs(out_of, inputs.dtype), ops.reshape(products, (positions, -1)))
    moved = ops.reshape(moved, (tile * tile * count, kernel_shape[2]))  # (m, m, B, T, U) x K
    targets = _targets(batch, tile, rows, columns)
    out_hw = (len(rows.targets), len(columns.targets))
    return ops.reshape(ops.take(moved, targets, axis=0), (batch, *out_hw, kernel_shape[2]))


def _targets(batch, tile, rows, columns):
    """Return (B * H_out * W_out,) int32: where each output lies among (m, m, B, T, U)."""
    (i, t), (j, u) = (np.divmod(axis.targets, axis.count) for axis in (rows, columns))
    image = np.arange(batch)[:, None, None]
    place = i[:, None] * tile + j  # (H_out, W_out)
    return (((place * batch + image) * rows.count + t[:, None]) * columns.count + u).reshape(-1).astype("int32")


@cache
def _transforms(tile: int):
    """Return B^T, G and A^T as float64 arrays."""
    if tile not in _TRANSFORMS:
        raise ValueError(f"`tile` {tile!r} must be one of {sorted(_TRANSFORMS)}")
    return tuple(np.array(matrix, np.float64) for matrix in _TRANSFORMS[tile])


def _pairs(matrix, dtype):
    """Return the matrix that applies `matrix` to both axes of a tile."""
    return ops.convert_to_tensor(np.kron(matrix, matrix), keras.backend.standardize_dtype(dtype))

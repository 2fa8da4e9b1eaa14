"""The permutohedral lattice: Gaussian filtering in few dimensions, in time linear in the number of points.

Runs on the host, in NumPy and SciPy, as post-processing does; nothing here can be part of a graph.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

# float32 keeps 3 binary digits of a position inside its simplex up to here.
_LARGEST_COORDINATE = 2.0**20

# Of a hash that is linear modulo 2^64 (odd numbers drawn once): with a million keys, two collide with a probability of
# 3e-8. Used only where keys do not fit into 63 bits as they are.
_HASH_SEED = 2010


@dataclass(frozen=True)
class PermutohedralLattice:
    """A Gaussian filter of standard deviation 1 in the space of `features`, as three sparse linear maps.

    Values are splatted onto the corners of the simplices that their points lie in, blurred along each direction of
    the lattice, and sliced at the points again. Made by `permutohedral_lattice`.

    Args:
        splat: float32 CSR (M, N), from N points to M lattice points.
        blurs: d + 1 float32 CSR (M, M), applied in this order: 1/2, 1, 1/2 along each direction.
        slice: float32 CSR (N, M), the transpose of `splat` times the lattice's scale, 1 / (1 + 2^-d).
    """

    splat: sparse.csr_array
    blurs: tuple[sparse.csr_array, ...]
    slice: sparse.csr_array

    def filter(self, values: np.ndarray) -> np.ndarray:
        """Return the weighted sums float32 (N, C) of values float32 (N, C), each point's own included.

        Weights are roughly exp(-|f - g|^2 / 2), up to a common factor; they are off by up to 0.2 in two
        dimensions and 0.6 in five, most for the point itself. Divide by what a column of ones gives.
        """
        values = self.splat @ values  # (M, C)
        for blur in self.blurs:
            values = blur @ values
        return self.slice @ values

    def scaled(self, before: np.ndarray, after: np.ndarray) -> "PermutohedralLattice":
        """Return the filter that multiplies values by `before` (N,), filters, and multiplies by `after` (N,)."""
        splat, sliced = self.splat.copy(), self.slice.copy()
        splat.data *= before.astype(np.float32)[splat.indices]
        sliced.data *= np.repeat(after.astype(np.float32), np.diff(sliced.indptr))
        return PermutohedralLattice(splat, self.blurs, sliced)


def permutohedral_lattice(features: np.ndarray) -> PermutohedralLattice:
    """Return the filter for points in d dimensions.

    Args:
        features: float32 (N, d), N and d of 1 or more, each divided by the standard deviation wanted along it.

    Returns:
        `PermutohedralLattice`. Memory: about 50 (d + 1) bytes for each point while it is made, half of that after.

    Raises:
        ValueError: Features that are not finite, or so large that float32 cannot place them on the lattice.

    Blurring reaches only lattice points that some point touches, as in the reference.

    Source: Adams et al. 2010, "Fast high-dimensional filtering using the permutohedral lattice", sections 3 and 4;
    arithmetic in float32 in the order of Krähenbühl's code (pydensecrf2), so that filters equal its ones.
    """
    features = np.asarray(features, np.float32)
    count, dimensions = features.shape
    corner, rank, weights = _enclosing_simplices(features)
    codes, steps = _codes(corner, rank)
    unique, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    # Lattice points in the order in which the points touch them: neighbours in the image stay near in memory.
    number = np.empty(len(unique), np.int32)
    number[np.argsort(first)] = np.arange(len(unique), dtype=np.int32)
    columns = number[inverse.reshape(-1)]  # (N (d + 1),)
    starts = np.arange(0, count * (dimensions + 1) + 1, dimensions + 1)
    shape = (count, len(unique))
    weights = np.ascontiguousarray(weights.T).reshape(-1)  # (N (d + 1),)
    splat = sparse.csr_array((weights, columns, starts), shape=shape).T.tocsr()
    scale = np.float32(1 / (1 + 2.0**-dimensions))
    sliced = sparse.csr_array((weights * scale, columns, starts), shape=shape)
    blurs = tuple(_blur(unique, number, step) for step in steps)
    return PermutohedralLattice(splat, blurs, sliced)


def _enclosing_simplices(features):
    """Return the simplex that each point lies in.

    Args:
        features: float32 (N, d).

    Returns:
        Its corner of remainder 0: float32 (d + 1, N) coordinates, multiples of d + 1 that add up to 0; the rank int32
        (d + 1, N) of each coordinate of the point relative to it, 0 for the largest; the barycentric weights float32
        (d + 1, N) of the corners of remainder 0 ... d.
    """
    dimensions = features.shape[1]
    elevated = _elevate(features)
    if not np.abs(elevated).max() < _LARGEST_COORDINATE:  # NaN too
        raise ValueError(
            f"features reach {np.abs(features).max():g} standard deviations, but float32 can place about "
            f"{_LARGEST_COORDINATE / (dimensions + 1):g} on the lattice; use larger sigmas, and finite features"
        )
    rounded = np.rint(elevated * np.float32(1 / (dimensions + 1)))
    corner = rounded * np.float32(dimensions + 1)
    offset = elevated - corner
    rank = np.zeros(offset.shape, np.int32)
    for i in range(dimensions):
        for j in range(i + 1, dimensions + 1):
            less = offset[i] < offset[j]
            rank[i] += less
            rank[j] += ~less
    # Rounding may leave the plane of coordinates that add up to 0: bring it back where the rounding was worst.
    rank += rounded.sum(axis=0).astype(np.int32)
    correction = (dimensions + 1) * ((rank < 0).astype(np.int32) - (rank > dimensions))
    rank += correction
    corner += correction
    offset = (elevated - corner) * np.float32(1 / (dimensions + 1))
    ascending = np.empty_like(offset)
    np.put_along_axis(ascending, dimensions - rank, offset, axis=0)
    weights = np.empty_like(offset)
    weights[0] = 1 + ascending[0] - ascending[-1]
    weights[1:] = ascending[1:] - ascending[:-1]
    return corner, rank, weights


def _elevate(features):
    """Return features (N, d) as d + 1 coordinates (d + 1, N) that add up to 0, scaled to the lattice."""
    count, dimensions = features.shape
    # Blurring by 1/2, 1, 1/2 and interpolating have the variance of steps of this size (Adams et al., section 3.1).
    deviation = float(np.float32(np.sqrt(2 / 3) * (dimensions + 1)))
    elevated = np.empty((dimensions + 1, count), np.float32)
    total = np.zeros(count, np.float32)
    for j in range(dimensions, 0, -1):
        feature = features[:, j - 1] * np.float32(deviation / np.sqrt(j * (j + 1)))
        elevated[j] = total - np.float32(j) * feature
        total = total + feature
    elevated[0] = total
    return elevated


def _codes(corner, rank):
    """Return one integer for each corner of each point's simplex, and how it changes along each direction.

    Args:
        corner: (d + 1, N) see `_enclosing_simplices`.
        rank: (d + 1, N).

    Returns:
        int64 (N, d + 1), equal for equal corners; int64 (d + 1,) steps: the neighbours of code k are k ± step.
    """
    dimensions = len(corner) - 1
    corner, rank = corner[:-1].astype(np.int64), rank[:-1]  # the last coordinate follows from the others
    margin = 2 * (dimensions + 1)  # corners and their neighbours differ by less
    low = corner.min(axis=1) - margin
    spans = [int(span) for span in corner.max(axis=1) + margin + 1 - low]
    radix = [1]
    for span in spans:
        radix.append(radix[-1] * span)
    if radix[-1] < 2**63:
        radix = np.array(radix[:-1], np.int64)
    else:
        radix = np.random.default_rng(_HASH_SEED).integers(2**62, size=dimensions) * 2 + 1
    with np.errstate(over="ignore"):
        total = radix.sum()
        base = ((corner - low[:, None]) * radix[:, None]).sum(axis=0)
        codes = np.empty((corner.shape[1], dimensions + 1), np.int64)
        for remainder in range(dimensions + 1):
            # Corner of this remainder: + remainder everywhere, - (d + 1) at the coordinates of the last ranks.
            wraps = ((rank > dimensions - remainder) * radix[:, None]).sum(axis=0)
            codes[:, remainder] = base + remainder * total - (dimensions + 1) * wraps
        # Direction j: d + 1 more along j and 1 less along all; the last coordinate is not in the code.
        steps = np.append(radix * (dimensions + 1), 0) - total
    return codes, steps


def _blur(unique, number, step):
    """Return the CSR (M, M) that adds half of each of two neighbours, where there are such lattice points.

    Args:
        unique: int64 (M,) sorted codes.
        number: int32 (M,) the lattice point of each code.
        step: What a code changes by from a point to its neighbour.
    """
    size = len(unique)
    with np.errstate(over="ignore"):
        wanted = unique + step
    place = np.minimum(np.searchsorted(unique, wanted), size - 1)
    found = unique[place] == wanted
    one, other = number[found], number[place[found]]
    diagonal = np.arange(size, dtype=np.int32)
    rows = np.concatenate([diagonal, one, other])
    columns = np.concatenate([diagonal, other, one])
    weights = np.full(len(rows), 0.5, np.float32)
    weights[:size] = 1
    return sparse.csr_array((weights, (rows, columns)), shape=(size, size))

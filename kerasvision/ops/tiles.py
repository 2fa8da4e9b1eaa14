"""Windows that cover a large image, and how much each of them counts at each pixel. NumPy, on the host.

A pixel's weight in a window is the product of its row's and its column's weight, and along each axis the weights of all
windows add up to 1 at every pixel. So windows are multiplied and added; nothing has to be divided in the end, and rows
are finished as soon as the last window over them is added.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

TileMode = Literal["linear", "average", "centre"]

# Pooling and strides of common networks divide 32: windows that start at its multiples meet the same grid of cells.
_GRAIN = 32

# What is open at a time, float32 (rows, columns, C): wider images are done in bands of columns.
OPEN_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Span:
    """A window along one axis, in pixels of the image.

    Attributes:
        start: First pixel; below 0 where the image is mirrored.
        stop: One beyond the last pixel.
        first: First pixel at which the window counts.
        last: One beyond the last pixel at which it counts.
        weights: (last - first,) float32 in (0, 1].
    """

    start: int
    stop: int
    first: int
    last: int
    weights: np.ndarray


@dataclass(frozen=True)
class Tiles:
    """How a large image is cut into windows, which go through a segmenter one by one and are joined again.

    Windows are of the image's own pixels: a model's `ResizeRule` does not apply to them. Where windows overlap, what is
    joined are logits, as in mmseg's `slide_inference`, or, where there are no logits any more, as after a mean over
    scales or a CRF, probabilities.

    Args:
        size_hw: Height and width of a window, or one number for both. The last window of an axis may be up to 31 pixels
            shorter, so that it starts at a multiple of the network's stride like the others; an image
            smaller than a window is one window.
        overlap: Rows and columns that neighbours share, or one number for both; below `size_hw`. More where the last
            window is moved back into the image.
        mode: How overlapping windows are joined. ``"linear"``: means whose weights fall off linearly towards a window's
            borders, where a network sees least. ``"average"``: plain means, as in mmseg. ``"centre"``: each window
            counts as far as the middle of what it shares with its neighbour, without any mean. With an overlap of
            twice the distance that the network looks, that equals the whole image's result at every pixel; for networks
            that stretch their logits to the input, such as dilated ones, if their stride divides the image's sides, and
            for those that look at all of it, as DeepLabV3's image pooling does, never.
        mirror: Whether the image is continued by mirroring, by half the overlap on each side (the border's pixel is
            not repeated), and all windows have `size_hw`. With ``"centre"`` it is U-Net's overlap-tile strategy, for
            networks that need context or give smaller logits than their input: the paper's 572x572 pixels with 388x388
            logits are ``Tiles(572, overlap=184, mode="centre", mirror=True)``.

    Raises:
        ValueError: A size or overlap out of range, or an unknown mode.

    Source: Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597, figure 2; mmseg's `EncoderDecoder`.

    >>> tiles = Tiles(4, overlap=2, mode="average")
    >>> [(span.start, span.stop) for span in tiles.spans(9, axis=0)]
    [(0, 4), (2, 6), (4, 8), (6, 9)]
    """

    size_hw: int | tuple[int, int] = (512, 512)
    overlap: int | tuple[int, int] = 128
    mode: TileMode = "linear"
    mirror: bool = False

    def __post_init__(self):
        if self.mode not in ("linear", "average", "centre"):
            raise ValueError(f"`mode` {self.mode!r} is unknown; use 'linear', 'average' or 'centre'")
        size_hw = _pair("size_hw", self.size_hw, least=1)
        overlap = _pair("overlap", self.overlap, least=0)
        if overlap[0] >= size_hw[0] or overlap[1] >= size_hw[1]:
            raise ValueError(f"`overlap` {overlap} must be below `size_hw` {size_hw}; a quarter of it is usual")
        object.__setattr__(self, "size_hw", size_hw)
        object.__setattr__(self, "overlap", overlap)

    @property
    def margins_hw(self) -> tuple[int, int]:
        """Pixels along each border of a window that never count, not even at the image's border."""
        if self.mode != "centre" or not self.mirror:
            return 0, 0
        return self._along(0)[1] // 2, self._along(1)[1] // 2

    def _along(self, axis: int) -> tuple[int, int]:
        """Return a window's size and its overlap along an axis."""
        assert isinstance(self.size_hw, tuple) and isinstance(self.overlap, tuple)
        return self.size_hw[axis], self.overlap[axis]

    def spans(self, length: int, axis: int) -> list[Span]:
        """Return the windows along an axis of an image, in order; at every pixel their weights add up to 1.

        Args:
            length: Pixels of the image along the axis, at least 1.
            axis: 0 for rows, 1 for columns.
        """
        size, overlap = self._along(axis)
        limits = _mirrored_limits(length, size, overlap) if self.mirror else _limits(length, size, size - overlap)
        if self.mode == "centre":
            cuts = [(stop + start) // 2 for (_, stop), (start, _) in pairwise(limits)]
            counted = list(pairwise([0, *cuts, length]))
        else:
            counted = [(max(start, 0), min(stop, length)) for start, stop in limits]
        if self.mode == "linear":
            # At the image's own border there is nothing beyond that could count instead.
            ends = [(start > 0, stop < length) for start, stop in limits]
            weights = [_tent(*window, overlap) for window in zip(limits, counted, ends, strict=True)]
        else:
            weights = [np.ones(last - first) for first, last in counted]
        total = np.zeros(length)
        for (first, last), part in zip(counted, weights, strict=True):
            total[first:last] += part
        return [
            Span(start, stop, first, last, (part / total[first:last]).astype(np.float32))
            for (start, stop), (first, last), part in zip(limits, counted, weights, strict=True)
        ]


def _pair(name: str, value, *, least: int) -> tuple[int, int]:
    """Return a number, or (height, width), as two integers."""
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2 or not all(isinstance(number, int | np.integer) and number >= least for number in pair):
        raise ValueError(f"`{name}` {value!r} must be a whole number, or two as (height, width), of at least {least}")
    return int(pair[0]), int(pair[1])


def _tent(limits, counted, open_ends, overlap: int) -> np.ndarray:
    """Return weights of the pixels counted, rising from a window's open ends to 1 over the overlap."""
    pixels = np.arange(*counted)
    rise = np.full(len(pixels), overlap + 1)
    if open_ends[0]:
        rise = np.minimum(rise, pixels - limits[0] + 1)
    if open_ends[1]:
        rise = np.minimum(rise, limits[1] - pixels)
    return rise / (overlap + 1)


def _limits(length: int, size: int, step: int) -> list[tuple[int, int]]:
    """Return (start, stop) of windows inside an image."""
    if length <= size:
        return [(0, length)]
    grain = math.gcd(step, _GRAIN)
    starts = [*range(0, length - size, step), -(-(length - size) // grain) * grain]
    return [(start, min(start + size, length)) for start in starts]


def _mirrored_limits(length: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Return (start, stop) of windows of one size whose parts without half the overlap on each side cover an image."""
    step = size - overlap
    starts = [number * step - overlap // 2 for number in range(-(-length // step))]
    return [(start, start + size) for start in starts]


def mirrored(places: np.ndarray, length: int) -> np.ndarray:
    """Return which pixels of 0 to `length` - 1 are seen at places that may lie outside; see `ops.mirror`."""
    period = max(2 * (length - 1), 1)
    places = places % period
    return np.minimum(places, period - places)


def read_window(image: np.ndarray, rows: Span, columns: Span) -> np.ndarray:
    """Return a window (h, w, ...) of an image (H, W, ...), which may be a memory map: only what it shows is read."""
    if min(rows.start, columns.start) >= 0 and rows.stop <= image.shape[0] and columns.stop <= image.shape[1]:
        return np.asarray(image[rows.start : rows.stop, columns.start : columns.stop])
    seen = [
        mirrored(np.arange(span.start, span.stop), length)
        for span, length in zip((rows, columns), image.shape[:2], strict=True)
    ]
    top, left = seen[0].min(), seen[1].min()
    block = np.asarray(image[top : seen[0].max() + 1, left : seen[1].max() + 1])
    return block[(seen[0] - top)[:, None], seen[1] - left]


def count_windows(size_hw: tuple[int, int], tiles: Tiles, channels: int) -> int:
    """Return how many windows `join_windows` asks for."""
    rows = tiles.spans(size_hw[0], 0)
    return len(rows) * sum(len(columns) for _, _, columns in _bands(rows, tiles.spans(size_hw[1], 1), channels))


def join_windows(
    size_hw: tuple[int, int],
    tiles: Tiles,
    channels: int,
    values_of: Callable[[list[tuple[Span, Span]]], Iterable[np.ndarray]],
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yield finished parts of what windows add up to; together they cover the image.

    No more than `OPEN_BYTES` of sums are held, or those of one window where they are more, whatever the image's size:
    a wide image is done in bands of columns, one after the other, and the windows over a seam twice.

    Args:
        size_hw: (height, width) of the image.
        tiles: The windows.
        channels: C.
        values_of: Called with a row of windows as (rows, columns); gives (h, w, C) for each.

    Yields:
        (rows, columns, values): where in the image, and float32 (h, w, C), valid until the next is asked for.
    """
    rows = tiles.spans(size_hw[0], 0)
    height = _open_rows(rows)
    for left, right, columns in _bands(rows, tiles.spans(size_hw[1], 1), channels):
        sums = np.zeros((height, right - left, channels), np.float32)
        for row, following in zip(rows, [*rows[1:], None], strict=True):
            windows = [(row, column) for column in columns]
            for column, values in zip(columns, values_of(windows), strict=True):
                _add(sums, values, row, column, (left, right))
            done = (row.last if following is None else following.first) - row.first
            yield slice(row.first, row.first + done), slice(left, right), sums[:done]
            sums[: height - done] = sums[done:].copy()
            sums[height - done :] = 0


def _add(sums, values, row: Span, column: Span, band: tuple[int, int]) -> None:
    """Add a window (h, w, C), weighted, to sums (rows from `row.first` on, the band's columns, C)."""
    left, right = max(column.first, band[0]), min(column.last, band[1])
    values = values[row.first - row.start : row.last - row.start, left - column.start : right - column.start]
    weights = row.weights[:, None] * column.weights[left - column.first : right - column.first]  # (h, w)
    sums[: len(values), left - band[0] : right - band[0]] += values * weights[..., None]


def _open_rows(rows: list[Span]) -> int:
    """Return how many rows are open at a time."""
    return max(row.last - row.first for row in rows)


def _bands(rows: list[Span], columns: list[Span], channels: int) -> list[tuple[int, int, list[Span]]]:
    """Return (left, right, windows that count there) of the bands of columns that an image is done in."""
    widest = max(1, OPEN_BYTES // (4 * channels * _open_rows(rows)))
    ends = [*(column.first for column in columns[1:]), columns[-1].last]
    seams = [0]
    for column, end in zip(columns, ends, strict=True):
        if end - seams[-1] > widest and column.first > seams[-1]:
            seams.append(column.first)
    return [
        (left, right, [column for column in columns if column.first < right and column.last > left])
        for left, right in pairwise([*seams, columns[-1].last])
    ]

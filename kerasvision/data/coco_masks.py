"""COCO's mask encodings as arrays: polygons and run-length codes, uncompressed and compressed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def decode_segmentation(segmentation, size_hw: tuple[int, int]) -> np.ndarray:
    """Returns the mask of one annotation's `segmentation`.

    Args:
        segmentation: a list of polygons [x1, y1, x2, y2, …] in pixels, or a dict with "size" [H, W] and
            "counts", a list of run lengths or COCO's compressed string.
        size_hw: height and width of the image in pixels.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: another structure, size or total; the message has no file name, the caller adds it.
    """
    if isinstance(segmentation, dict):
        return _decode_runs(segmentation, size_hw)
    if isinstance(segmentation, list):
        return _fill_polygons(segmentation, size_hw)
    raise ValueError(f"segmentation is {type(segmentation).__name__}; expected polygons or a run-length code")


def _decode_runs(code: dict, size_hw: tuple[int, int]) -> np.ndarray:
    # Written here and not taken from pycocotools, whose C code trusts the lengths in the file.
    size = code.get("size")
    if not isinstance(size, Sequence) or tuple(size) != tuple(size_hw):
        raise ValueError(f"mask size {size} differs from the image's height and width {list(size_hw)}")
    counts = code.get("counts")
    runs = uncompress_counts(counts) if isinstance(counts, (str, bytes)) else counts
    try:
        runs = np.asarray(runs, np.int64)
    except (TypeError, ValueError, OverflowError):
        runs = None
    height, width = size_hw
    if runs is None or runs.ndim != 1 or (runs < 0).any() or (runs > height * width).any():
        raise ValueError("run lengths must be integers of at least 0 and at most the number of pixels")
    if runs.sum() != height * width:
        raise ValueError(f"run lengths add up to {runs.sum()}; expected {height}·{width} = {height * width}")
    values = np.arange(len(runs)) % 2 == 1  # runs alternate, background first
    return np.repeat(values, runs).reshape(width, height).T  # runs go down the columns


def uncompress_counts(text: str | bytes) -> list[int]:
    """Returns the run lengths in COCO's compressed string (`rleFrString` of its maskApi.c).

    Each number is written in groups of five bits, low ones first, as characters from 48; bit 5 says that
    more follow, bit 4 of the last group is the sign. From the fourth on they are differences to the number
    two before.

    Raises:
        ValueError: a character out of range, or a string that ends within a number.
    """
    codes = text if isinstance(text, bytes) else text.encode("ascii", "replace")
    runs: list[int] = []
    value = shift = 0
    for character in codes:
        group = character - 48
        if not 0 <= group < 64 or shift > 60:
            raise ValueError(f"compressed run lengths hold the character {chr(character)!r}, which is no code")
        value |= (group & 0x1F) << shift
        shift += 5
        if group & 0x20:
            continue
        if group & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("compressed run lengths end within a number")
    return runs


def _fill_polygons(polygons: list, size_hw: tuple[int, int]) -> np.ndarray:
    height, width = size_hw
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon needs at least 3 points, as a list [x1, y1, x2, y2, …]")
        try:
            points = np.asarray(polygon, np.float64)
        except (TypeError, ValueError):
            points = np.array([np.nan])
        # The bound keeps the rasteriser from walking kilometres of outline outside the picture.
        if not np.isfinite(points).all() or np.abs(points).max() > 10 * max(height, width):
            raise ValueError("a polygon has a coordinate that is not a number or lies far outside the image")
    if not polygons:
        return np.zeros(size_hw, bool)
    from faster_coco_eval.core import mask as coco_mask

    codes = coco_mask.frPyObjects(polygons, height, width)  # one for each polygon
    return np.any(coco_mask.decode(codes), axis=-1)  # (H, W, polygons) -> (H, W)

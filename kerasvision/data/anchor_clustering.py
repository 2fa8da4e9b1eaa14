"""Anchors for a data set: the widths and heights around which its boxes cluster (YOLO's priors)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kerasvision.data.samples import Dataset
from kerasvision.ops.resizing import ResizeRule

ROUNDS = 300  # k-means has always settled long before; Darknet's calc_anchors stops at 10,000


@dataclass(frozen=True)
class AnchorClusters:
    """What `cluster_sizes` found.

    Attributes:
        sizes_wh: (k, 2) float32 widths and heights, by growing area.
        counts: (k,) int64, the number of boxes of each cluster.
        mean_iou: mean IoU of every box with its cluster's size, both centred alike, in (0, 1]; 0 without boxes.
    """

    sizes_wh: np.ndarray
    counts: np.ndarray
    mean_iou: float

    def by_level(self, levels: int) -> list[list[tuple[float, float]]]:
        """Splits the sizes evenly among levels, the smallest to the first: `priors_wh` of `PriorBoxGenerator`.

        Raises:
            ValueError: if `levels` does not divide their number.
        """
        if levels < 1 or len(self.sizes_wh) % levels:
            raise ValueError(f"`levels` {levels} must divide the number of anchors, {len(self.sizes_wh)}")
        return [[(float(w), float(h)) for w, h in part] for part in np.split(self.sizes_wh, levels)]


def size_iou(sizes_a: np.ndarray, sizes_b: np.ndarray) -> np.ndarray:
    """IoU (M, N) of every (width, height) of (M, 2) with every one of (N, 2), their boxes centred alike."""
    intersection = np.minimum(sizes_a[:, None], sizes_b[None]).prod(axis=2)
    return intersection / (sizes_a.prod(axis=1)[:, None] + sizes_b.prod(axis=1)[None] - intersection)


def cluster_sizes(sizes_wh: np.ndarray, k: int, *, seed: int = 0, restarts: int = 5) -> AnchorClusters:
    """Clusters widths and heights by k-means with the distance 1 - IoU.

    Starts from k-means++ (distant sizes are likelier), moves each centre to the mean of its cluster, and keeps the
    best of several starts. The same seed gives the same clusters.

    Args:
        sizes_wh: (N, 2) widths and heights in pixels. Those that are not positive and finite are left out.
        k: number of clusters; with fewer different sizes, some are repeated.
        seed: of the starts.
        restarts: number of starts.

    Returns:
        The clusters with the highest mean IoU.

    Raises:
        ValueError: `k` or `restarts` under 1; no box with a size.

    Source: Redmon and Farhadi 2017, https://arxiv.org/abs/1612.08242, section 2, "Dimension Clusters"; darknet's
    `calc_anchors`.
    """
    for name, value in (("k", k), ("restarts", restarts)):
        if value < 1:
            raise ValueError(f"`{name}` {value!r} must be at least 1")
    sizes = np.asarray(sizes_wh, np.float64).reshape(-1, 2)
    sizes = sizes[np.isfinite(sizes).all(axis=1) & (sizes > 0).all(axis=1)]
    if not len(sizes):
        raise ValueError("`sizes_wh` has no box of positive width and height; anchors need at least one")
    rng = np.random.default_rng(seed)
    best = max((_k_means(sizes, k, rng) for _ in range(restarts)), key=lambda found: found[1])
    centers, mean_iou = best
    centers = centers[np.argsort(centers.prod(axis=1), kind="stable")]
    counts = np.bincount(size_iou(sizes, centers).argmax(axis=1), minlength=k)
    return AnchorClusters(centers.astype(np.float32), counts, mean_iou)


def _k_means(sizes: np.ndarray, k: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Returns centres (k, 2) and the mean IoU of one start."""
    centers = sizes[[rng.integers(len(sizes))]]
    while len(centers) < k:
        distances = np.maximum(1 - size_iou(sizes, centers).max(axis=1), 0)
        total = distances.sum()
        weights = distances / total if total > 0 else None  # all sizes are centres already
        centers = np.concatenate([centers, sizes[[rng.choice(len(sizes), p=weights)]]])
    nearest = None
    for _ in range(ROUNDS):
        found = size_iou(sizes, centers).argmax(axis=1)
        if nearest is not None and (found == nearest).all():
            break
        nearest = found
        counts = np.bincount(nearest, minlength=k)[:, None]
        sums = np.stack([np.bincount(nearest, sizes[:, axis], k) for axis in (0, 1)], axis=1)
        centers = np.where(counts > 0, sums / np.maximum(counts, 1), centers)  # an empty cluster stays where it is
    return centers, float(size_iou(sizes, centers).max(axis=1).mean())


def cluster_anchors(
    dataset: Dataset, k: int, *, resize: ResizeRule | None = None, seed: int = 0, restarts: int = 5
) -> AnchorClusters:
    """Clusters the boxes of a data set, in the pixels that the network will see.

    Args:
        dataset: with boxes; every sample is read once. Ignored boxes are left out.
        k: number of anchors.
        resize: the rule that images are resized by; None keeps their own pixels.
        seed: see `cluster_sizes`.
        restarts: see `cluster_sizes`.

    Returns:
        See `AnchorClusters`.

    Raises:
        ValueError: as `cluster_sizes`.
    """
    sizes = [np.zeros((0, 2))]
    for sample in dataset:
        kept = sample.boxes[~sample.ignored].astype(np.float64)
        height, width = sample.size_hw
        scaled_height, scaled_width = (height, width) if resize is None else resize.scaled_hw(height, width)
        sizes.append((kept[:, 2:] - kept[:, :2]) * (scaled_width / width, scaled_height / height))
    return cluster_sizes(np.concatenate(sizes), k, seed=seed, restarts=restarts)

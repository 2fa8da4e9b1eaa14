"""How often each class occurs in the masks of a data set, and weights for a loss that make up for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kerasvision.data.checks import DataError, Problem, mask_problem
from kerasvision.data.samples import Dataset
from kerasvision.naming import close_matches

WeightMethod = Literal["median_frequency", "inverse", "effective_number", "enet"]
METHODS = ("median_frequency", "inverse", "effective_number", "enet")


@dataclass(frozen=True)
class PixelCounts:
    """What `count_pixels` found. Pixels with value 255 count nowhere.

    Attributes:
        pixels: (C,) int64, the number of pixels of each class.
        pixels_where_present: (C,) int64, the number of pixels of all classes in the images where a class occurs.
        images: (C,) int64, the number of images where a class occurs.
    """

    pixels: np.ndarray
    pixels_where_present: np.ndarray
    images: np.ndarray


def count_pixels(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> PixelCounts:
    """Counts the pixels of each class over a data set, one sample in memory at a time.

    Args:
        dataset: with masks.
        progress: called as `progress(done, total)` after each sample.

    Raises:
        ValueError: a data set without masks.
        DataError: a sample whose mask is missing or has values that are no class.
    """
    if "segmentation" not in dataset.tasks:
        raise ValueError(f"`dataset` {dataset.name!r} has no masks to count; it is for {', '.join(dataset.tasks)}")
    dataset = dataset.for_task("segmentation")
    classes = len(dataset.mask_classes)
    pixels, pixels_where_present, images = (np.zeros(classes, np.int64) for _ in range(3))
    for index in range(len(dataset)):
        sample = dataset[index]
        message = "has no mask" if sample.mask is None else mask_problem(sample.mask, sample.size_hw, classes)
        if message:
            raise DataError(Problem(sample.name, "", message))
        found = np.bincount(np.asarray(sample.mask).ravel(), minlength=classes)[:classes]  # 255 comes behind them
        pixels += found
        pixels_where_present += np.where(found > 0, found.sum(), 0)
        images += found > 0
        if progress is not None:
            progress(index + 1, len(dataset))
    return PixelCounts(pixels, pixels_where_present, images)


def class_weights(
    counts: PixelCounts, method: WeightMethod = "median_frequency", *, beta: float | None = None
) -> np.ndarray:
    """Returns a weight for each class, larger for rarer ones: ``CrossEntropyLoss(class_weights=...)``.

    With n the pixels of a class, N those of all classes, and p = n / N:

    - ``"median_frequency"``: median(f) / f, where f is n divided by the pixels of the images where the class occurs,
      and the median is over the classes that occur. 1 for the class in the middle (Eigen and Fergus 2015,
      https://arxiv.org/abs/1411.4734).
    - ``"inverse"``: N / (K n), with K the number of classes that occur: the mean weight of a pixel is 1, and each class
      adds up to the same (scikit-learn's "balanced").
    - ``"effective_number"``: (1 - beta) / (1 - beta^n), times what makes them add up to K (Cui et al. 2019,
      https://arxiv.org/abs/1901.05555, where beta = (M - 1) / M means that M examples of a class are all that
      differ). Pixels are so many that the paper's 0.9999 would make all weights alike; so the default M is the mean
      number of pixels of the classes that occur.
    - ``"enet"``: 1 / ln(1.02 + p), 1.4 to 50.5 (Paszke et al. 2016, https://arxiv.org/abs/1606.02147).

    Args:
        counts: what `count_pixels` returned.
        method: one of the above.
        beta: for ``"effective_number"``, in [0, 1); default: see there.

    Returns:
        (C,) float32, finite. A class that never occurs has weight 0, whatever the formula: no pixel asks for it.

    Raises:
        ValueError: an unknown method, a `beta` out of range or for another method, or no pixel at all.

    >>> counts = PixelCounts(np.array([600, 300, 100]), np.array([1000, 500, 500]), np.array([2, 1, 1]))
    >>> class_weights(counts).tolist()  # frequencies 0.6, 0.6 and 0.2, median 0.6
    [1.0, 1.0, 3.0]
    """
    if method not in METHODS:
        raise ValueError(f"`method` {method!r} is unknown; {close_matches(str(method), METHODS)}")
    if beta is not None and (method != "effective_number" or not 0 <= beta < 1):
        raise ValueError(f"`beta` {beta} must be at least 0 and below 1, and is for method 'effective_number' alone")
    present = counts.pixels > 0
    if not present.any():
        raise ValueError("`counts` has no pixel of any class; are all masks 255?")
    pixels = counts.pixels[present].astype(np.float64)
    if method == "median_frequency":
        frequencies = pixels / counts.pixels_where_present[present]
        found = np.median(frequencies) / frequencies
    elif method == "inverse":
        found = pixels.sum() / (len(pixels) * pixels)
    elif method == "effective_number":
        different = pixels.mean() if beta is None else 1 / (1 - beta)
        # 1 - beta^n for beta near 1, where float64 would lose its digits: beta^n = exp(n log(1 - 1 / M)).
        effective = -np.expm1(pixels * np.log1p(-1 / different)) if different > 1 else np.ones(len(pixels))
        found = len(pixels) / effective / (1 / effective).sum()
    else:
        found = 1 / np.log(1.02 + pixels / pixels.sum())
    weights = np.zeros(len(counts.pixels), np.float32)
    weights[present] = found
    return weights

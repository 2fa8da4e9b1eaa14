"""What stands between a segmenter's logits and a mask: scales and flips, a dense CRF, windows of a large image.

`kerasvision.inference.Predictor` puts these together, in this order: image -> windows (`ops.tiles`) -> views of each
(`TestTimeAugmentation`) -> network -> merged views -> `DenseCRF` -> joined windows -> labels.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

# Fewer windows than these are done before anybody looks for a bar.
BAR_FROM = 20

# Labels counted at a time, so that counting a large mask takes no copy of it.
_COUNTED_AT_ONCE = 2**22


@dataclass(frozen=True)
class Segmentation:
    """What a segmenter saw in one image.

    Args:
        name: Path of the image, or its position in the input.
        size_hw: (height, width) of the image in pixels.
        mask: (H, W) class of each pixel: int32; of an image done in tiles uint8, or uint16 for more than 256 classes,
            or of the caller's type.
        class_names: Names of all classes, in label order.
        palette: (C, 3) uint8 colour of each class, if the `Predictor` was given one.
        probabilities: (H, W, C) float32 that add up to 1 over classes, if the `Predictor` was asked for them.
    """

    name: str
    size_hw: tuple[int, int]
    mask: np.ndarray
    class_names: tuple[str, ...]
    palette: np.ndarray | None = None
    probabilities: np.ndarray | None = None

    def class_counts(self) -> np.ndarray:
        """Return (C,) int64, the number of pixels of each class."""
        classes = len(self.class_names)
        rows = max(1, _COUNTED_AT_ONCE // max(1, self.mask.shape[1]))
        blocks = (self.mask[start : start + rows] for start in range(0, len(self.mask), rows))
        return sum((np.bincount(block.ravel(), minlength=classes) for block in blocks), np.zeros(classes, np.int64))

    def to_dict(self) -> dict:
        """Return the share of the image's pixels of each class that occurs, largest first."""
        counts = self.class_counts()
        present = sorted(np.flatnonzero(counts), key=lambda label: -counts[label])
        return {
            "name": self.name,
            "height": self.size_hw[0],
            "width": self.size_hw[1],
            "classes": [
                {
                    "label": int(label),
                    "class": self.class_names[label],
                    "share": float(counts[label] / self.mask.size),
                }
                for label in present
            ],
        }


@dataclass(frozen=True)
class TestTimeAugmentation:
    """Several views of an image, each through the network, merged at the image's own size.

    Args:
        scales: Factors of the height and width that the network would see otherwise, each above 0.
        flip: Whether each scale is also seen flipped left to right.
        merge: ``"mean"`` of the softmax probabilities of all views, as DeepLab's and mmseg's evaluation have it;
            ``"max"``: the maximum of their logits, class by class, DeepLabV2's multi-scale test, with scales
            (0.5, 0.75, 1).

    Raises:
        ValueError: No scale, one out of range, or an unknown merge.

    Source: `predict_labels_multi_scale` in tensorflow/models' research/deeplab/model.py and `aug_test` of mmseg's
    `EncoderDecoder` (scales 0.5 to 1.75); Chen et al. 2016, https://arxiv.org/abs/1606.00915, section 4. Differs from
    DeepLabV2's code: the maximum is taken at the image's size, not at an eighth of it.
    """

    __test__ = False  # or pytest would take the class for a test

    scales: Sequence[float] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    flip: bool = True
    merge: Literal["mean", "max"] = "mean"

    def __post_init__(self):
        scales = tuple(float(scale) for scale in self.scales)
        if not scales or not all(0 < scale < float("inf") for scale in scales):
            raise ValueError(f"`scales` {scales} must be one factor or more, each above 0; 0.5 to 1.75 are usual")
        if self.merge not in ("mean", "max"):
            raise ValueError(f"`merge` {self.merge!r} is unknown; use 'mean' or 'max'")
        object.__setattr__(self, "scales", scales)

    def merged(
        self, images: Sequence[np.ndarray], logits_of: Callable[[Sequence[np.ndarray], float], list[np.ndarray]]
    ) -> list[np.ndarray]:
        """Return (H, W, C) of each image: mean probabilities, or the largest logits.

        Args:
            images: (H, W, 3) each.
            logits_of: Called with the images, flipped or not, and a scale; gives logits (H, W, C) of each.
        """
        views = [(scale, flipped) for scale in self.scales for flipped in ((False, True) if self.flip else (False,))]
        merged: list[np.ndarray] = []
        for scale, flipped in views:
            seen = [np.ascontiguousarray(image[:, ::-1]) for image in images] if flipped else images
            values = logits_of(seen, scale)
            if flipped:
                values = [part[:, ::-1] for part in values]
            if self.merge == "mean":
                values = [softmax(part) / len(views) for part in values]
            combine = np.add if self.merge == "mean" else np.maximum
            merged = [combine(*pair) for pair in zip(merged, values, strict=True)] if merged else values
        return merged


@dataclass(frozen=True)
class DenseCRF:
    """Labels that follow the edges of the image: `kerasvision.ops.dense_crf` as the last step of a `Predictor`.

    It sees the image's own pixels and the probabilities at the image's own size. With `tiles`, each window is refined
    by itself, before windows are joined. The defaults are DeepLabV2's for VOC.

    Args:
        iterations: Mean field steps.
        position_weight: Weight of the smoothing kernel (POS_W in DeepLab's scripts).
        position_sigma: Its standard deviation in pixels (POS_XY).
        bilateral_weight: Weight of the kernel of positions and colours (BI_W).
        bilateral_position_sigma: Its standard deviation in pixels (BI_XY).
        bilateral_color_sigma: Its standard deviation in levels of 0-255 (BI_RGB).

    Raises:
        ValueError: A number out of range.
    """

    iterations: int = 10
    position_weight: float = 3.0
    position_sigma: float = 1.0
    bilateral_weight: float = 4.0
    bilateral_position_sigma: float = 67.0
    bilateral_color_sigma: float = 3.0

    def __post_init__(self):
        self(np.zeros((0, 0, 3)), np.zeros((0, 0, 1)))  # numbers out of range are told now, not after the network

    def __call__(self, image: np.ndarray, values: np.ndarray, *, from_logits: bool = False) -> np.ndarray:
        """Return refined probabilities (H, W, C) of an image (H, W, 3) and its probabilities or logits (H, W, C)."""
        from kerasvision.ops.dense_crf import dense_crf  # with SciPy

        return dense_crf(image, values, from_logits=from_logits, **asdict(self))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return float32 probabilities of logits (..., C)."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    exponentials /= exponentials.sum(axis=-1, keepdims=True)
    return exponentials


def at_own_size(
    logits: np.ndarray, scaled_hw: tuple[int, int], size_hw: tuple[int, int], margins_hw: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Bring the logits of one image from the network's input to the image's own size.

    Logits are interpolated, not labels: boundaries stay smooth where the image was shrunk.

    Args:
        logits: (h, w, C), of the input with its padding at the bottom and on the right.
        scaled_hw: (height, width) of the image in the input.
        size_hw: (height, width) of the image itself.
        margins_hw: Rows above and below, and columns left and right, that a network without padding may leave out;
            they become zeros.

    Returns:
        (H, W, C) float32.

    Raises:
        ValueError: Logits that are smaller than the image in the input by more than the margins.
    """
    logits = np.asarray(logits, np.float32)[: scaled_hw[0], : scaled_hw[1]]
    missing = [whole - part for whole, part in zip(scaled_hw, logits.shape[:2], strict=True)]
    if any(missing):
        margins = [(number // 2, number - number // 2) for number in missing]
        if scaled_hw != size_hw or any(pair[1] > most for pair, most in zip(margins, margins_hw, strict=True)):
            overlap = tuple(number + number % 2 for number in missing)
            raise ValueError(
                f"`model` gives logits of {logits.shape[:2]} for an input of {tuple(scaled_hw)}, so its result has no "
                f"border; pass tiles=Tiles({tuple(scaled_hw)}, overlap={overlap}, mode='centre', mirror=True), or more "
                "overlap, and no scales"
            )
        logits = np.pad(logits, [*margins, (0, 0)])
    if scaled_hw == size_hw:
        return logits
    import cv2

    height, width = size_hw
    logits = cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR)
    return logits.reshape(height, width, -1)  # OpenCV drops a last axis of one class


@contextlib.contextmanager
def reporting(progress: bool | Callable[[int, int], None], total: int) -> Iterator[Callable[[int], None]]:
    """Give a function that is told how many windows more are done.

    Args:
        progress: True for a bar on stderr if that is a terminal, from `BAR_FROM` windows on, that disappears when done;
            False for none; or a function that is called as ``progress(done, total)``.
        total: The number of windows.
    """
    done = 0
    show: Callable[[int, int], None] | None = None if isinstance(progress, bool) else progress
    bar = contextlib.nullcontext()
    if progress is True and total >= BAR_FROM:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("segmenting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        console = Console(stderr=True)
        bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        task = bar.add_task("", total=total)
        show = lambda done, total: bar.update(task, completed=done)  # noqa: E731

    def report(count: int) -> None:
        nonlocal done
        done += count
        if show is not None:
            show(done, total)

    with bar:
        yield report

"""Proposals of whole data sets: worked out once, kept on disk, and put into batches."""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kerasvision.data.samples import Dataset
from kerasvision.files import cache_home, replacing

# To be raised whenever a method's results change for the same arguments: files of former ones are not read then.
_VERSION = 1


class Proposer(Protocol):
    """What proposes boxes: `SelectiveSearch`, `SlidingWindows`, `CachedProposals`, or a user's own."""

    @property
    def max_proposals(self) -> int:
        """Most boxes of an image."""
        ...

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return (N, 4) float32 `xyxy` pixels of an image (H, W, 3), best first, N <= `max_proposals`."""
        ...

    def get_config(self) -> dict[str, Any]:
        """Return all that the boxes of an image depend on."""
        ...


def pad_proposals(proposals: Sequence[np.ndarray | None], most: int) -> np.ndarray:
    """Return proposals of several images as one array, padded with -1.

    Args:
        proposals: For each image (N, 4); ``None`` for none.
        most: P, the number of rows; those beyond are cut off.

    Returns:
        (B, P, 4) float32.
    """
    padded = np.full((len(proposals), most, 4), -1, np.float32)
    for row, found in enumerate(proposals):
        if found is not None:
            padded[row, : len(found)] = found[:most]
    return padded


class CachedProposals:
    """Proposals that are worked out once for each image and kept on disk: a function from an image to boxes.

    ```python
    proposals = CachedProposals(model.proposer)
    proposals.fill(photos)                       # with a progress bar; goes on where it was interrupted
    batches = data.pipeline(photos, proposals=proposals, ...)
    ```

    A file holds the boxes of one image, named by a checksum of its pixels and of the method with all its arguments: a
    changed image or argument is never mistaken for another, and several data sets may share images. Files are written
    whole or not at all, and hold numbers only; a damaged one is replaced.

    Args:
        proposer: What proposes boxes.
        folder: Where to keep them; default: `proposals` in the folder of `kerasvision.files.cache_home`.
    """

    def __init__(self, proposer: Proposer, folder=None):
        self.proposer = proposer
        method = {"method": type(proposer).__name__, "version": _VERSION, **proposer.get_config()}
        digest = hashlib.sha256(json.dumps(method, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = (cache_home() / "proposals" if folder is None else Path(folder)) / digest

    @property
    def max_proposals(self) -> int:
        """Most boxes of an image."""
        return self.proposer.max_proposals

    def get_config(self) -> dict:
        """Return what the boxes depend on: the arguments of the method."""
        return self.proposer.get_config()

    def path(self, image: np.ndarray) -> Path:
        """Return where the boxes of an image are kept."""
        image = np.ascontiguousarray(image)
        digest = hashlib.sha256(f"{image.shape} {image.dtype.str} ".encode())
        digest.update(image.data)
        name = digest.hexdigest()
        return self.folder / name[:2] / f"{name}.npy"

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the boxes of an image, from disk if they are there, else worked out and kept."""
        path = self.path(image)
        found = _read(path)
        if found is None:
            found = np.asarray(self.proposer(image), np.float32)
            _write(path, found)
        return found

    def fill(self, dataset: Dataset, *, progress: bool | Callable[[int, int], object] = True) -> int:
        """Work out the proposals of all images of a data set that are not there yet.

        Args:
            dataset: A `kerasvision.data.Dataset`.
            progress: True for a bar on stderr, False for none, or a function called as ``progress(done, total)``.

        Returns:
            The number of images whose proposals were worked out.
        """
        missing = 0
        with _reporting(progress, len(dataset)) as report:
            for index in range(len(dataset)):
                image = dataset[index].image
                missing += _read(self.path(image)) is None
                self(image)
                report(index + 1, len(dataset))
        return missing


def _read(path: Path) -> np.ndarray | None:
    """Return the boxes in a file; None if it is not there or damaged."""
    try:
        boxes = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = isinstance(boxes, np.ndarray) and boxes.ndim == 2 and boxes.shape[1] == 4 and boxes.dtype == np.float32
    return boxes if fits else None


def _write(path: Path, boxes: np.ndarray) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            np.save(partial, boxes, allow_pickle=False)
    except OSError as error:
        # A full or read-only disk costs time, not the training.
        warnings.warn(f"proposals cannot be kept in {path.parent}, and are worked out anew ({error})", stacklevel=3)


@contextlib.contextmanager
def _reporting(progress: bool | Callable[[int, int], object], total: int) -> Iterator[Callable[[int, int], object]]:
    """Yield a function of (done, total) that shows the progress as asked for."""
    if progress is not True:
        yield progress or (lambda done, total: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("proposals", total=total)
        yield lambda done, total: bar.update(task, completed=done)

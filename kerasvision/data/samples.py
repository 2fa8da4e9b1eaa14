"""What a data set is here: `Sample`, one annotated image, and `Dataset`, a sequence of them.

Every reader (streets, VOC, COCO, tfds) subclasses `Dataset`; pipelines, metrics and the command line
use nothing else. Only numpy is imported.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

Task = Literal["detection", "segmentation"]
TASKS = ("detection", "segmentation")

IGNORE = 255  # mask value that is neither trained on nor scored (VOC and Cityscapes use the same)


@dataclass(frozen=True)
class Sample:
    """One annotated image.

    Attributes:
        name: file path or scene id, unique in its data set; used in messages.
        image: (H, W, 3) uint8 RGB, 0-255.
        boxes: (N, 4) float32 absolute `xyxy` in pixels of `image`; `x2`, `y2` are exclusive, so a box
            around one pixel column has width 1. N may be 0.
        labels: (N,) int32, 0-based index into the data set's `classes`.
        ignored: (N,) bool; True for COCO `iscrowd` and VOC `difficult`: not trained on, not scored.
        mask: (H, W) uint8 index into the data set's `mask_classes`, 255 = ignore; None where the data
            set has no masks.
        instances: (H, W) int32, 0 = no object, k = the visible pixels of `boxes[k - 1]`; None where the
            data set has no instance masks.
        proposals: (P, 4) float32 `xyxy` in pixels of `image`: boxes that may hold objects, best first; None where
            nobody asked for them.
    """

    name: str
    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    mask: np.ndarray | None = None
    instances: np.ndarray | None = None
    proposals: np.ndarray | None = None

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        return int(self.image.shape[0]), int(self.image.shape[1])


class Dataset:
    """Sequence of `Sample`: `len(dataset)`, `dataset[i]`, iteration. Subclasses fill the rest in.

    Attributes:
        name: as given to `kerasvision.data.load`, e.g. "streets:hard".
        tasks: what the annotations allow, a subset of {"detection", "segmentation"}.
        classes: box class names; a label is an index into them. Empty without detection.
        mask_classes: mask class names; a mask value is an index into them. Empty without segmentation.
        palette: (C, 3) or (256, 3) uint8 RGB, one colour per mask value; None leaves the choice of
            colours to the drawing code.
    """

    name: str = ""
    tasks: frozenset[str] = frozenset()
    classes: tuple[str, ...] = ()
    mask_classes: tuple[str, ...] = ()
    palette: np.ndarray | None = None

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define __len__")

    def __getitem__(self, index: int) -> Sample:
        """Reads sample `index`, negative counting from the end; IndexError beyond either end."""
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__")

    def sample_name(self, index: int) -> str:
        """The name of sample `index`, equal to `self[index].name`, without reading the sample."""
        raise NotImplementedError(f"{type(self).__name__} must define sample_name")

    def for_task(self, task: Task) -> Dataset:
        """The data set for one task alone, where that saves reading: without masks for detection. Else itself."""
        return self

    def __iter__(self) -> Iterator[Sample]:
        for index in range(len(self)):
            yield self[index]

    def checked_index(self, index: int) -> int:
        """Returns `index` as 0 <= i < len(self), counting negative ones from the end.

        Raises:
            IndexError: outside -len(self) .. len(self) - 1.
        """
        size = len(self)
        if not -size <= index < size:
            raise IndexError(
                f"`index` {index} is outside {self.name or type(self).__name__}, which has "
                f"{size} samples; expected {-size} to {size - 1}"
            )
        return int(index) + size if index < 0 else int(index)

    def _narrowed(self, task: Task) -> Dataset:
        """Returns a copy whose only task is `task`, sharing all else; itself if there is no other, or not this one."""
        if task not in self.tasks or len(self.tasks) == 1:
            return self
        narrowed = copy.copy(self)
        narrowed.tasks = frozenset({task})
        if task == "detection":
            narrowed.mask_classes, narrowed.palette = (), None
        else:
            narrowed.classes = ()
        return narrowed

    def _of_tasks(self, sample: Sample) -> Sample:
        """Returns the sample without annotations for tasks that the data set does not have."""
        if "segmentation" not in self.tasks:
            sample = replace(sample, mask=None, instances=None)
        if "detection" not in self.tasks:
            none = {
                "boxes": np.zeros((0, 4), np.float32),
                "labels": np.zeros(0, np.int32),
                "ignored": np.zeros(0, bool),
            }
            sample = replace(sample, **none, instances=None)
        return sample


def check_task(task: str | None) -> None:
    """Raises ValueError unless `task` is "detection", "segmentation" or None."""
    if task is not None and task not in TASKS:
        raise ValueError(f"`task` {task!r} is unknown; use 'detection', 'segmentation' or None for all there is")


class RecordedDataset(Dataset):
    """A data set whose annotations are all read when it is made, one record an image; images are read when asked for.

    Subclasses set `_records`, each with the `name` and the `boxes` of its image, and `_reporter`; they read masks only
    if "segmentation" is in `tasks`.
    """

    _records: list
    _reporter: Any

    @property
    def problems(self) -> list:
        """What was wrong or worth noting while the annotations were read: a list of `Problem`."""
        return self._reporter.problems

    @property
    def max_boxes(self) -> int:
        """The largest number of boxes on an image, at least 1."""
        return max([1, *(len(record.boxes) for record in self._records)])

    def for_task(self, task: Task) -> Dataset:
        """The data set for one task alone, without masks for detection; its annotations are shared, not read again."""
        return self._narrowed(task)

    def __len__(self) -> int:
        return len(self._records)

    def sample_name(self, index: int) -> str:
        """Path of the image, or what else names sample `index`."""
        return self._records[self.checked_index(index)].name

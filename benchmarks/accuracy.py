"""Score a predictor on a data set, in the pixels of the original images.

The predictor is the one that is timed. Its classes are matched to the data set's by name, so that weights
with other class ids, or with more classes, are scored rightly or refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kerasvision.files import finite

# One thing under the names that VOC (left) and COCO (right) give it.
_SYNONYMS = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "tvmonitor": "tv",
}
_NOT_A_CLASS = ("n/a", "background")


@dataclass(frozen=True)
class ClassMap:
    """Which class of the data set each class of the model is.

    Args:
        to_data: (K,) int; for each class of the model its index in the data set, −1 if it has none.
        missing: Classes of the data set that the model does not know.
        extra: Classes of the model that the data set does not have.
    """

    to_data: np.ndarray
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class Accuracy:
    """What scoring gives.

    Args:
        metrics: Name to value in 0-1: ``AP``, ``AP50``, ``AP75``, or ``mIoU``, ``pixel_accuracy``, ``dice``.
        per_class: Class name to AP, or to IoU; None where the class does not occur.
        images: Number of images scored.
        classes: How the classes were matched.
        kept: (index, sample, result) of the images asked for, to draw.
    """

    metrics: dict[str, float]
    per_class: dict[str, float | None]
    images: int
    classes: ClassMap
    kept: list[tuple[int, Any, Any]] = field(default_factory=list)


def _plain(name: str) -> str:
    plain = "".join(character for character in str(name).casefold() if character not in " _-")
    return _SYNONYMS.get(plain, plain)


def match_classes(
    model_names: Sequence[str] | None,
    data_names: Sequence[str],
    *,
    num_classes: int,
    model: str = "the model",
) -> ClassMap:
    """Match the classes of a model to those of a data set by name.

    Case, spaces, "_" and "-" do not count, and VOC's names match COCO's. A model without names must have as
    many classes as the data set; they are then taken to be in the same order.

    Args:
        model_names: The model's class names, or None.
        data_names: The data set's class names.
        num_classes: The model's number of classes.
        model: Its name, for messages.

    Raises:
        ValueError: No class matches, or a model without names has another number of classes.
    """
    if model_names is None:
        if num_classes != len(data_names):
            raise ValueError(
                f"`model` {model} has {num_classes} classes without names but the data has "
                f"{len(data_names)}; pass class_names, or use weights trained on these classes"
            )
        return ClassMap(np.arange(num_classes))
    index_of = {_plain(name): index for index, name in enumerate(data_names)}
    to_data = np.array([index_of.get(_plain(name), -1) for name in model_names], np.int64)
    if not (to_data >= 0).any():
        raise ValueError(
            f"`model` {model} has none of the data's classes: it knows {_listed(model_names)}; "
            f"the data has {_listed(data_names)}. Use weights trained on these classes, or fine-tune with "
            f"num_classes={len(data_names)}"
        )
    matched = set(to_data.tolist())
    missing = tuple(name for index, name in enumerate(data_names) if index not in matched)
    extra = tuple(
        str(name)
        for name, index in zip(model_names, to_data, strict=True)
        if index < 0 and _plain(name) not in _NOT_A_CLASS
    )
    return ClassMap(to_data, missing, extra)


def given_names(names: Sequence[str] | None) -> Sequence[str] | None:
    """Return the names, or None for the numbers that a `Predictor` uses where a model has no names."""
    if names is None or list(names) == [f"class {label}" for label in range(len(names))]:
        return None
    return names


def _listed(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(str(name) for name in list(names)[:most])
    return f"{shown} … ({len(names)} in all)" if len(names) > most else shown


def score(
    predictor,
    dataset,
    *,
    task: str,
    limit: int | None = None,
    batch_size: int = 8,
    keep: int = 0,
    name: str = "the model",
    progress: Callable[[int, int], None] | None = None,
) -> Accuracy:
    """Predict the images of a data set and score the results in original pixels.

    A class of the data set that the model does not know counts as 0: it was not found.

    Args:
        predictor: A `kerasvision.inference.Predictor`.
        dataset: A `kerasvision.data.Dataset` with annotations for `task`.
        task: ``"detection"`` or ``"segmentation"``.
        limit: Score only the first so many images; None for all.
        batch_size: Most images per call of the network; only neighbours with the same input size share one.
        keep: Number of images, spread evenly, whose sample and result are returned to be drawn.
        name: The model's name, for messages.
        progress: Called as ``progress(done, total)``.

    Raises:
        ValueError: No images, a data set without annotations for the task, or classes that do not match.
    """
    total = len(dataset) if limit is None else min(limit, len(dataset))
    if total < 1:
        raise ValueError(f"`limit` {limit} of {len(dataset)} images leaves none to score; expected 1 or more")
    if task not in dataset.tasks:
        raise ValueError(
            f"`data` {dataset.name!r} has no annotations for {task}, which `model` {name} does; "
            f"it has {', '.join(sorted(dataset.tasks)) or 'none'}"
        )
    data_names = dataset.classes if task == "detection" else dataset.mask_classes
    classes = match_classes(
        given_names(predictor.class_names), data_names, num_classes=predictor.model.num_classes, model=name
    )
    scorer = (_DetectionScorer if task == "detection" else _SegmentationScorer)(data_names, classes)
    wanted = set(np.linspace(0, total - 1, min(keep, total)).round().astype(int).tolist())
    kept = []
    for first in range(0, total, batch_size):
        indices = range(first, min(first + batch_size, total))
        samples = [dataset[index] for index in indices]
        results = predictor.predict([sample.image for sample in samples])
        for index, sample, result in zip(indices, samples, results, strict=True):
            scorer.add(sample, result)
            if index in wanted:
                kept.append((index, sample, result))
        if progress is not None:
            progress(indices[-1] + 1, total)
    metrics, per_class = scorer.result()
    return Accuracy(metrics, per_class, total, classes, kept)


class _DetectionScorer:
    """COCO average precision over the data set's classes."""

    def __init__(self, data_names: Sequence[str], classes: ClassMap):
        from kerasvision.metrics import CocoAP

        self.names, self.to_data, self.metric = data_names, classes.to_data, CocoAP()

    def add(self, sample, result) -> None:
        """Add one image: its `Sample` and its `Detections`."""
        labels = np.asarray(result.labels, np.int64)
        known = labels >= 0
        labels = np.where(known, self.to_data[np.where(known, labels, 0)], -1)  # (D,); −1 is not scored
        detections = {"boxes": result.boxes[None], "scores": result.scores[None], "labels": labels[None]}
        targets = {"boxes": sample.boxes, "labels": sample.labels, "ignored": sample.ignored}
        self.metric.add(detections, {name: np.asarray(value)[None] for name, value in targets.items()})

    def result(self) -> tuple[dict[str, float], dict[str, float | None]]:
        """Return AP, AP50 and AP75, and the AP of each class."""
        figures = self.metric.per_class()
        per_class = {
            name: finite(float(figures[index]["AP"])) if index in figures else None
            for index, name in enumerate(self.names)
        }
        return {name: float(value) for name, value in self.metric.result().items()}, per_class


class _SegmentationScorer:
    """mIoU, pixel accuracy and Dice over the data set's classes."""

    def __init__(self, data_names: Sequence[str], classes: ClassMap):
        self.names = data_names
        # Classes of the model that the data does not have share one behind the others.
        self.other = len(data_names)
        self.to_data = np.where(classes.to_data < 0, self.other, classes.to_data)
        self.confusion = np.zeros((self.other + 1, self.other + 1), np.int64)

    def add(self, sample, result) -> None:
        """Add one image: its `Sample` and its `Segmentation`."""
        from kerasvision.metrics import confusion_matrix

        if sample.mask is None:
            raise ValueError(f"`data` sample {sample.name} has no mask; remove it or give it one")
        predictions = self.to_data[np.asarray(result.mask, np.int64)]  # (H, W)
        self.confusion += confusion_matrix(sample.mask, predictions, self.other + 1)

    def result(self) -> tuple[dict[str, float], dict[str, float | None]]:
        """Return mIoU, pixel accuracy and Dice, and the IoU of each class."""
        from kerasvision.metrics import figures_of, per_class_iou

        iou = per_class_iou(self.confusion)[: self.other].tolist()
        per_class = finite(dict(zip(self.names, iou, strict=True)))
        return figures_of(self.confusion, num_classes=self.other), per_class

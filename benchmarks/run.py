"""Measure models side by side: accuracy, time, size and memory, from one loaded model each."""

import datetime
import gc
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import accuracy, environment, memory, timing
from kerasvision import visualize
from kerasvision.files import finite

SCHEMA_VERSION = 1

# Called as progress(model, what, done, total).
Progress = Callable[[str, str, int, int], None]


@dataclass(frozen=True)
class Picture:
    """One drawn image of the report.

    Args:
        image_name: Name of the sample.
        task: ``"detection"`` or ``"segmentation"``.
        source: ``"ground truth"`` or the model's name.
        pixels: (H, W, 3) uint8.
    """

    image_name: str
    task: str
    source: str
    pixels: np.ndarray


@dataclass(frozen=True)
class Results:
    """What `benchmark` measured.

    Args:
        document: What results.json holds; see `benchmark`.
        pictures: Ground truth and predictions, drawn.
    """

    document: dict[str, Any]
    pictures: list[Picture] = field(default_factory=list)

    def write(self, folder) -> Path:
        """Write results.json and report.html into `folder`; returns the path of report.html."""
        from benchmarks import report

        return report.write(self.document, self.pictures, folder)


def benchmark(
    models: Sequence,
    data: Any,
    *,
    split: str = "test",
    batch_sizes: Sequence[int] = (1, 8),
    limit: int | None = 200,
    min_batches: int = 20,
    max_seconds: float = 60.0,
    pictures: int = 4,
    picture_threshold: float = 0.5,
    load: Callable[[str], Any] | None = None,
    progress: Progress | None = None,
) -> Results:
    """Measure models on the same images, one after the other.

    Accuracy is scored on the decoded images of the data set; time is taken over files of the same images,
    from decoding to results (`timing.time_stages`). Images that are not files already are written as JPEG
    (quality 95) first, so that decoding is real.

    Args:
        models: Zoo names such as ``"unet_resnet10.streets"``, or (name, model) or (name, `Predictor`) pairs.
        data: A data set's name, such as ``"streets"`` or ``"voc:DIR"``, or a `kerasvision.data.Dataset`, or a dict of
            one for ``"detection"`` and one for ``"segmentation"``, where they differ (VOC lists other images for each).
        split: Split of a data set given by name.
        batch_sizes: Images per batch, each timed.
        limit: Use only the first so many images; None for all.
        min_batches: Timed batches to reach for each batch size.
        max_seconds: Bound of the timing of one model at one batch size.
        pictures: Number of images to draw.
        picture_threshold: Detections with lower scores are not drawn (they are scored).
        load: Makes a model from a name; default `zoo.get`.
        progress: Called as ``progress(model, what, done, total)``.

    Returns:
        `Results` whose ``document`` holds ``schema``, ``created``, ``data``, ``settings``, ``environment``,
        ``notes``, ``failures`` (``name`` and ``error`` of models not measured) and ``models``, dicts of:
        ``name``, ``task``, ``parameters``, ``macs``, ``macs_hw``, ``resize``, ``accuracy`` (``metrics``,
        ``per_class``, ``images``, ``missing_classes``, ``extra_classes``), ``timing`` (one
        `timing.time_stages` result per batch size), ``precision`` and ``memory`` (`memory.peak_of`, or None).

    Raises:
        ValueError: No models, a bad batch size or limit, or no model whose task and classes fit.
    """
    if not models:
        raise ValueError("`models` is empty; name at least one model")
    names = [item if isinstance(item, str) else item[0] for item in models]
    if len(set(names)) < len(names):
        raise ValueError(f"`models` {names} names a model twice; each is measured once")
    if not batch_sizes or min(batch_sizes) < 1:
        raise ValueError(f"`batch_sizes` {list(batch_sizes)} must be one or more numbers of at least 1")
    if limit is not None and limit < 1:
        raise ValueError(f"`limit` {limit} must be 1 or more images, or None for all")
    if isinstance(data, str):
        from kerasvision import data as data_sets

        data = data_sets.load(data, split=split)
    by_task = data if isinstance(data, Mapping) else {"detection": data, "segmentation": data}
    for dataset in by_task.values():
        if len(dataset) < 1:
            raise ValueError(f"`data` {dataset.name!r} has no images in split {split!r}")
    measured, drawn, failures = [], {}, []
    with ExitStack() as stack:
        opened = {}
        for dataset in by_task.values():
            if id(dataset) not in opened:
                total = len(dataset) if limit is None else min(limit, len(dataset))
                opened[id(dataset)] = (dataset, *stack.enter_context(image_files(dataset, total)))
        for item, name in zip(models, names, strict=True):
            try:
                result, kept = _measure(
                    item,
                    {task: opened[id(dataset)][:2] for task, dataset in by_task.items()},
                    batch_sizes=batch_sizes,
                    min_batches=min_batches,
                    max_seconds=max_seconds,
                    keep=pictures,
                    load=load,
                    progress=progress or (lambda *_: None),
                )
            except ValueError as error:
                # One model that does not fit the data must not cost the measurements of the others.
                if len(models) == 1 or (name == names[-1] and not measured):
                    raise
                failures.append({"name": name, "error": str(error)})
                continue
            measured.append(result)
            for picture in _draw(by_task[result["task"]], result["task"], name, kept, picture_threshold):
                drawn.setdefault((picture.task, picture.image_name, picture.source), picture)
            gc.collect()
        images = sorted({file for _, files, _ in opened.values() for file in files})
        sizes = _image_sizes(images)
        encoded = sum(written for *_, written in opened.values())
    settings = {
        "batch_sizes": list(batch_sizes),
        "limit": limit,
        "min_batches": min_batches,
        "max_seconds": max_seconds,
    }
    document = {
        "schema": SCHEMA_VERSION,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "data": {"name": next(iter(by_task.values())).name, "split": split, "images": len(images), **sizes},
        "settings": settings,
        "environment": environment.describe(", ".join(sorted({model["precision"] for model in measured}))),
        "models": measured,
        "failures": failures,
        "notes": [
            *(f"{failure['name']} was not measured: {failure['error']}" for failure in failures),
            *_notes(measured, encoded),
        ],
    }
    return Results(document, list(drawn.values()))


@contextmanager
def image_files(data, count: int) -> Iterator[tuple[list[Path], int]]:
    """Yield files of the first `count` images, and how many of them had to be written.

    A sample whose name is a file is taken as it is; others, such as generated scenes, are written as JPEG
    into a folder that lasts as long as the block.
    """
    with tempfile.TemporaryDirectory(prefix="kerasvision-benchmark-") as folder:
        files, written = [], 0
        for index in range(count):
            path = Path(data.sample_name(index))
            if not path.is_file():
                path = Path(folder) / f"{index:06d}.jpg"
                path.write_bytes(visualize.encode_image(data[index].image, "JPEG", quality=95))
                written += 1
            files.append(path)
        yield files, written


def _image_sizes(files: Sequence[Path]) -> dict[str, list[int]]:
    from PIL import Image

    sizes = []
    for path in files:
        with Image.open(path) as image:
            sizes.append((image.height, image.width))
    return {"smallest_hw": np.min(sizes, axis=0).tolist(), "largest_hw": np.max(sizes, axis=0).tolist()}


def task_of(model) -> str:
    """Return ``"detection"`` or ``"segmentation"``."""
    from kerasvision.models.base import Detector, Segmenter

    if isinstance(model, Detector):
        return "detection"
    if isinstance(model, Segmenter):
        return "segmentation"
    raise ValueError(
        f"`model` is a {type(model).__name__}; expected a kerasvision Detector or Segmenter, such as zoo.get gives"
    )


def _predictor(item, load):
    """Return a Predictor from a name, a (name, model) pair or a (name, predictor) pair."""
    if isinstance(item, str):
        if load is None:
            import zoo

            load = zoo.get
        model = load(item)
    else:
        model = item[1]
    if hasattr(model, "preprocess"):
        return model
    from kerasvision.inference import Predictor

    return Predictor(model, freeze=True)


def _measure(
    item,
    by_task: Mapping[str, tuple[Any, Sequence[Path]]],
    *,
    batch_sizes: Sequence[int],
    min_batches: int,
    max_seconds: float,
    keep: int,
    load,
    progress: Progress,
) -> tuple[dict, list]:
    """Measure one model; returns its part of the document and the (index, sample, result) to draw."""
    from kerasvision.models.complexity import count_macs, count_parameters

    name = item if isinstance(item, str) else item[0]
    predictor = _predictor(item, load)
    task = task_of(predictor.model)
    if task not in by_task:
        raise ValueError(f"`data` has a data set for {', '.join(by_task)} only, but `model` {name} does {task}")
    data, files = by_task[task]
    scored = accuracy.score(
        predictor,
        data,
        task=task,
        limit=len(files),
        batch_size=min(8, max(batch_sizes)),
        keep=keep,
        name=name,
        progress=lambda done, total: progress(name, "accuracy", done, total),
    )
    timings = [
        timing.time_stages(
            predictor,
            files,
            batch_size,
            min_batches=min_batches,
            max_seconds=max_seconds,
            progress=lambda done, total, size=batch_size: progress(name, f"time, batch {size}", done, total),
        )
        for batch_size in batch_sizes
    ]
    inputs, _ = predictor.preprocess([predictor.read(files[0])])
    input_hw = timing.input_shape(inputs)[1:3]
    result = {
        "name": name,
        "task": task,
        "parameters": int(count_parameters(predictor.model)),
        "macs": int(count_macs(predictor.model, size_hw=input_hw)),
        "macs_hw": list(input_hw),
        "resize": predictor.model.resize_rule.get_config(),
        "accuracy": {
            "metrics": finite(scored.metrics),
            "per_class": scored.per_class,
            "images": scored.images,
            "missing_classes": list(scored.classes.missing),
            "extra_classes": list(scored.classes.extra),
        },
        "timing": timings,
        "precision": predictor.model.dtype_policy.name,
        "memory": _peak_memory(predictor, files, max(batch_sizes)),
    }
    return result, scored.kept


def _peak_memory(predictor, files: Sequence[Path], batch_size: int) -> dict | None:
    """Return `memory.peak_of`, or None for a model that Keras cannot save, and no other process can load."""
    from kerasvision.models.base import VisionModel

    return memory.peak_of(predictor, files, batch_size) if isinstance(predictor.model, VisionModel) else None


def _draw(data, task: str, name: str, kept: list, threshold: float) -> Iterator[Picture]:
    """Draw the ground truth and the prediction of each kept image."""
    for _, sample, result in kept:
        # Small scenes are enlarged: tags and legends need room.
        scale = max(1.0, np.ceil(480 / sample.image.shape[1]))
        if task == "detection":
            truth = visualize.draw_detections(
                sample.image,
                sample.boxes,
                sample.labels,
                class_names=data.classes,
                ignored=sample.ignored,
                scale=scale,
            )
            confident = np.asarray(result.scores) >= threshold
            # The data set's colours, so that one thing looks the same in both pictures.
            predicted = visualize.draw_detections(
                sample.image,
                result.boxes[confident],
                result.labels[confident],
                result.scores[confident],
                result.class_names,
                palette=_matching_colours(result.class_names, data.classes, None),
                scale=scale,
            )
        else:
            truth = visualize.draw_mask(sample.image, sample.mask, data.mask_classes, data.palette, scale=scale)
            colours = _matching_colours(result.class_names, data.mask_classes, data.palette)
            predicted = visualize.draw_mask(sample.image, result.mask, result.class_names, colours, scale=scale)
        yield Picture(sample.name, task, "ground truth", truth)
        yield Picture(sample.name, task, name, predicted)


def _matching_colours(model_names, data_names, data_palette) -> np.ndarray | None:
    """Return a palette in which the model's classes have the colours of the data set's classes."""
    count = len(data_names)
    own = visualize.default_palette(count + len(model_names))
    colours = own if data_palette is None else np.concatenate([np.asarray(data_palette)[:count], own[count:]])
    names = accuracy.given_names(model_names)
    to_data = accuracy.match_classes(names, data_names, num_classes=len(model_names)).to_data
    return colours[np.where(to_data < 0, count + np.arange(len(model_names)), to_data)]


def _notes(measured: Sequence[dict], written: int) -> list[str]:
    """Return what a reader must know to trust or doubt the figures."""
    notes = [
        "Accuracy is scored in the pixels of the original images, from the same loaded model that is timed.",
        "End to end is from an image file to results in original pixels: decoding, pre-processing, network, "
        "post-processing. Each stage is timed on every batch, after a warm-up; nothing is trimmed.",
        "p90 needs at least 20 timed batches and p99 at least 100; with fewer, no figure is given.",
        "MACs are multiply-accumulates of the network on one image (half of what some call FLOPs).",
    ]
    if written:
        notes.append(
            f"{written} images were no files and were written as JPEG, quality 95, for timing; accuracy is "
            "that of the images before."
        )
    for model in measured:
        name, scores = model["name"], model["accuracy"]
        if scores["missing_classes"]:
            notes.append(f"{name} does not know {', '.join(scores['missing_classes'])}; they count as not found.")
        for times in model["timing"]:
            where = f"{name} at batch {times['batch_size']}"
            if not times["warm_up"]["stable"]:
                notes.append(f"{where}: times had not settled after {times['warm_up']['runs']} warm-up runs.")
            if not times["complete"]:
                count = times["stages"]["end_to_end"]["samples"]
                notes.append(f"{where}: the time limit ended the run after {count} batches.")
    methods = {model["memory"]["method"] for model in measured if model["memory"]}
    return notes + [f"Peak memory: {method}." for method in sorted(methods)]

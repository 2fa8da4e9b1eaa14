"""Reader of COCO JSON: boxes, polygons and run-length masks."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasvision.data.checks import (
    DataError,
    Problem,
    Reporter,
    SplitError,
    image_looks_whole,
    path_inside,
    read_image,
)
from kerasvision.data.coco_masks import decode_segmentation
from kerasvision.data.samples import IGNORE, RecordedDataset, Sample, Task, check_task
from kerasvision.naming import close_matches

EXPECTED = (
    "expected annotations/instances_<split>.json (or <split>/_annotations.coco.json, or annotations.json) "
    "and images in <split>/, images/<split>/ or images/; or pass the path of the JSON file itself"
)


@dataclass(frozen=True)
class _Record:
    name: str
    image: Path
    size_hw: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    annotation_ids: tuple
    segmentations: tuple


class Coco(RecordedDataset):
    """A data set in COCO's JSON format.

    Boxes [x, y, width, height] become `xyxy`. Category ids, in the order of their numbers, become labels
    0, 1, …: `category_ids[label]` is the id in the file. `iscrowd` annotations are marked ignored.

    With masks, samples have `instances`, small objects drawn over large ones, and `mask`: 0 is background,
    label + 1 a category, 255 the pixels that belong to crowds only. There can be at most 254 categories then.
    Masks are decoded when a sample is asked for.

    Args:
        path: the folder, or the JSON file.
        split: "train", "val", … With or without COCO's year: "val" finds instances_val2017.json if it is
            the only one. Ignored if `path` is a file.
        task: "detection" reads boxes alone; "segmentation" masks alone, and an annotation without a
            `segmentation` is an error (if not strict, what no other object covers of its box is 255). None reads
            masks beside boxes if every annotation has one, and notes which have none if some have.
        strict: raise on the first bad annotation; False skips and lists them in `problems`, and then also
            looks at every image's header and end, to leave out those that are missing or cut off.
        images: the folder that the `file_name`s start from, if it is not one of the usual ones.

    Attributes:
        problems: what was wrong or worth noting, a list of `kerasvision.data.Problem`.
        category_ids: tuple of ids in the file, one per class.
        max_boxes: the largest number of boxes on an image, at least 1.

    Raises:
        DataError: a missing file, JSON of another structure, a file name that leads out of the folder; in
            strict mode any bad annotation.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        split: str = "train",
        task: Task | None = None,
        strict: bool = True,
        images: str | os.PathLike | None = None,
    ):
        check_task(task)
        self.name = f"coco:{os.fspath(path)}"
        self.split = split
        self._reporter = Reporter(strict)
        path = Path(path).expanduser()
        self.file = path if path.is_file() else _find_json(path, split)
        content = _load_json(self.file)
        self.category_ids, self.classes = self._read_categories(content["categories"])
        self._label_of = {id_: label for label, id_ in enumerate(self.category_ids)}
        annotations = self._group_annotations(content["annotations"], content["images"])
        self.tasks = self._find_tasks(task, [entry for entries in annotations.values() for entry in entries])
        if "segmentation" in self.tasks:
            self.mask_classes = ("background", *self.classes)
        if "detection" not in self.tasks:
            self.classes = ()
        self._root = self._find_images(images, content["images"])
        records = [self._read_record(entry, annotations.get(entry["id"], [])) for entry in self._images]
        self._records = [record for record in records if record is not None]

    def __getitem__(self, index: int) -> Sample:
        record = self._records[self.checked_index(index)]
        image = read_image(record.image)
        if image.shape[:2] != record.size_hw:
            raise DataError(
                Problem(
                    record.name,
                    "",
                    f"height and width {image.shape[:2]} differ from {record.size_hw} in {self.file.name}",
                )
            )
        mask = instances = None
        if "segmentation" in self.tasks:
            mask, instances = self._draw_masks(record)
        sample = Sample(record.name, image, record.boxes, record.labels, record.ignored, mask, instances)
        return self._of_tasks(sample)

    def _find_tasks(self, task: Task | None, entries: list[dict]) -> frozenset[str]:
        """The task asked for, or all that the annotations allow; reports those without a mask where that matters."""
        if task == "detection":
            return frozenset({"detection"})
        lacking = [str(entry["id"]) for entry in entries if not entry.get("segmentation")]
        ids = ", ".join(lacking[:10]) + (", …" if len(lacking) > 10 else "")
        some = f"{len(lacking)} of {len(entries)} annotations have no `segmentation` ({ids})"
        if task is None:
            if len(lacking) == len(entries) or len(self.classes) >= IGNORE:
                return frozenset({"detection"})
            if lacking:
                self._reporter.note(self.file, "", f"{some}, so no masks are read; give them one, or remove them")
                return frozenset({"detection"})
            return frozenset({"detection", "segmentation"})
        if len(self.classes) >= IGNORE:
            raise DataError(
                Problem(str(self.file), "", f"has {len(self.classes)} categories; masks can tell at most 254 apart")
            )
        if entries and len(lacking) == len(entries):
            raise DataError(
                Problem(
                    str(self.file),
                    "",
                    f"has no masks: none of its {len(entries)} annotations has a `segmentation`, which "
                    "task='segmentation' needs",
                )
            )
        if lacking and self._reporter.strict:  # one message for all; if lenient, one for each
            raise DataError(
                Problem(
                    str(self.file),
                    "",
                    f"{some}, which task='segmentation' needs; give them one, or remove them",
                )
            )
        return frozenset({"segmentation"})

    def _read_categories(self, entries: list) -> tuple[tuple[int, ...], tuple[str, ...]]:
        named: dict[int, str] = {}
        for number, entry in enumerate(entries):
            where = f"category {entry.get('id', f'at position {number}')}"
            if not isinstance(entry.get("id"), int) or not isinstance(entry.get("name"), str):
                raise DataError(Problem(str(self.file), where, "expected an integer `id` and a text `name`"))
            if entry["id"] in named:
                self._reporter.error(self.file, where, "category id occurs twice")
                continue
            named[entry["id"]] = entry["name"]
        return tuple(sorted(named)), tuple(named[id_] for id_ in sorted(named))

    def _group_annotations(self, entries: list, images: list) -> dict[int, list[dict]]:
        """Groups annotations by image id; duplicates and those of unknown images are reported, left out."""
        groups: dict[int, list[dict]] = {}
        self._images = []
        for number, entry in enumerate(images):
            where = f"image {entry.get('id', f'at position {number}')}"
            sides = entry.get("height"), entry.get("width")
            if not isinstance(entry.get("id"), int) or not isinstance(entry.get("file_name"), str):
                self._reporter.error(self.file, where, "expected an integer `id` and a text `file_name`")
            elif entry["id"] in groups:
                self._reporter.error(self.file, where, "image id occurs twice")
            elif not all(isinstance(side, int) and side > 0 for side in sides):
                self._reporter.error(self.file, where, f"height and width {sides} must be positive integers")
            else:
                groups[entry["id"]] = []
                self._images.append(entry)
        seen = set()
        for number, entry in enumerate(entries):
            id_ = entry.get("id", f"at position {number}")
            if not isinstance(id_, (int, str)):
                self._reporter.error(self.file, f"annotation at position {number}", f"id {id_!r} is no number")
                continue
            if id_ in seen:
                self._reporter.error(self.file, f"annotation {id_}", "annotation id occurs twice")
            elif not isinstance(entry.get("image_id"), int) or entry["image_id"] not in groups:
                self._reporter.error(
                    self.file,
                    f"annotation {id_}",
                    f"image_id {entry.get('image_id')!r} is not a usable image",
                )
            else:
                groups[entry["image_id"]].append(entry)
            seen.add(id_)
        return groups

    def _find_images(self, given: str | os.PathLike | None, entries: list) -> Path:
        if given is not None:
            root = Path(given).expanduser()
            if not root.is_dir():
                raise DataError(Problem(str(root), "", "`images`: no such folder"))
            return root
        here = self.file.parent
        tops = [here.parent, here] if here.name == "annotations" else [here]
        # instances_val2017.json belongs to val2017/.
        stem = self.file.stem.removeprefix("instances_")
        names = list(dict.fromkeys((stem, self.split)))
        roots = [top / folder / name for top in tops for folder in ("", "images") for name in names]
        roots += [top / folder for top in tops for folder in ("images", "JPEGImages", "")]
        for root in roots:
            for entry in self._images[:1]:
                where = f"image {entry['id']}"
                if path_inside(root, entry["file_name"], self.file, where).is_file():
                    return root
        return next((root for root in roots if root.is_dir()), here)

    def _read_record(self, entry: dict, annotations: list[dict]) -> _Record | None:
        where = f"image {entry['id']}"
        path = path_inside(self._root, entry["file_name"], self.file, where)
        message = None if path.is_file() else "image file is missing"
        if message is None and not self._reporter.strict:
            message = image_looks_whole(path)
        if message:
            self._reporter.error(path, f"{where} of {self.file.name}", message)
            return None
        size_hw = entry["height"], entry["width"]
        parsed = [self._read_annotation(annotation, size_hw) for annotation in annotations]
        kept = [(*values, note) for values, note in zip(parsed, annotations, strict=True) if values is not None]
        return _Record(
            name=str(path),
            image=path,
            size_hw=size_hw,
            boxes=np.array([box for box, _, _ in kept], np.float32).reshape(-1, 4),
            labels=np.array([label for _, label, _ in kept], np.int32),
            ignored=np.array([bool(note.get("iscrowd", 0)) or self._lacks_mask(note) for _, _, note in kept], bool),
            annotation_ids=tuple(note.get("id") for _, _, note in kept),
            segmentations=tuple(note.get("segmentation") or None for _, _, note in kept)
            if "segmentation" in self.tasks
            else (),
        )

    def _read_annotation(self, entry: dict, size_hw: tuple[int, int]) -> tuple[list[float], int] | None:
        """Returns (box, label), or None if the annotation is bad and was reported."""
        where = f"annotation {entry.get('id')}"
        category = entry.get("category_id")
        if not isinstance(category, int) or category not in self._label_of:
            known = [str(id_) for id_ in self.category_ids]
            return self._reporter.error(
                self.file,
                where,
                f"category_id {category!r} is unknown; {close_matches(str(category), known)}",
            )
        lacks_mask = self._lacks_mask(entry)
        if lacks_mask:
            message = "has no `segmentation`, which task='segmentation' needs; its box is left out of the mask"
            self._reporter.error(self.file, where, message)
        box: list[float] | None = [0.0] * 4
        if "detection" in self.tasks or lacks_mask:
            box = self._read_box(entry.get("bbox"), size_hw, where)
        if box is not None and "segmentation" in self.tasks and not lacks_mask:
            try:
                # Polygons are cheap to look at; run lengths wait until they are drawn.
                _check_segmentation(entry["segmentation"], size_hw)
            except ValueError as error:
                return self._reporter.error(self.file, where, str(error))
        return None if box is None else (box, self._label_of[category])

    def _lacks_mask(self, entry: dict) -> bool:
        return "segmentation" in self.tasks and not entry.get("segmentation")

    def _read_box(self, box, size_hw: tuple[int, int], where: str) -> list[float] | None:
        if (
            not isinstance(box, list)
            or len(box) != 4
            or not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in box)
        ):
            return self._reporter.error(self.file, where, f"bbox {box!r} is not four numbers [x, y, width, height]")
        x, y, width, height = box
        return self._reporter.box([x, y, x + width, y + height], size_hw, self.file, where)

    def _draw_masks(self, record: _Record) -> tuple[np.ndarray, np.ndarray]:
        """Returns (mask (H, W) uint8, instances (H, W) int32)."""
        mask = np.zeros(record.size_hw, np.uint8)
        instances = np.zeros(record.size_hw, np.int32)
        drawn = []
        for number, segmentation in enumerate(record.segmentations):
            try:
                if segmentation is None:
                    drawn.append(_inside(record.boxes[number], record.size_hw))
                else:
                    drawn.append(decode_segmentation(segmentation, record.size_hw))
            except ValueError as error:
                where = f"annotation {record.annotation_ids[number]}"
                raise DataError(Problem(str(self.file), where, str(error))) from None
        # Crowds first, then large to small: what is small is in front, or it would not have been labelled.
        order = sorted(range(len(drawn)), key=lambda at: (not record.ignored[at], -drawn[at].sum()))
        for at in order:
            mask[drawn[at]] = IGNORE if record.ignored[at] else record.labels[at] + 1
            instances[drawn[at]] = at + 1
        return mask, instances


def _inside(box_xyxy: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Returns (H, W) bool: the pixels that a box touches."""
    x1, y1 = np.floor(box_xyxy[:2]).astype(int)
    x2, y2 = np.ceil(box_xyxy[2:]).astype(int)
    inside = np.zeros(size_hw, bool)
    inside[y1:y2, x1:x2] = True
    return inside


def _check_segmentation(segmentation, size_hw: tuple[int, int]) -> None:
    if isinstance(segmentation, dict):
        size = segmentation.get("size")
        if not isinstance(size, Sequence) or tuple(size) != size_hw:
            raise ValueError(f"mask size {size} differs from the image's height and width {list(size_hw)}")
    elif not isinstance(segmentation, list):
        raise ValueError(f"segmentation is {type(segmentation).__name__}; expected polygons or a run-length code")


def _find_json(folder: Path, split: str) -> Path:
    if not folder.is_dir():
        raise DataError(Problem(str(folder), "", f"no such file or folder; {EXPECTED}"))
    path_inside(folder, split, folder, "`split`")
    candidates = [
        *(folder / place / f"instances_{split}.json" for place in ("annotations", "")),
        folder / split / "_annotations.coco.json",
        *(folder / place / f"{split}.json" for place in ("annotations", "")),
    ]
    for path in candidates:
        if path.is_file():
            return path
    years = sorted((folder / "annotations").glob(f"instances_{split}[0-9]*.json"))
    if len(years) == 1:
        return years[0]
    if years:
        names = ", ".join(path.stem.removeprefix("instances_") for path in years)
        raise DataError(Problem(str(folder), "", f"`split` {split!r} could be {names}; name one"))
    found = sorted((folder / "annotations").glob("instances_*.json"))
    if found:
        splits = [path.stem.removeprefix("instances_") for path in found]
        hint = close_matches(split, splits, what="there are")
        raise SplitError(Problem(str(candidates[0]), "", f"`split` {split!r} has no annotation file; {hint}"))
    if (folder / "annotations.json").is_file():
        return folder / "annotations.json"
    raise SplitError(Problem(str(folder), "", f"has no annotation file for split {split!r}; {EXPECTED}"))


def _load_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}"
        raise DataError(Problem(str(path), where, f"JSON is malformed: {error.msg}")) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise DataError(Problem(str(path), "", f"JSON is malformed: {error}")) from None
    for key in ("images", "annotations", "categories"):
        value = content.get(key) if isinstance(content, dict) else None
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise DataError(Problem(str(path), "", f"is no COCO instances file: `{key}` must be a list of objects"))
    return content

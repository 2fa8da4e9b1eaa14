"""Reader of the PASCAL VOC layout: XML boxes, indexed or coloured PNG masks.

::

    DIR/JPEGImages/<id>.jpg (or .png …)     DIR/Annotations/<id>.xml
    DIR/SegmentationClass/<id>.png          DIR/ImageSets/Main|Segmentation/<split>.txt

Every part but the images may be missing: without ImageSets all images are one split, without Annotations
there are masks only, and the other way round. labelme's VOC exports (`SegmentationClassPNG`,
`class_names.txt`) are read as well, and a `class_names.txt` of your own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from kerasvision.data.checks import (
    DataError,
    Problem,
    Reporter,
    SplitError,
    image_looks_whole,
    image_size,
    mask_problem,
    path_inside,
    read_image,
    read_mask,
)
from kerasvision.data.samples import RecordedDataset, Sample, Task, check_task
from kerasvision.naming import close_matches

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
    "tvmonitor",
)
CLASS_NAMES_FILE = "class_names.txt"
# What labelme writes before the classes (mask values 255 and 0), and what people write there.
_NO_CLASSES = ("__ignore__", "_background_", "background")
MASK_FOLDERS = ("SegmentationClass", "SegmentationClassPNG")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
EXPECTED = (
    "expected JPEGImages/ with Annotations/*.xml and, or, SegmentationClass/*.png, and optionally "
    "ImageSets/Main/<split>.txt or ImageSets/Segmentation/<split>.txt"
)


def voc_palette() -> np.ndarray:
    """Returns the (256, 3) uint8 RGB palette of VOC's masks (the development kit's `VOClabelcolormap`)."""
    values = np.arange(256)
    palette = np.zeros((256, 3), np.int64)
    for shift in range(8):  # three bits of the value per step go to the next lower bit of R, G and B
        for channel in range(3):
            palette[:, channel] |= ((values >> (3 * shift + channel)) & 1) << (7 - shift)
    return palette.astype(np.uint8)


def read_class_names(path: str | os.PathLike) -> tuple[str, ...]:
    """Returns the names in a text file, one a line, in its order, which is that of labels and of mask values 1, 2, …

    Empty lines and, at the top, `__ignore__`, `_background_` and `background` are left out.

    Raises:
        DataError: a missing file, one that is no UTF-8 text or holds no name, or a name that occurs twice.
    """
    file = os.fspath(path)
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines()]
    except OSError as error:
        raise DataError(
            Problem(file, "", f"cannot be read ({error.strerror}); expected class names, one a line")
        ) from None
    except UnicodeDecodeError:
        raise DataError(Problem(file, "", "is no UTF-8 text; expected class names, one a line")) from None
    names: dict[str, int] = {}
    for number, name in enumerate(lines, start=1):
        if not name or (name in _NO_CLASSES and not names):
            continue
        if name in names:
            raise DataError(Problem(file, f"line {number}", f"{name!r} stands on line {names[name]} already"))
        names[name] = number
    if not names:
        raise DataError(Problem(file, "", "holds no class name; expected one a line"))
    return tuple(names)


def find_classes(folder: str | os.PathLike) -> tuple[str, ...]:
    """Returns the class names that a folder in VOC layout gives itself, which are the same for every split.

    They are those of class_names.txt or, without it, those in all XML files in alphabetical order; none where there is
    neither. XML files that cannot be parsed are passed over: whoever opens the data set is told of them.
    """
    root = Path(folder).expanduser()
    if (root / CLASS_NAMES_FILE).is_file():
        return read_class_names(root / CLASS_NAMES_FILE)
    found = set()
    for path in _list_files(root / "Annotations", (".xml",)).values():
        try:
            found.update((entry.findtext("name") or "").strip() for entry in parse_xml(path).findall("object"))
        except DataError:
            continue
    return tuple(sorted(found - {""}))


@dataclass(frozen=True)
class _Record:
    name: str
    image: Path
    mask: Path | None
    size_hw: tuple[int, int] | None
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray


class Voc(RecordedDataset):
    """A folder in VOC layout.

    Annotations are read and checked when the data set is opened, images when a sample is asked for.

    Args:
        folder: the folder that holds JPEGImages.
        split: name of a list in ImageSets, without ".txt". Ignored if there is no ImageSets folder.
        strict: raise on the first bad annotation; False skips and lists them in `problems`, and then also
            looks at every image's header and end, to leave out those that are missing or cut off.
        task: "segmentation" takes the list in ImageSets/Segmentation, or without it Main's, and reads masks;
            "detection" takes Main's, or without it Segmentation's, and reads boxes. None takes Main's, and
            allows both tasks if every image of it has a mask and the other list, if any, has the same images.
        classes: class names in the order of labels and of mask values 1, 2, …; None for those of
            class_names.txt or, without it, the 20 of VOC; "auto" for those of class_names.txt or, without it,
            those in all XML files of the folder in alphabetical order (`find_classes`), for every split alike.
        one_based: whether boxes in the XML count pixels from 1, as VOC does. A VOC box includes its last
            pixel, so [xmin, ymin, xmax, ymax] becomes [xmin - 1, ymin - 1, xmax, ymax] (as detectron2
            reads it); with False it is taken as it is.

    Attributes:
        problems: what was wrong or worth noting, a list of `kerasvision.data.Problem`.
        max_boxes: the largest number of boxes on an image, at least 1.

    Raises:
        DataError: a missing folder or split; in strict mode, a bad annotation.
        ValueError: an unknown `task`.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        split: str = "train",
        strict: bool = True,
        task: Task | None = None,
        classes: Sequence[str] | Literal["auto"] | None = None,
        one_based: bool = True,
    ):
        check_task(task)
        if isinstance(classes, str) and classes != "auto":
            raise ValueError(f"`classes` {classes!r} must be a sequence of names, 'auto' or None")
        self.folder = Path(folder).expanduser()
        self.name = f"voc:{os.fspath(folder)}"
        self.split, self.one_based = split, one_based
        self._reporter = Reporter(strict)
        if not self.folder.is_dir():
            raise DataError(Problem(str(self.folder), "", f"no such folder; {EXPECTED}"))
        self._images = _list_files(self.folder / "JPEGImages", IMAGE_SUFFIXES)
        if not self._images:
            raise DataError(Problem(str(self.folder), "", f"holds no images in JPEGImages; {EXPECTED}"))
        self._xml = _list_files(self.folder / "Annotations", (".xml",))
        self._masks: dict[str, Path] = {}
        for name in MASK_FOLDERS:
            self._masks = self._masks or _list_files(self.folder / name, (".png",))
        for wanted, there, kind in (("detection", self._xml, "XML files"), ("segmentation", self._masks, "masks")):
            if task == wanted and not there:
                raise DataError(Problem(str(self.folder), "", f"has no {kind}, which task={task!r} needs; {EXPECTED}"))
        ids = self._ids_of_split(task)
        self.tasks = frozenset({task} if task else self._possible_tasks(ids))
        self._classes_given = classes is not None
        self.classes = self._find_classes(classes)
        if "segmentation" in self.tasks:
            self.mask_classes = ("background", *self.classes)
            self.palette = voc_palette()
        if "detection" not in self.tasks:
            self.classes = ()
        records = [self._read_record(id_) for id_ in ids]
        self._records = [record for record in records if record is not None]

    def __getitem__(self, index: int) -> Sample:
        record = self._records[self.checked_index(index)]
        image = read_image(record.image)
        if record.size_hw is not None and image.shape[:2] != record.size_hw:
            raise DataError(
                Problem(
                    record.name,
                    "",
                    f"height and width {image.shape[:2]} differ from {record.size_hw} in its XML file",
                )
            )
        mask = None
        if record.mask is not None and "segmentation" in self.tasks:
            mask = self._read_mask(record.mask, image.shape[:2])
        return self._of_tasks(Sample(record.name, image, record.boxes, record.labels, record.ignored, mask))

    def _possible_tasks(self, ids: list[str]) -> set[str]:
        """The tasks that the images of a list are annotated for; one alone is not doubted, its gaps are reported."""
        if not self._xml and not self._masks:
            raise DataError(Problem(str(self.folder), "", f"has neither XML files nor masks; {EXPECTED}"))
        if not self._xml or not self._masks:
            return {"detection" if self._xml else "segmentation"}
        paths = [self._list_of(folder) for folder in ("Main", "Segmentation")]
        lines = [path.read_text(encoding="utf-8").splitlines() for path in paths if path.is_file()]
        images = [{line.split()[0] for line in part if line.strip()} for part in lines]
        if images[:1] == images[-1:] and all(id_ in self._masks for id_ in ids):
            return {"detection", "segmentation"}
        message = "masks are not read, as they belong to other images than the boxes; pass task='segmentation' for them"
        self._reporter.note(self.folder, "", message)
        return {"detection"}

    def _list_of(self, folder: str) -> Path:
        return self.folder / "ImageSets" / folder / f"{self.split}.txt"

    def _ids_of_split(self, task: str | None) -> list[str]:
        root = self.folder / "ImageSets"
        if not root.is_dir():
            # Without lists the folder is one split: everything that has an annotation.
            return sorted(set(self._masks) if task == "segmentation" else set(self._xml) or set(self._masks))
        wanted = ("Segmentation", "Main") if task == "segmentation" else ("Main", "Segmentation")
        path_inside(root, f"{self.split}.txt", self.folder, "`split`")
        for folder in wanted:
            if self._list_of(folder).is_file():
                return self._read_ids(self._list_of(folder))
        splits = sorted({path.stem for folder in wanted for path in (root / folder).glob("*.txt")})
        # Per-class lists such as dog_train.txt are no splits.
        splits = [name for name in splits if "_" not in name] or splits
        raise SplitError(
            Problem(
                str(self._list_of(wanted[0])),
                "",
                f"`split` {self.split!r} has no list; {close_matches(self.split, splits, what='there are')}",
            )
        )

    def _read_ids(self, path: Path) -> list[str]:
        ids: dict[str, int] = {}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            words = line.split()
            if not words:
                continue
            path_inside(self.folder, words[0], path, f"line {number}")
            if words[0] in ids:
                self._reporter.error(
                    path, f"line {number}", f"{words[0]!r} is listed twice, first on line {ids[words[0]]}"
                )
                continue
            ids[words[0]] = number
        return list(ids)

    def _find_classes(self, classes: Sequence[str] | str | None) -> tuple[str, ...]:
        if classes is not None and not isinstance(classes, str):
            return tuple(classes)
        listed = (self.folder / CLASS_NAMES_FILE).is_file()
        if classes is None and not listed:
            return VOC_CLASSES
        found = find_classes(self.folder)
        if not found:
            raise DataError(
                Problem(
                    str(self.folder),
                    "",
                    f"classes='auto': names no class, as it has neither {CLASS_NAMES_FILE} nor objects in "
                    "Annotations/*.xml; pass a list of names",
                )
            )
        if "segmentation" in self.tasks and not listed:
            values = ", ".join(f"{value} {name!r}" for value, name in enumerate(found[:10], start=1))
            self._reporter.note(
                self.folder,
                "",
                f"mask values are taken to be {values}{', …' if len(found) > 10 else ''}, the names in Annotations in "
                "alphabetical order; if your masks count otherwise, pass a list of names",
            )
        return found

    def _read_record(self, id_: str) -> _Record | None:
        """Reads one XML file; None if the sample cannot be used, which has then been reported."""
        root = None
        try:
            if "detection" in self.tasks and id_ in self._xml:
                root = parse_xml(self._xml[id_])
            elif "detection" in self.tasks:
                path = self.folder / "Annotations" / f"{id_}.xml"
                raise DataError(Problem(str(path), "", "annotation file is missing"))
            image = self._find_image(id_, root)
            if "segmentation" in self.tasks and id_ not in self._masks:
                path = self.folder / MASK_FOLDERS[0] / f"{id_}.png"
                raise DataError(Problem(str(path), "", "mask file is missing"))
            message = None if self._reporter.strict else image_looks_whole(image)
            if message:
                raise DataError(Problem(str(image), "", message))
            size_hw = _declared_size(root)
            if root is not None and size_hw is None:
                size_hw = image_size(image)
        except DataError as error:
            self._reporter.error(error.problem.file, error.problem.where, error.problem.message)
            return None
        boxes, labels, ignored = [], [], []
        for number, entry in enumerate(root.findall("object") if root is not None else ()):
            assert size_hw is not None
            parsed = self._read_object(entry, self._xml[id_], number, size_hw)
            if parsed is not None:
                boxes.append(parsed[0])
                labels.append(parsed[1])
                ignored.append(parsed[2])
        return _Record(
            name=str(image),
            image=image,
            mask=self._masks.get(id_),
            size_hw=size_hw,
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            labels=np.array(labels, np.int32),
            ignored=np.array(ignored, bool),
        )

    def _find_image(self, id_: str, root: Element | None) -> Path:
        if id_ in self._images:
            return self._images[id_]
        filename = root.findtext("filename") if root is not None else None
        if filename:
            path = path_inside(self.folder / "JPEGImages", filename.strip(), self._xml[id_], "filename")
            if path.is_file():
                return path
        raise DataError(Problem(str(self.folder / "JPEGImages" / f"{id_}.jpg"), "", "image file is missing"))

    def _read_object(self, entry: Element, path: Path, number: int, size_hw: tuple[int, int]):
        """Returns (box, label, ignored) of one <object>, or None if it is bad and was reported."""
        name = (entry.findtext("name") or "").strip()
        where = f"line {entry.get('line')}: object {number + 1} ({name or 'without name'})"
        if name not in self.classes:
            return self._reporter.error(path, where, self._unknown_class(name))
        texts = [entry.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
        try:
            x1, y1, x2, y2 = (float(text) for text in texts)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return self._reporter.error(path, where, f"bndbox {texts} is not four numbers xmin, ymin, xmax, ymax")
        offset = 1.0 if self.one_based else 0.0
        box = self._reporter.box([x1 - offset, y1 - offset, x2, y2], size_hw, path, where)
        if box is None:
            return None
        difficult = (entry.findtext("difficult") or "0").strip() == "1"
        return box, self.classes.index(name), difficult

    def _unknown_class(self, name: str) -> str:
        hint = close_matches(name, self.classes)
        hint += " " if hint.endswith("?") else ". "
        if self._classes_given:
            return f"class {name!r} is unknown; {hint}If it is right, add it to the names passed as `classes`"
        return f"class {name!r} is unknown; {hint}For classes of your own pass classes='auto' or a list of names"

    def _read_mask(self, path: Path, size_hw: tuple[int, int]) -> np.ndarray:
        mask = read_mask(path)
        if mask.ndim == 3:
            mask = _palette_indices(mask, path)
        message = mask_problem(mask, size_hw, len(self.mask_classes))
        if message:
            raise DataError(Problem(str(path), "", message))
        return mask


def _list_files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files of a folder by name without suffix; sorted, so that the order is the same everywhere."""
    if not folder.is_dir():
        return {}
    return {file.stem: file for file in sorted(folder.iterdir()) if file.suffix.lower() in suffixes}


def parse_xml(path: str | os.PathLike) -> Element:
    """Parses an XML file, refusing document types and entities (no expansion, no outside files).

    Returns:
        The root element; every element carries its line number as the attribute "line".

    Raises:
        DataError: a missing file, malformed XML (with its line), or a DOCTYPE.
    """

    def refuse(*_):
        raise DataError(Problem(os.fspath(path), f"line {parser.CurrentLineNumber}", "DOCTYPE is refused; remove it"))

    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = lambda tag, attributes: builder.start(
        tag, {**attributes, "line": str(parser.CurrentLineNumber)}
    )
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(Path(path).read_bytes(), True)
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        raise DataError(Problem(os.fspath(path), f"line {error.lineno}", f"XML is malformed: {reason}")) from None
    except FileNotFoundError:
        raise DataError(Problem(os.fspath(path), "", "file is missing")) from None
    return builder.close()


def _declared_size(root: Element | None) -> tuple[int, int] | None:
    """(height, width) in the XML; None where it is missing, not a number or, as some tools write, 0."""
    if root is None:
        return None
    try:
        height, width = (int(float(root.findtext(f"size/{key}") or 0)) for key in ("height", "width"))
    except (ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _palette_indices(colours: np.ndarray, path: Path) -> np.ndarray:
    """Turns a mask (H, W, 3) in VOC's colours into (H, W) indices; the border colour becomes 255."""
    weights = np.array([1 << 16, 1 << 8, 1])
    codes = voc_palette().astype(np.int64) @ weights  # (256,); entry 255 is the border's 224, 224, 192
    order = np.argsort(codes)
    flat = colours.astype(np.int64) @ weights  # (H, W)
    found = order[np.searchsorted(codes[order], flat).clip(max=255)]
    wrong = codes[found] != flat
    if wrong.any():
        y, x = (int(at[0]) for at in np.nonzero(wrong))
        raise DataError(
            Problem(
                os.fspath(path),
                f"pixel x={x}, y={y}",
                f"colour {tuple(colours[y, x].tolist())} is not in the VOC palette; "
                "expected an indexed PNG or VOC's colours",
            )
        )
    return found.astype(np.uint8)

"""What can be wrong with a data set, found by name: file, line or annotation id, and message.

Readers use `Reporter` while they parse annotations; `check` walks a whole data set, images and masks
included, for `kerasvision data check`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

import numpy as np

from kerasvision.data.samples import IGNORE, Dataset, Sample

# Annotation tools round; COCO's own boxes reach up to half a pixel over the edge.
CLIP_TOLERANCE = 1.0
_ORIENTATION = 0x0112  # the EXIF tag


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a data set.

    Attributes:
        file: path of the file (or name of the sample) that has to be looked at.
        where: place inside it: "line 12", "annotation 17"; empty for the whole file.
        message: what came and what was expected.
        severity: "error" makes a strict reader raise and a lenient one skip the annotation; "note" is
            allowed and only reported (a clipped box, an image without boxes).
    """

    file: str
    where: str
    message: str
    severity: Literal["error", "note"] = "error"

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.where, self.message) if part)


class DataError(ValueError):
    """A data set that cannot be read as it is; the message names the file and the annotation.

    Attributes:
        problem: the `Problem`, for code that collects them.
    """

    def __init__(self, problem: Problem | str):
        self.problem = problem if isinstance(problem, Problem) else Problem("", "", problem)
        super().__init__(str(self.problem))


class SplitError(DataError):
    """A split that the data set does not have."""


class Reporter:
    """Collects problems for a reader; in strict mode the first error is raised instead.

    Args:
        strict: raise `DataError` on an error (notes never raise).
    """

    def __init__(self, strict: bool):
        self.strict = strict
        self.problems: list[Problem] = []

    def error(self, file: str | os.PathLike, where: str, message: str) -> None:
        """Raises `DataError` if strict; otherwise records the problem, and the caller skips the item."""
        problem = Problem(os.fspath(file), where, message)
        if self.strict:
            raise DataError(problem)
        self.problems.append(problem)

    def note(self, file: str | os.PathLike, where: str, message: str) -> None:
        """Records something allowed that a user may want to know."""
        self.problems.append(Problem(os.fspath(file), where, message, "note"))

    def box(
        self, box_xyxy: Sequence[float], size_hw: tuple[int, int], file: str | os.PathLike, where: str
    ) -> list[float] | None:
        """Returns the box clipped to the image, or None if it is unusable and was reported.

        Args:
            box_xyxy: 4 numbers, absolute pixels, exclusive `x2`, `y2`.
            size_hw: height and width of the image in pixels.
            file: file named in the report.
            where: annotation named in the report.
        """
        height, width = size_hw
        text = "[" + ", ".join(f"{value:g}" for value in box_xyxy) + "]"
        if not np.all(np.isfinite(box_xyxy)):
            return self.error(file, where, f"box {text} has a value that is not a finite number")
        x1, y1, x2, y2 = (float(value) for value in box_xyxy)
        if x2 <= x1 or y2 <= y1:
            return self.error(
                file, where, f"box {text} has no area ({x2 - x1:g}×{y2 - y1:g}); expected x1 < x2, y1 < y2"
            )
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            return self.error(file, where, f"box {text} lies outside the image of width {width} and height {height}")
        if max(-x1, -y1, x2 - width, y2 - height) > CLIP_TOLERANCE:
            self.note(
                file,
                where,
                f"box {text} reaches outside the image of width {width} and height {height}; clipped",
            )
        return [max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))]


def path_inside(root: Path, relative: str, file: str | os.PathLike, where: str) -> Path:
    """Returns root / relative, refusing names from an annotation file that lead out of the folder.

    Symbolic links that the user made inside the folder are followed; `..` and absolute names are not.

    Raises:
        DataError: in strict and lenient mode alike, as such a file is broken or hostile.
    """
    parts = (*PurePosixPath(relative).parts, *PureWindowsPath(relative).parts)
    absolute = PurePosixPath(relative).is_absolute() or PureWindowsPath(relative).anchor
    if not relative or absolute or ".." in parts or "\0" in relative:
        raise DataError(
            Problem(
                os.fspath(file),
                where,
                f"file name {relative!r} leads outside the data folder {str(root)!r}; "
                "expected a relative path without '..'",
            )
        )
    return root / relative


def read_image(path: str | os.PathLike, encoded: bytes | None = None, *, upright: bool = False) -> np.ndarray:
    """Decodes an image file to (H, W, 3) uint8 RGB.

    Args:
        path: the file, or, with `encoded`, only its name for messages.
        encoded: the file's content, if it is in memory already.
        upright: turn the image as its EXIF orientation says, as viewers show it. A data set's reader leaves it as
            stored, for that is what annotations refer to.

    Raises:
        DataError: missing file, not an image, truncated, or with pixels of a range that is not stated: naming the file.
    """

    def convert(image):
        try:
            return to_rgb(image, upright=upright)
        except DataError as error:
            raise DataError(Problem(os.fspath(path), "", error.problem.message)) from None

    return _decode(path, convert, encoded)


def to_rgb(image, *, upright: bool = False) -> np.ndarray:
    """Converts a PIL image of any mode to (H, W, 3) uint8 RGB.

    16-bit grey is scaled from 0-65535 to 0-255, transparency is dropped.

    Args:
        image: the PIL image.
        upright: turn it as its EXIF orientation says.

    Raises:
        DataError: 32-bit pixels, of which nothing says what is white.
    """
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if deep:
        # PIL's own conversion clips at 255: all but the darkest 255 of 65536 greys would be white.
        grey = (np.asarray(image).astype(np.int64) + 128) // 257  # 65535 / 255 = 257
        pixels = np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)  # (H, W, 3)
    elif image.mode in ("I", "F"):
        kind = "integers" if image.mode == "I" else "floats"
        raise DataError(f"pixels are 32-bit {kind}, of which nothing says what is white; convert it to 8 or 16 bits")
    else:
        pixels = np.asarray(image.convert("RGB"))
    return _turned(pixels, _orientation(image)) if upright else pixels


def _orientation(image) -> int:
    """Returns the EXIF orientation, 1 (as stored) where there is none or the EXIF data is damaged."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # PIL raises struct.error, SyntaxError, KeyError …; a picture can be seen without its EXIF
        return 1


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Returns stored pixels (H, W, 3) as they are to be shown; orientations are those of EXIF 2.3, 1 to 8."""
    if orientation in (5, 6, 7, 8):  # rows and columns are exchanged
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def read_mask(path: str | os.PathLike, encoded: bytes | None = None) -> np.ndarray:
    """Decodes a mask file to (H, W) uint8 (indexed or grey: the raw values) or (H, W, 3) uint8 RGB.

    Args:
        path: the file, or, with `encoded`, only its name for messages.
        encoded: the file's content, if it is in memory already.

    Raises:
        DataError: missing file, not an image, truncated, or with values above 255: naming the file.
    """

    def convert(image):
        if image.mode in ("P", "L"):
            return np.asarray(image)
        if image.mode in ("1", "I", "I;16", "I;16B", "I;16L", "F"):
            values = np.asarray(image).astype(np.int64)
            if values.size and (values.min() < 0 or values.max() > 255):
                raise DataError(
                    Problem(os.fspath(path), "", f"mask value {values.max()} is out of range; expected 0 to 255")
                )
            return values.astype(np.uint8)
        return np.asarray(image.convert("RGB"))

    return _decode(path, convert, encoded)


def _decode(path: str | os.PathLike, convert: Callable, encoded: bytes | None = None):
    from io import BytesIO

    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path if encoded is None else BytesIO(encoded)) as image:
            # PIL, unlike OpenCV, raises on a truncated file instead of returning a half-grey picture.
            return convert(image)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(Problem(os.fspath(path), "", "file is missing")) from None
    except UnidentifiedImageError:
        raise DataError(Problem(os.fspath(path), "", "not an image file, or its header is damaged")) from None
    except Image.DecompressionBombError as error:
        remedy = "make it smaller or, to predict it in tiles, save its pixels as a .npy file, uint8 (height, width, 3)"
        raise DataError(Problem(os.fspath(path), "", f"{str(error).rstrip('.')}; {remedy}")) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        # PIL raises SyntaxError for a broken PNG, ValueError for some broken headers.
        raise DataError(Problem(os.fspath(path), "", f"image is corrupt or truncated ({error})")) from None


def image_size(path: str | os.PathLike, encoded: bytes | None = None) -> tuple[int, int]:
    """Returns (height, width) in pixels from an image's header, without decoding it.

    Raises:
        DataError: missing file or not an image.
    """
    return _decode(path, lambda image: (image.height, image.width), encoded)


def image_looks_whole(path: str | os.PathLike) -> str | None:
    """Cheap test of an image file, without decoding: returns what is wrong, or None.

    Reads the header and, of a JPEG, the end; damage in the middle is found only when it is decoded.
    """
    try:
        image_size(path)
    except DataError as error:
        return error.problem.message
    with open(path, "rb") as stream:
        start = stream.read(2)
        stream.seek(max(0, os.path.getsize(path) - 4096))
        if start == b"\xff\xd8" and b"\xff\xd9" not in stream.read():
            return "JPEG is truncated: its end marker is missing"
    return None


def check(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> list[Problem]:
    """Reads every sample of a data set and returns everything that is wrong with it.

    Args:
        dataset: best loaded with `strict=False`, so that what the reader skipped is listed as well.
        progress: called as `progress(done, total)` after each sample.

    Returns:
        The problems, in order: those that the reader met (`dataset.problems`), then those of each sample.
        Empty for a flawless data set.
    """
    problems: list[Problem] = list(getattr(dataset, "problems", ()))
    seen: dict[str, int] = {}
    for index in range(len(dataset)):
        name = dataset.sample_name(index)
        if name in seen:
            problems.append(Problem(name, f"sample {index}", f"same name as sample {seen[name]}"))
        seen.setdefault(name, index)
        known = len(getattr(dataset, "problems", ()))
        try:
            problems += check_sample(dataset[index], dataset)
        except DataError as error:
            problems.append(error.problem)
        except OSError as error:
            problems.append(Problem(name, "", f"cannot be read ({error})"))
        # What a lenient reader noticed only while decoding this sample.
        problems += list(getattr(dataset, "problems", ()))[known:]
        if progress is not None:
            progress(index + 1, len(dataset))
    return problems


def check_sample(sample: Sample, dataset: Dataset) -> list[Problem]:
    """Returns what is wrong with one sample that has been read: boxes, labels, mask, instances."""
    reporter = Reporter(strict=False)
    size_hw = sample.size_hw
    if sample.image.ndim != 3 or sample.image.shape[2] != 3 or sample.image.dtype != np.uint8:
        reporter.error(sample.name, "", f"image is {sample.image.dtype} {sample.image.shape}; expected uint8 (H, W, 3)")
    count = len(sample.boxes)
    if len(sample.labels) != count or len(sample.ignored) != count:
        reporter.error(
            sample.name,
            "",
            f"{count} boxes, {len(sample.labels)} labels, {len(sample.ignored)} ignored flags",
        )
    for number, (box, label) in enumerate(zip(sample.boxes, sample.labels, strict=False)):
        reporter.box(box, size_hw, sample.name, f"box {number}")
        if not 0 <= label < len(dataset.classes):
            reporter.error(
                sample.name,
                f"box {number}",
                f"class id {label} is out of range; expected 0 to {len(dataset.classes) - 1}",
            )
    if "detection" in dataset.tasks and count == 0:
        reporter.note(sample.name, "", "image without boxes (a background image; allowed)")
    if "segmentation" in dataset.tasks and sample.mask is None:
        reporter.error(sample.name, "", "has no mask")
    if sample.mask is not None:
        message = mask_problem(sample.mask, size_hw, len(dataset.mask_classes))
        if message:
            reporter.error(sample.name, "mask", message)
    if sample.instances is not None:
        if sample.instances.shape != size_hw:
            reporter.error(
                sample.name, "instances", f"size {sample.instances.shape} differs from the image's {size_hw}"
            )
        elif sample.instances.size and (sample.instances.min() < 0 or sample.instances.max() > count):
            reporter.error(
                sample.name,
                "instances",
                f"value {sample.instances.max()} is out of range; expected 0 to {count}",
            )
    return reporter.problems


def mask_problem(mask: np.ndarray, size_hw: tuple[int, int], num_classes: int) -> str | None:
    """Returns what is wrong with a mask (H, W) of an image of this size, or None."""
    if tuple(mask.shape) != tuple(size_hw):
        return (
            f"mask height and width {tuple(mask.shape)} differ from the image's {tuple(size_hw)}; "
            "expected the same size"
        )
    values = np.flatnonzero(np.bincount(mask.ravel(), minlength=IGNORE + 1))
    wrong = [int(value) for value in values if value >= num_classes and value != IGNORE]
    if wrong:
        return f"mask value {wrong[0]} is out of range; expected 0 to {num_classes - 1}, or {IGNORE} for ignore"
    return None

"""Reader of tensorflow-datasets builders with boxes or segmentation masks: `tfds:NAME`.

A builder is recognised by its features, not by its name: a sequence with `bbox` gives boxes, a one-channel
image beside the image gives masks. Where a builder's values need a meaning that its features do not state
(KITTI's flipped boxes, Cityscapes' raw ids, the pets' trimap), it is written down here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasvision.data.checks import (
    DataError,
    Problem,
    Reporter,
    SplitError,
    image_size,
    mask_problem,
    read_image,
    read_mask,
)
from kerasvision.data.samples import IGNORE, RecordedDataset, Sample, Task, check_task
from kerasvision.naming import close_matches

# Builders whose boxes count y from the bottom (kitti_dataset_builder.py, `_build_bounding_box`).
FLIPPED_IN_Y = frozenset({"kitti"})
# Names of the feature that says which class a box has; without any, there is one class.
LABEL_KEYS = ("label", "type")
# Names of the feature that says that a box is not scored; true where it is 1.
IGNORED_KEYS = ("is_crowd", "is_difficult", "invalid", "is_group_of")
NAME_KEYS = ("image/filename", "image/file_name", "file_name", "image_id", "image/id")
MASK_KEYS = ("segmentation_mask", "segmentation_label", "annotation", "mask")
# COCO's 80 classes have ids 1-90 with ten gaps; label i of the builder is the i-th of them.
COCO_CATEGORY_IDS = tuple(id_ for id_ in range(1, 91) if id_ not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
# A whole split is held in memory as encoded files; above this many bytes a part of it has to be named.
MAX_BYTES = 8 * 2**30


@dataclass(frozen=True)
class MaskCoding:
    """What the raw values of a builder's masks mean.

    Attributes:
        classes: mask class names.
        values: class index of each raw value; raw values that are not in it become 255.
        palette: (C, 3) uint8 RGB, or None.
    """

    classes: tuple[str, ...]
    values: dict[int, int]
    palette: np.ndarray | None = None

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """Returns class indices (H, W) uint8, 255 = ignore, of raw values (H, W) uint8."""
        table = np.full(256, IGNORE, np.uint8)
        for value, index in self.values.items():
            table[value] = index
        return table[raw]


# Order of trainIds, with the labelId of each (cityscapesscripts/helpers/labels.py).
_CITYSCAPES = (
    *(("road", 7, (128, 64, 128)), ("sidewalk", 8, (244, 35, 232)), ("building", 11, (70, 70, 70))),
    *(("wall", 12, (102, 102, 156)), ("fence", 13, (190, 153, 153)), ("pole", 17, (153, 153, 153))),
    *(("traffic light", 19, (250, 170, 30)), ("traffic sign", 20, (220, 220, 0))),
    *(("vegetation", 21, (107, 142, 35)), ("terrain", 22, (152, 251, 152)), ("sky", 23, (70, 130, 180))),
    *(("person", 24, (220, 20, 60)), ("rider", 25, (255, 0, 0)), ("car", 26, (0, 0, 142))),
    *(("truck", 27, (0, 0, 70)), ("bus", 28, (0, 60, 100)), ("train", 31, (0, 80, 100))),
    *(("motorcycle", 32, (0, 0, 230)), ("bicycle", 33, (119, 11, 32))),
)
MASK_CODINGS = {
    "cityscapes": MaskCoding(
        classes=tuple(name for name, _, _ in _CITYSCAPES),
        values={label_id: index for index, (_, label_id, _) in enumerate(_CITYSCAPES)},
        palette=np.array([colour for _, _, colour in _CITYSCAPES], np.uint8),
    ),
    # Trimap: 1 = pet, 2 = background, 3 = not classified (the outline).
    "oxford_iiit_pet": MaskCoding(classes=("background", "pet"), values={2: 0, 1: 1}),
}


@dataclass(frozen=True)
class _Record:
    name: str
    image: bytes
    mask: bytes | None
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray


class TfdsDataset(RecordedDataset):
    """A split of a tensorflow-datasets builder, held in memory as the encoded files.

    Args:
        name: what `tfds.builder` takes: "voc", "coco/2017", "oxford_iiit_pet:4.0.0".
        split: a split or a part of one: "train", "validation[:500]", "train[10%:]".
        task: "detection" reads boxes alone, "segmentation" masks alone; None what there is.
        strict: raise on the first bad annotation; False skips and lists them in `problems`.
        data_dir: where prepared builders lie; default that of tensorflow-datasets.
        download: download and prepare the builder if it is not there yet.
        mask_classes: names of mask classes, for a builder that is not known here.
        mask_offset: added to raw mask values, for a builder that is not known here; what falls below 0
            becomes 255 (ignore). -1 where 0 means "unlabelled".

    Attributes:
        problems: what was wrong or worth noting, a list of `kerasvision.data.Problem`.
        category_ids: for `coco`, the 80 of 91 category ids in COCO's own files; else None.
        max_boxes: the largest number of boxes on an image, at least 1.

    Raises:
        ValueError: an unknown builder, listing close matches; one without boxes and masks.
        DataError: an unknown split, a builder that is not prepared, a split too large for memory; in
            strict mode any bad annotation.
    """

    def __init__(
        self,
        name: str,
        *,
        split: str = "train",
        task: Task | None = None,
        strict: bool = True,
        data_dir: str | os.PathLike | None = None,
        download: bool = True,
        mask_classes: Sequence[str] | None = None,
        mask_offset: int = 0,
    ):
        check_task(task)
        self.name = f"tfds:{name}"
        self.split = split
        self._reporter = Reporter(strict)
        builder = _open_builder(name, data_dir)
        self._box_key, self._mask_key = _find_features(builder.info.features)
        if task == "detection" and self._box_key is None:
            raise ValueError(f"`name` {name!r} has no boxes (a sequence with 'bbox'), which task='detection' needs")
        if task == "segmentation" and self._mask_key is None:
            keys = " or ".join(map(repr, MASK_KEYS))
            raise ValueError(f"`name` {name!r} has no masks (an image named {keys}), which task='segmentation' needs")
        if task is not None:
            keep_boxes = task == "detection"
            self._box_key, self._mask_key = (self._box_key, None) if keep_boxes else (None, self._mask_key)
        if self._box_key is None and self._mask_key is None:
            raise ValueError(
                f"`name` {name!r} has neither boxes nor masks; expected a sequence with 'bbox', or an image "
                f"named {' or '.join(map(repr, MASK_KEYS))}"
            )
        self._flipped = builder.name in FLIPPED_IN_Y
        self.category_ids = COCO_CATEGORY_IDS if builder.name == "coco" else None
        tasks = set()
        if self._box_key:
            tasks.add("detection")
            self.classes = _class_names(builder, self._box_key)
        if self._mask_key:
            tasks.add("segmentation")
            self._coding = _mask_coding(builder.name, mask_classes, mask_offset)
            self.mask_classes, self.palette = self._coding.classes, self._coding.palette
        self.tasks = frozenset(tasks)
        _prepare(builder, split, download=download)
        self._records = self._read_records(builder)

    def __getitem__(self, index: int) -> Sample:
        record = self._records[self.checked_index(index)]
        image = read_image(record.name, record.image)
        mask = None
        if record.mask is not None and "segmentation" in self.tasks:
            raw = read_mask(record.name, record.mask)
            mask = self._coding.apply(raw if raw.ndim == 2 else raw[..., 0])
            message = mask_problem(mask, image.shape[:2], len(self.mask_classes))
            if message:
                raise DataError(Problem(record.name, "mask", message))
        return self._of_tasks(Sample(record.name, image, record.boxes, record.labels, record.ignored, mask))

    def _read_records(self, builder) -> list[_Record]:
        import tensorflow_datasets as tfds

        # Encoded bytes instead of pixels: a tenth of the memory, and nothing is decoded before it is used.
        decoders: dict[str, Any] = {
            key: tfds.decode.SkipDecoding() for key in ("image_left", "image") if _has(builder, key)
        }
        self._image_key = next(iter(decoders))
        features: dict[str, Any] = {self._image_key: True}
        for key in NAME_KEYS:
            if _has(builder, key):
                features[key] = True
        if self._mask_key:
            decoders[self._mask_key] = tfds.decode.SkipDecoding()
            features[self._mask_key] = True
        if self._box_key:
            inner = builder.info.features[self._box_key].feature
            keys = [key for key in ("bbox", *LABEL_KEYS, *IGNORED_KEYS) if key in inner]
            features[self._box_key] = dict.fromkeys(keys, True)
        examples = builder.as_dataset(
            split=self.split,
            shuffle_files=False,
            decoders=tfds.decode.PartialDecoding(features, decoders=decoders),
        )
        records = [self._read_record(*entry) for entry in enumerate(tfds.as_numpy(examples))]
        return [record for record in records if record is not None]

    def _read_record(self, number: int, example: dict) -> _Record | None:
        name = f"{self.name}/{self.split}/{number}"
        for key in NAME_KEYS:
            if key in example:
                value = example[key]
                text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
                name = f"{name} ({text})"
                break
        encoded = example[self._image_key]
        objects = example[self._box_key] if self._box_key else {"bbox": np.zeros((0, 4))}
        try:
            size_hw = image_size(name, encoded)
        except DataError as error:
            self._reporter.error(name, "", error.problem.message)
            return None
        boxes, labels, ignored = [], [], []
        candidates = boxes_to_pixels(objects["bbox"], size_hw, flipped=self._flipped)
        label_key = next((key for key in LABEL_KEYS if key in objects), None)
        for at, box in enumerate(candidates):
            label = int(objects[label_key][at]) if label_key else 0
            where = f"box {at}"
            if not 0 <= label < len(self.classes):
                self._reporter.error(
                    name, where, f"class id {label} is out of range; expected 0 to {len(self.classes) - 1}"
                )
                continue
            clipped = self._reporter.box(box, size_hw, name, where)
            if clipped is None:
                continue
            boxes.append(clipped)
            labels.append(label)
            ignored.append(any(objects[key][at] == 1 for key in IGNORED_KEYS if key in objects))
        return _Record(
            name=name,
            image=encoded,
            mask=example[self._mask_key] if self._mask_key else None,
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            labels=np.array(labels, np.int32),
            ignored=np.array(ignored, bool),
        )


def boxes_to_pixels(boxes_yxyx: np.ndarray, size_hw: tuple[int, int], *, flipped: bool = False) -> np.ndarray:
    """Converts boxes of tensorflow-datasets to ours.

    Args:
        boxes_yxyx: (N, 4) [ymin, xmin, ymax, xmax], 0-1.
        size_hw: height and width of the image in pixels.
        flipped: y counts from the bottom, as in KITTI.

    Returns:
        (N, 4) float32 `xyxy` in pixels.
    """
    y1, x1, y2, x2 = np.asarray(boxes_yxyx, np.float64).reshape(-1, 4).T
    if flipped:
        y1, y2 = 1 - y2, 1 - y1
    height, width = size_hw
    return np.stack([x1 * width, y1 * height, x2 * width, y2 * height], axis=1).astype(np.float32)


def _open_builder(name: str, data_dir: str | os.PathLike | None):
    import tensorflow_datasets as tfds

    # Community builders ("user/repo:name") would run code from elsewhere.
    known = tfds.list_builders(with_community_datasets=False)
    base = name.split("/")[0].split(":")[0]
    if base not in known:
        raise ValueError(
            f"`name` {base!r} is not a builder of tensorflow-datasets {tfds.__version__}; "
            f"{close_matches(base, known, what='there are')}"
        )
    try:
        return tfds.builder(name, data_dir=data_dir)
    except (ValueError, tfds.core.DatasetNotFoundError) as error:
        raise ValueError(f"`name` {name!r} cannot be opened: {error}") from None


def _find_features(features) -> tuple[str | None, str | None]:
    """Names of the feature with boxes and of the one with the mask; None where there is none."""
    import tensorflow_datasets as tfds

    boxes = None
    for key, feature in features.items():
        inner: Any = getattr(feature, "feature", None)
        if boxes is None and isinstance(inner, tfds.features.FeaturesDict) and "bbox" in inner:
            boxes = key
    masks = (key for key in MASK_KEYS if key in features and isinstance(features[key], tfds.features.Image))
    return boxes, next(masks, None)


def _has(builder, key: str) -> bool:
    return key in builder.info.features


def _class_names(builder, box_key: str) -> tuple[str, ...]:
    inner = builder.info.features[box_key].feature
    for key in LABEL_KEYS:
        if key in inner:
            return tuple(inner[key].names)
    return (box_key.removesuffix("s"),)  # one class: "faces" are of class "face"


def _mask_coding(name: str, classes: Sequence[str] | None, offset: int) -> MaskCoding:
    if classes is None:
        if name in MASK_CODINGS:
            return MASK_CODINGS[name]
        raise ValueError(
            f"`mask_classes`: what the mask values of {name!r} mean is not known here; pass the class names "
            "in the order of their values, and mask_offset=-1 if 0 means unlabelled"
        )
    values = {value: value + offset for value in range(256) if 0 <= value + offset < 256}
    return MaskCoding(tuple(classes), values)


def _prepare(builder, split: str, *, download: bool) -> None:
    if not builder.data_path.exists():
        if not download:
            raise DataError(
                Problem(str(builder.data_path), "", "is not prepared; pass download=True, or another data_dir")
            )
        try:
            builder.download_and_prepare()
        except AssertionError as error:  # how tensorflow-datasets asks for files that need a login
            raise DataError(Problem(str(builder.data_path), "", str(error))) from None
    base = split.split("[")[0].split("+")[0].strip()
    if base not in builder.info.splits:
        there = list(builder.info.splits)
        hint = close_matches(base, there, what="there are")
        raise SplitError(Problem(builder.info.full_name, "", f"`split` {split!r} is unknown; {hint}"))
    whole = builder.info.splits[base]
    part = builder.info.splits[split].num_examples / max(1, whole.num_examples)
    size = whole.num_bytes * part
    if size > MAX_BYTES:
        raise DataError(
            Problem(
                builder.info.full_name,
                "",
                f"`split` {split!r} has {size / 2**30:.1f} GiB, above the {MAX_BYTES >> 30} "
                f"that are held in memory; pass a part of it, such as split='{base}[:5000]'",
            )
        )

"""Augmentation of one annotated image: flip, scale jitter, crop, colour; the adapter over Albumentations.

Geometry is done here, in one resize, because boxes, ignore flags, instance ids and the 255 of masks must
stay aligned exactly; Albumentations (2.0.8, the last MIT release) changes colours and runs any further
image-only transform.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from kerasvision.data.samples import IGNORE, Sample
from kerasvision.ops.resizing import ResizeRule


@dataclass(frozen=True)
class Augmentation:
    """A random but reproducible change of a training sample, seeded per sample.

    The image is flipped, scaled by a random factor relative to what the resize rule would give, and a
    random window of the rule's canvas size is cut out of it (where it is larger) or it is put at a random
    place on the canvas (where it is smaller). The result always has the canvas size.

    Args:
        flip: mirror left and right with probability 0.5.
        scale: (low, high) factors, drawn log-uniformly. (1, 1) leaves the scale.
        crop: allow factors above 1, which cut parts of the image off; False limits them to 1.
        colour: strength of brightness, contrast, saturation and hue jitter, 0 (off) to 1.
        min_visible: boxes of which a smaller share of the area is left are kept but marked ignored,
            0 to 1. A box with less than one pixel left is dropped.
        transforms: further Albumentations transforms that change pixels only, such as
            `albumentations.GaussianBlur(p=0.2)`; they run after the colour jitter.
        fill: RGB, 0-255, of canvas that the image does not cover. Default: the ImageNet mean.

    Raises:
        ValueError: a value out of range, or a transform that moves pixels.

    Example:

        >>> import numpy as np
        >>> from kerasvision.data import Augmentation, Sample
        >>> sample = Sample("a", np.zeros((4, 8, 3), np.uint8), np.array([[1, 0, 3, 2]], np.float32),
        ...                 np.array([0], np.int32), np.array([False]))
        >>> Augmentation(scale=(1, 1), colour=0)(sample, seed=1).boxes.tolist() in (
        ...     [[1, 0, 3, 2]], [[5, 0, 7, 2]])
        True
    """

    flip: bool = True
    scale: tuple[float, float] = (0.6, 1.4)
    crop: bool = True
    colour: float = 0.5
    min_visible: float = 0.25
    transforms: tuple[Any, ...] = ()
    fill: tuple[int, int, int] = (124, 116, 104)
    # One Compose per thread: a shared one keeps its random state between calls.
    _local: threading.local = field(default_factory=threading.local, init=False, repr=False, compare=False)

    def __post_init__(self):
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"`scale` {self.scale!r} must be (low, high) with 0 < low <= high")
        if not self.crop and low > 1:
            raise ValueError(f"`scale` {self.scale!r} enlarges, which needs crop=True; lower it to at most 1")
        for name in ("colour", "min_visible"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` {getattr(self, name)!r} must be 0 to 1")
        object.__setattr__(self, "transforms", tuple(self.transforms))
        if self.transforms:
            import_albumentations()
            from albumentations.core.transforms_interface import ImageOnlyTransform

            for transform in self.transforms:
                if not isinstance(transform, ImageOnlyTransform):
                    raise ValueError(
                        f"`transforms` holds {type(transform).__name__}, which is not an Albumentations "
                        "transform of pixels only; use `flip`, `scale` and `crop` for geometry"
                    )

    def __reduce__(self):
        # Thread-locals cannot be pickled; worker processes make their own.
        values = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.init}
        return _restore, (values,)

    def __call__(self, sample: Sample, *, seed: int | Sequence[int], resize: ResizeRule | None = None) -> Sample:
        """Returns the changed sample; the same seed always gives the same one.

        Args:
            sample: boxes, labels and ignore flags stay aligned; the mask is filled with 255 and
                `instances` with 0; instance ids are renumbered where boxes were dropped. Proposals move as boxes
                do, and are dropped where they are wholly outside.
            seed: non-negative integer, or several, such as (seed, epoch, index).
            resize: the resize rule whose canvas the result fills; None keeps the image's size.

        Returns:
            A sample whose image is uint8, of height and width `resize.canvas_hw(H, W)`.
        """
        rng = np.random.default_rng(seed)
        resize = ResizeRule() if resize is None else resize
        height, width = sample.size_hw
        mirrored = self.flip and rng.random() < 0.5
        low, high = self.scale[0], self.scale[1] if self.crop else min(self.scale[1], 1.0)
        factor = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        base_hw = resize.scaled_hw(height, width)
        canvas_hw = resize.canvas_hw(height, width)
        scaled_hw = tuple(max(1, round(side * factor)) for side in base_hw)
        # Place of the scaled image's corner on the canvas; negative where it is cropped.
        slack = [canvas - scaled for canvas, scaled in zip(canvas_hw, scaled_hw, strict=True)]
        top, left = (int(rng.integers(min(0, room), max(0, room) + 1)) for room in slack)

        image, window = self._place(sample.image, mirrored, scaled_hw, (top, left), canvas_hw, resize.antialias)
        image[window] = self._recolour(image[window], rng)
        place = (sample.size_hw, mirrored, scaled_hw, (top, left), canvas_hw)
        boxes, keep, hidden = _kept_boxes(sample.boxes, place, self.min_visible)
        mask = instances = None
        if sample.mask is not None:
            mask, _ = _place_labels(sample.mask, mirrored, scaled_hw, (top, left), canvas_hw, IGNORE)
        if sample.instances is not None:
            instances, _ = _place_labels(sample.instances, mirrored, scaled_hw, (top, left), canvas_hw, 0)
            renumbered = np.zeros(keep.size + 1, np.int32)
            renumbered[1:][keep] = np.arange(1, keep.sum() + 1)
            instances = renumbered[instances]
        return replace(
            sample,
            image=image,
            boxes=boxes[keep],
            labels=sample.labels[keep],
            ignored=(sample.ignored | hidden)[keep],
            mask=mask,
            instances=instances,
            proposals=None if sample.proposals is None else _moved_proposals(sample.proposals, place),
        )

    def _place(self, image, mirrored, scaled_hw, corner, canvas_hw, antialias):
        import cv2

        shrinks = scaled_hw[0] < image.shape[0] or scaled_hw[1] < image.shape[1]
        method = cv2.INTER_AREA if antialias and shrinks else cv2.INTER_LINEAR
        canvas = np.empty((*canvas_hw, 3), np.uint8)
        canvas[:] = np.array(self.fill, np.uint8)
        return _paste(canvas, image, mirrored, scaled_hw, corner, method)

    def _recolour(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if not self.colour and not self.transforms:
            return image
        compose = getattr(self._local, "compose", None)
        if compose is None:
            compose = self._local.compose = self._build_compose()
        # Not set_random_seed: that seeds every transform alike, so that all would fire together.
        compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        return compose(image=np.ascontiguousarray(image))["image"]

    def _build_compose(self):
        from copy import deepcopy

        albumentations = import_albumentations()
        steps = [deepcopy(transform) for transform in self.transforms]
        if self.colour:
            # At strength 0.5 SSD's ranges, as torchvision's SSD recipe has them, halved: ±0.25 (brightness,
            # contrast, saturation) and ±0.025 of the hue circle.
            most, hue = 0.5 * self.colour, 0.05 * self.colour
            jitter = albumentations.ColorJitter(
                brightness=(1 - most, 1 + most),
                contrast=(1 - most, 1 + most),
                saturation=(1 - most, 1 + most),
                hue=(-hue, hue),
                p=0.8,
            )
            steps.insert(0, jitter)
        return albumentations.Compose(steps)


def import_albumentations():
    """Imports albumentations without its version check, which would ask the network."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations


def _restore(values: dict) -> Augmentation:
    return Augmentation(**values)


def _paste(canvas, image, mirrored, scaled_hw, corner, method):
    """Pastes the flipped, scaled image into the canvas; returns it and the slices that were covered."""
    import cv2

    if mirrored:
        image = image[:, ::-1]
    if tuple(scaled_hw) != image.shape[:2]:
        scaled_h, scaled_w = scaled_hw
        image = cv2.resize(np.ascontiguousarray(image), (scaled_w, scaled_h), interpolation=method)
    targets, sources = [], []
    for start, scaled, canvas_side in zip(corner, scaled_hw, canvas.shape[:2], strict=True):
        targets.append(slice(max(0, start), min(canvas_side, start + scaled)))
        sources.append(slice(targets[-1].start - start, targets[-1].stop - start))
    canvas[tuple(targets)] = image[tuple(sources)]
    return canvas, tuple(targets)


def _place_labels(labels, mirrored, scaled_hw, corner, canvas_hw, fill):
    import cv2

    canvas = np.full(canvas_hw, fill, labels.dtype)
    return _paste(canvas, labels, mirrored, scaled_hw, corner, cv2.INTER_NEAREST_EXACT)


def _moved(boxes, place):
    """Returns boxes (N, 4) on the canvas, cut off at its edges, and their areas (N,) before they were cut."""
    (height, width), mirrored, scaled_hw, corner, canvas_hw = place
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4).copy()
    if mirrored:
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    boxes[:, 0::2] = boxes[:, 0::2] * (scaled_hw[1] / width) + corner[1]
    boxes[:, 1::2] = boxes[:, 1::2] * (scaled_hw[0] / height) + corner[0]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, canvas_hw[1])
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, canvas_hw[0])
    return boxes, area


def _moved_proposals(proposals, place):
    """Returns the proposals (P', 4) of which something is left on the canvas; how much does not matter."""
    boxes, _ = _moved(proposals, place)
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]


def _kept_boxes(boxes, place, min_visible):
    """Returns boxes (N, 4) on the canvas, which of them to keep (N,), and which are too hidden (N,)."""
    boxes, area = _moved(boxes, place)
    sides = boxes[:, 2:] - boxes[:, :2]  # (N, 2)
    visible = sides.prod(axis=1) / np.maximum(area, 1e-9)
    # One pixel (less rounding) is the least that any anchor or score can be computed on.
    keep = (sides > 0.999).all(axis=1)
    return boxes, keep, visible < min_visible

"""`Batches`: which samples make up batch `step` of epoch `epoch`, and the arrays they become.

Everything here is a pure function of (seed, epoch, step), numpy in and numpy out; the front ends in
`pipelines` and `keras_sequence` only carry its batches to Keras, which is why they agree to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Literal

import numpy as np

from kerasvision.data.augmentation import Augmentation
from kerasvision.data.proposals import Proposer, pad_proposals
from kerasvision.data.samples import IGNORE, Dataset, Sample
from kerasvision.ops.resizing import ResizeRule

Task = Literal["detection", "segmentation"]
PixelWeights = Callable[[np.ndarray], np.ndarray]
DEFAULT_MAX_BOXES = 100  # COCO's limit on scored detections; VOC and COCO images with more are rare
PAD_MULTIPLE = 32  # batches of unequal images are padded to it, as torchvision's are


class Batches:
    """Deterministic numpy batches of a data set. Arguments as for `kerasvision.data.pipeline`."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        task: Task,
        resize: ResizeRule,
        batch_size: int,
        training: bool = False,
        augment: Augmentation | None = None,
        seed: int = 0,
        max_boxes: int | None = None,
        drop_remainder: bool | None = None,
        cache: bool = False,
        pixel_weights: PixelWeights | None = None,
        proposals: Proposer | None = None,
    ):
        if task not in ("detection", "segmentation"):
            raise ValueError(f"`task` {task!r} is unknown; use 'detection' or 'segmentation'")
        if task not in dataset.tasks:
            raise ValueError(
                f"`task` {task!r}: the data set {dataset.name!r} has annotations for "
                f"{sorted(dataset.tasks) or 'nothing'} only"
            )
        if int(batch_size) != batch_size or batch_size < 1:
            raise ValueError(f"`batch_size` {batch_size!r} must be a positive integer")
        if pixel_weights is not None and task != "segmentation":
            raise ValueError(f"`pixel_weights` are for task='segmentation', not {task!r}; leave them out")
        if proposals is not None and task != "detection":
            raise ValueError(f"`proposals` are for task='detection', not {task!r}; leave them out")
        if len(dataset) == 0:
            raise ValueError(f"`dataset` {dataset.name!r} has no samples")
        if augment is not None and not training:
            raise ValueError("`augment` is given but training=False; evaluate on unchanged images, or pass both")
        if seed < 0:
            raise ValueError(f"`seed` {seed!r} must not be negative")
        if max_boxes is None:
            max_boxes = int(getattr(dataset, "max_boxes", None) or DEFAULT_MAX_BOXES)
        if max_boxes < 1:
            raise ValueError(f"`max_boxes` {max_boxes!r} must be a positive integer")
        self.dataset = dataset
        self.task = task
        self.resize = resize
        self.batch_size = int(batch_size)
        self.training = training
        self.augment = augment
        self.seed = int(seed)
        self.max_boxes = int(max_boxes)
        self.pixel_weights = pixel_weights
        self.proposals = proposals
        if drop_remainder is None:
            # A last batch of another size would compile the training step anew.
            drop_remainder = training and len(dataset) >= batch_size
        self.drop_remainder = bool(drop_remainder)
        if self.drop_remainder and len(dataset) < batch_size:
            raise ValueError(
                f"`batch_size` {batch_size} is above the {len(dataset)} samples of {dataset.name!r}, so "
                "drop_remainder=True leaves no batch; lower it"
            )
        # Images that keep their shape may differ in size; then a batch carries each one's valid region.
        self.padded = resize.mode != "stretch"
        self._samples: dict[int, Sample] | None = {} if cache else None
        self._order = lru_cache(maxsize=2)(self._make_order)

    def __getstate__(self):
        state = self.__dict__.copy()
        state["_order"] = None  # lru_cache cannot be pickled
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._order = lru_cache(maxsize=2)(self._make_order)

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (1 if rest and not self.drop_remainder else 0)

    def _make_order(self, epoch: int) -> np.ndarray:
        count = len(self.dataset)
        if not self.training:
            return np.arange(count)
        return np.random.default_rng((self.seed, epoch)).permutation(count)

    def indices(self, epoch: int, step: int) -> np.ndarray:
        """Indices into the data set of batch `step` of epoch `epoch`, both counted from 0."""
        if not 0 <= step < len(self):
            raise IndexError(f"`step` {step} is outside an epoch of {len(self)} batches")
        start = step * self.batch_size
        return self._order(int(epoch))[start : start + self.batch_size]

    def names(self, epoch: int, step: int) -> list[str]:
        """Names of the samples in that batch, without reading them."""
        return [self.dataset.sample_name(int(index)) for index in self.indices(epoch, step)]

    @property
    def image_dtype(self) -> type:
        """Type that loses nothing: augmented images are uint8, resized ones float32."""
        return np.float32 if self.augment is None else np.uint8

    def batch(self, epoch: int, step: int, *, dtype: type = np.float32) -> tuple:
        """Reads, augments, resizes and pads one batch.

        Args:
            epoch: counted from 0; seeds the order and the augmentation.
            step: 0 to len(self) - 1.
            dtype: of the images: float32, or `image_dtype`, which a front end casts later.

        Returns:
            (images, targets) or (images, masks, weights) of numpy arrays, as `kerasvision.data.pipeline` documents
            them.
        """
        prepared = [self._prepare(int(index), int(epoch)) for index in self.indices(epoch, step)]
        sizes_hw = np.array([image.shape[:2] for image, _ in prepared], np.int32)  # (B, 2)
        canvas_hw = self._canvas_hw(sizes_hw)
        images = np.zeros((len(prepared), *canvas_hw, 3), dtype)
        for row, (image, _) in enumerate(prepared):
            images[row, : image.shape[0], : image.shape[1]] = image
        samples = [sample for _, sample in prepared]
        named = {"images": images}
        if self.padded:
            named["sizes_hw"] = sizes_hw
        if self.proposals is not None:
            named["proposals"] = pad_proposals([s.proposals for s in samples], self.proposals.max_proposals)
        inputs = named if len(named) > 1 else images
        if self.task == "segmentation":
            masks = self._stack_masks(samples, canvas_hw)
            return (inputs, masks, *self._stack_weights(samples, canvas_hw))
        return inputs, self._stack_boxes(samples)

    def _read(self, index: int) -> Sample:
        if self._samples is None:
            return self._with_proposals(self.dataset[index])
        if index not in self._samples:
            self._samples[index] = self._with_proposals(self._without_unused(self.dataset[index]))
        return self._samples[index]

    def _with_proposals(self, sample: Sample) -> Sample:
        """Returns the sample with the proposals of its image as it is, before any change."""
        return sample if self.proposals is None else replace(sample, proposals=self.proposals(sample.image))

    def _without_unused(self, sample: Sample) -> Sample:
        """Returns the sample without its instance ids, if no weights are made of them."""
        return sample if self.pixel_weights is not None else replace(sample, instances=None)

    def _prepare(self, index: int, epoch: int) -> tuple[np.ndarray, Sample]:
        """Returns the image at network scale, float32 or uint8 (h, w, 3), and its sample at that scale."""
        sample = self._without_unused(self._read(index))
        if self.task == "detection":
            sample = replace(sample, mask=None)
        elif sample.mask is None:
            raise ValueError(f"{sample.name}: has no mask, which task='segmentation' needs")
        elif sample.mask.shape != sample.size_hw:
            raise ValueError(f"{sample.name}: mask {sample.mask.shape} and image {sample.size_hw} differ in size")
        elif self.pixel_weights is not None and sample.instances is None:
            raise ValueError(f"{sample.name}: has no instance ids, of which `pixel_weights` are made; leave them out")
        if self.augment is not None:
            sample = self.augment(sample, seed=(self.seed, epoch, index), resize=self.resize)
            return sample.image, sample
        height, width = sample.size_hw
        image = self.resize.apply(sample.image)
        scale = np.array([image.shape[1] / width, image.shape[0] / height] * 2, np.float32)
        boxes = np.asarray(sample.boxes, np.float32).reshape(-1, 4) * scale
        proposals = None if sample.proposals is None else sample.proposals * scale
        mask = None if sample.mask is None else self.resize.apply_to_mask(sample.mask)
        instances = None if sample.instances is None else self.resize.apply_to_mask(sample.instances)
        return image, replace(sample, boxes=boxes, mask=mask, instances=instances, proposals=proposals)

    def _canvas_hw(self, sizes_hw: np.ndarray) -> tuple[int, int]:
        if self.resize.size_hw is not None:
            return self.resize.size_hw
        height, width = sizes_hw.max(axis=0)
        if self.resize.mode == "none" and (sizes_hw == sizes_hw[0]).all():
            return int(height), int(width)
        up = PAD_MULTIPLE
        return int(-(-height // up) * up), int(-(-width // up) * up)

    def _stack_boxes(self, samples: list[Sample]) -> dict[str, np.ndarray]:
        count, most = len(samples), self.max_boxes
        targets = {
            "boxes": np.zeros((count, most, 4), np.float32),
            "labels": np.full((count, most), -1, np.int32),
            "ignored": np.zeros((count, most), bool),
        }
        for row, sample in enumerate(samples):
            number = len(sample.boxes)
            if number > most:
                raise ValueError(
                    f"`max_boxes` {most} is below the {number} boxes of {sample.name}; pass max_boxes={number} or more"
                )
            targets["boxes"][row, :number] = sample.boxes
            targets["labels"][row, :number] = sample.labels
            targets["ignored"][row, :number] = sample.ignored
        return targets

    def _stack_masks(self, samples: list[Sample], canvas_hw: tuple[int, int]) -> np.ndarray:
        masks = np.full((len(samples), *canvas_hw), IGNORE, np.int32)
        for row, mask in enumerate(sample.mask for sample in samples):
            assert mask is not None  # _prepare sees to it
            masks[row, : mask.shape[0], : mask.shape[1]] = mask
        return masks

    def _stack_weights(self, samples: list[Sample], canvas_hw: tuple[int, int]) -> list[np.ndarray]:
        """Returns a list of the pixels' weights (B, H, W), 0 in padding, or an empty one."""
        if self.pixel_weights is None:
            return []
        weights = np.zeros((len(samples), *canvas_hw), np.float32)
        for row, sample in enumerate(samples):
            assert sample.instances is not None  # _prepare sees to it
            height, width = sample.instances.shape
            made = np.asarray(self.pixel_weights(sample.instances))
            if made.shape != (height, width):
                raise ValueError(
                    f"{sample.name}: `pixel_weights` made weights of shape {made.shape} of instance ids "
                    f"{(height, width)}; they must be of one shape"
                )
            weights[row, :height, :width] = made
        return [weights]

"""From image files, arrays or PIL images of any size to results in each image's own pixels."""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
from keras import ops

from kerasvision.data.checks import DataError, Problem, read_image, to_rgb
from kerasvision.data.proposals import pad_proposals
from kerasvision.models.base import Detector, Segmenter, VisionModel
from kerasvision.models.compilation import compiled
from kerasvision.ops.resizing import ResizeRule
from kerasvision.ops.tiles import Tiles, count_windows, join_windows, read_window
from kerasvision.segmentation import DenseCRF, Segmentation, TestTimeAugmentation, at_own_size, reporting, softmax

__all__ = ["DenseCRF", "Detections", "ImageMeta", "Predictor", "Segmentation", "TestTimeAugmentation", "Tiles"]


@dataclass(frozen=True)
class Detections:
    """What a detector found in one image, best first.

    Args:
        name: Path of the image, or its position in the input.
        size_hw: (height, width) of the image in pixels.
        boxes: (D, 4) float32 `xyxy` in the image's own pixels.
        scores: (D,) float32 in [0, 1].
        labels: (D,) int32 0-based classes.
        class_names: Names of all classes, in label order.
    """

    name: str
    size_hw: tuple[int, int]
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self):
        return len(self.boxes)

    def to_dict(self) -> dict:
        """Return plain lists and numbers that JSON can hold, with class names beside the labels."""
        return {
            "name": self.name,
            "height": self.size_hw[0],
            "width": self.size_hw[1],
            "detections": [
                {
                    "label": int(label),
                    "class": self.class_names[label],
                    "score": float(score),
                    "box_xyxy": [float(value) for value in box],
                }
                for box, score, label in zip(self.boxes, self.scores, self.labels, strict=True)
            ],
        }


@dataclass(frozen=True)
class ImageMeta:
    """What postprocessing must know of an image: its name, its own size, and its size in the network's input.

    `pixels` is the image itself, where a CRF will look at it.
    """

    name: str
    size_hw: tuple[int, int]
    scaled_hw: tuple[int, int]
    pixels: np.ndarray | None = None


class Predictor:
    """A model with the pre- and post-processing that its weights need.

    ```python
    results = Predictor(model)(["street.jpg", array, pil_image])
    results = Predictor(segmenter, tiles=Tiles(512, overlap=128))("field.npy")   # of any size, in bounded memory
    ```

    Args:
        model: A Detector or Segmenter. One that classifies proposed boxes gets those of its `proposer`, which looks at
            the image in its own pixels.
        class_names: Names of its classes; default: the model's, else "class 0", "class 1" ...
        resize: The `ResizeRule` to apply; default: the model's, or none with `tiles`.
        batch_size: Most images, or windows of one image, that go through the network together. Only neighbours with
            the same input size do: on a larger canvas, biases of convolutions would leak in from the padding and change
            results a little.
        score_threshold: Detections that score less are left out, on top of the model's own threshold.
        palette: (C, 3) uint8 colour of each class of a segmenter, handed on with its results.
        freeze: Under TensorFlow, work out beforehand what depends on weights alone, from those of the first call, and
            on a CPU give wide 3x3 convolutions Winograd's form: about half of the time for a RetinaNet or U-Net, with
            outputs that differ by some 1e-5. Weights that are loaded or trained later need a new Predictor. Other
            backends stay as they are.
        tiles: For a segmenter: windows of the image's own pixels in place of the whole image; see `Tiles`. Beyond the
            image and its mask, memory does not grow with the image. An array or a .npy file (height, width, 3) is read
            window by window; a PNG, JPEG or TIFF file has to be decoded whole.
        augment: For a segmenter: scales and flips of each image or window; see `TestTimeAugmentation`.
        crf: For a segmenter: a last step that makes labels follow edges; see `DenseCRF`.
        probabilities: For a segmenter: whether results hold the probabilities (H, W, C) too.
        progress: With `tiles`: True for a bar on stderr where there are many windows, False for none, or a function
            that is called as ``progress(done, total)`` with numbers of windows.
    """

    def __init__(
        self,
        model: VisionModel,
        *,
        class_names: Sequence[str] | None = None,
        resize: ResizeRule | None = None,
        batch_size: int = 1,
        score_threshold: float | None = None,
        palette: np.ndarray | None = None,
        freeze: bool = False,
        tiles: Tiles | None = None,
        augment: TestTimeAugmentation | None = None,
        crf: DenseCRF | None = None,
        probabilities: bool = False,
        progress: bool | Callable[[int, int], None] = True,
    ):
        if not isinstance(model, Detector | Segmenter):
            raise ValueError(f"`model` {type(model).__name__} must be a kerasvision Detector or Segmenter")
        if batch_size < 1:
            raise ValueError(f"`batch_size` {batch_size} must be at least 1")
        if score_threshold is not None and not 0 <= score_threshold <= 1:
            raise ValueError(f"`score_threshold` {score_threshold} must be between 0 and 1")
        names = class_names or model.class_names or [f"class {label}" for label in range(model.num_classes)]
        if len(names) != model.num_classes:
            raise ValueError(f"`class_names` has {len(names)} names, but the model has {model.num_classes} classes")
        for argument, value in {"tiles": tiles, "augment": augment, "crf": crf, "probabilities": probabilities}.items():
            if value and isinstance(model, Detector):
                raise ValueError(
                    f"`{argument}` is for segmenters, but `model` {model.name} is a detector; leave it out"
                )
        if tiles is not None and resize is not None and resize.mode != "none":
            raise ValueError(
                f"`resize` {resize.mode!r} does not go with `tiles`, which are windows of the image's own pixels; "
                "leave one of them out"
            )
        self.model = model
        self.class_names = tuple(names)
        self.resize = ResizeRule("none") if tiles is not None else resize or model.resize_rule
        self.batch_size = batch_size
        self.score_threshold = score_threshold
        self.palette = palette
        self.tiles = tiles
        self.augment = augment
        self.crf = crf
        self.probabilities = probabilities
        self.progress = progress
        self._network = compiled(lambda inputs: model(inputs, training=False), model, freeze=freeze)
        self._decode = compiled(model.decode, model) if isinstance(model, Detector) else None

    def __call__(self, source) -> list:
        """Return one `Detections` or `Segmentation` for each image of `source`.

        Args:
            source: One or a list of: a path, an array (H, W, 3) or (H, W), uint8 or float in 0-255, a PIL image. An
                array (B, H, W, 3) counts as a list.

        Raises:
            DataError: A file that is missing, damaged or no image.
            ValueError: Something that is no image.
        """
        return list(self.stream(source))

    def stream(self, source) -> Iterator:
        """Yield the results one by one, holding one batch of images at a time."""
        items = [source] if _is_one_image(source) else source
        at_once = self.batch_size if self.tiles is None else 1
        names: list[str] = []
        images: list[np.ndarray] = []
        for index, item in enumerate(items):
            image = self.read(item)
            if images and self._canvas_of(image) != self._canvas_of(images[0]):
                yield from self.predict(images, names)
                names, images = [], []
            names.append(_name_of(item, index))
            images.append(image)
            if len(images) == at_once:
                yield from self.predict(images, names)
                names, images = [], []
        if images:
            yield from self.predict(images, names)

    def _canvas_of(self, image):
        return self.resize.canvas_hw(*image.shape[:2])

    def read(self, item) -> np.ndarray:
        """Return one image as an array (H, W, 3), uint8 or float32, 0-255.

        Files are decoded, and turned as their EXIF orientation says; the pixels of a PIL image are left as they are. A
        .npy file is mapped into memory. With `tiles`, arrays and .npy files stay as they are, grey ones (H, W), to be
        read and checked window by window.
        """
        if isinstance(item, str | os.PathLike):
            path = Path(item)
            image = _mapped_array(path) if path.suffix.lower() == ".npy" else read_image(path, upright=True)
        elif hasattr(item, "convert") and hasattr(item, "mode"):  # PIL, which need not be imported for this
            image = to_rgb(item)
        else:
            image = np.asarray(item)
        if image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or 0 in image.shape:
            raise ValueError(
                f"`source` holds an array of shape {image.shape}, expected (height, width, 3) RGB or (height, width)"
            )
        if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
            raise ValueError(f"`source` holds an array of {image.dtype}; convert it to uint8 or float in 0-255")
        return image if self.tiles is not None else _pixels(image)

    def predict(self, images: Sequence[np.ndarray], names: Sequence[str] | None = None) -> list:
        """Return the results for images that have been read.

        Args:
            images: Arrays as `read` returns them. Neighbours of the same input size go through the network together.
            names: Names for the results; default: their positions.
        """
        names = [str(index) for index in range(len(images))] if names is None else names
        if self.tiles is not None:
            return [self._join_tiles(image, name) for name, image in zip(names, images, strict=True)]
        results = []
        for _, group in itertools.groupby(zip(names, images, strict=True), key=lambda entry: self._canvas_of(entry[1])):
            its_names, its_images = zip(*group, strict=True)
            if self.augment is None:
                inputs, metas = self.preprocess(its_images, its_names)
                results += self.postprocess(self.network(inputs), inputs, metas)
            else:
                values = zip(its_names, self._values(its_images), strict=True)
                results += [self._segmentation(name, part) for name, part in values]
        return results

    def segment(self, source, *, out: np.ndarray | None = None) -> Segmentation:
        """Return the `Segmentation` of one image, its mask written into an array of the caller's.

        Args:
            source: One image, as for a call.
            out: (H, W) of an integer type that holds the classes, such as ``np.memmap`` for a mask that is larger than
                memory; ``None`` for a new array.

        Raises:
            ValueError: A detector, several images, or an `out` that does not fit.
        """
        if self._decode is not None or not _is_one_image(source):
            what = f"a detector, {self.model.name}" if self._decode is not None else f"a {type(source).__name__}"
            raise ValueError(f"`segment` takes one image and a segmenter, not {what}; call the Predictor itself")
        image, name = self.read(source), _name_of(source, 0)
        size_hw = image.shape[:2]
        if out is not None and (
            out.shape != size_hw
            or not np.issubdtype(out.dtype, np.integer)
            or np.iinfo(out.dtype).max < self.model.num_classes - 1
        ):
            raise ValueError(
                f"`out` of shape {out.shape} and type {out.dtype} must be {size_hw}, the image's height and width, of "
                f"an integer type that holds {self.model.num_classes} classes"
            )
        if self.tiles is not None:
            return self._join_tiles(image, name, out)
        (result,) = self.predict([image], [name])
        if out is None:
            return result
        out[...] = result.mask
        return replace(result, mask=out)

    # -- The stages of an image that is seen once and whole -----------------------------------------------------------

    def preprocess(self, images: Sequence[np.ndarray], names: Sequence[str] | None = None, *, scale: float = 1.0):
        """Resize images by the rule and put them into one batch.

        Args:
            images: Arrays (H, W, 3).
            names: Names for the results; default: their positions.
            scale: Factor of the height and width that the rule gives, rounded to pixels.

        Returns:
            (inputs, metas): what `network` takes, and one `ImageMeta` an image.
        """
        names = [str(index) for index in range(len(images))] if names is None else names
        scaled = [self._scaled(image, scale) for image in images]
        canvases = [_times(self._canvas_of(image), scale) for image in images]
        height, width = (max(canvas[axis] for canvas in canvases) for axis in (0, 1))
        metas = [
            ImageMeta(name, image.shape[:2], small.shape[:2], image if self.crf is not None else None)
            for name, image, small in zip(names, images, scaled, strict=True)
        ]
        proposals = {} if self.model.proposer is None else {"proposals": self._proposals(images, metas)}
        if all(small.shape[:2] == (height, width) for small in scaled):
            batch = ops.convert_to_tensor(scaled[0][None] if len(scaled) == 1 else np.stack(scaled))
            return {"images": batch, **proposals} if proposals else batch, metas
        batch = np.zeros((len(scaled), height, width, 3), np.float32)
        for canvas, small in zip(batch, scaled, strict=True):
            canvas[: small.shape[0], : small.shape[1]] = small
        sizes_hw = np.array([small.shape[:2] for small in scaled], np.int32)
        inputs = {"images": ops.convert_to_tensor(batch), "sizes_hw": ops.convert_to_tensor(sizes_hw), **proposals}
        return inputs, metas

    def _proposals(self, images, metas):
        """Return (B, P, 4) boxes that the model's proposer finds in the images, in pixels of the network's input."""
        found = []
        for image, meta in zip(images, metas, strict=True):
            factors = [meta.scaled_hw[1] / meta.size_hw[1], meta.scaled_hw[0] / meta.size_hw[0]] * 2
            found.append(self.model.proposer(image) * np.array(factors, np.float32))
        return ops.convert_to_tensor(pad_proposals(found, self.model.proposer.max_proposals))

    def _scaled(self, image, scale):
        """Return an image (H, W, 3) as float32 at the rule's size times `scale`, from its own pixels in one step."""
        if scale == 1:
            return self.resize.apply(image)
        size_hw = _times(self.resize.scaled_hw(*image.shape[:2]), scale)
        return ResizeRule("stretch", size_hw=size_hw, antialias=self.resize.antialias).apply(image)

    def network(self, inputs):
        """Run the network: raw outputs of a detector, logits (B, H, W, C) of a segmenter."""
        return self._network(inputs)

    def postprocess(self, raw, inputs, metas: Sequence[ImageMeta]) -> list:
        """Turn raw outputs into results in each image's own pixels.

        Raises:
            ValueError: With `tiles` or `augment`, for which an image is more than one input.
        """
        if self.tiles is not None or self.augment is not None:
            raise ValueError("`postprocess` cannot join several views of an image; call predict(images) instead")
        if self._decode is None:
            values = self._at_own_size(raw, metas)
            return [
                self._segmentation(meta.name, self._refined(meta.pixels, part))
                for meta, part in zip(metas, values, strict=True)
            ]
        decoded = keras.tree.map_structure(ops.convert_to_numpy, self._decode(raw, inputs))
        return [
            self._detections({name: values[index] for name, values in decoded.items()}, meta)
            for index, meta in enumerate(metas)
        ]

    def _detections(self, decoded: dict, meta: ImageMeta) -> Detections:
        kept = decoded["labels"] >= 0
        if self.score_threshold is not None:
            kept &= decoded["scores"] >= self.score_threshold
        height, width = meta.size_hw
        factors = np.array([width / meta.scaled_hw[1], height / meta.scaled_hw[0]] * 2, np.float32)
        boxes = (decoded["boxes"][kept] * factors).clip(0, np.array([width, height] * 2, np.float32))
        return Detections(
            name=meta.name,
            size_hw=meta.size_hw,
            boxes=boxes.astype(np.float32),
            scores=decoded["scores"][kept].astype(np.float32),
            labels=decoded["labels"][kept].astype(np.int32),
            class_names=self.class_names,
        )

    # -- What a segmenter's pixels go through; `values` are logits or, behind a mean or a CRF, probabilities -----------

    def _values(self, images) -> list[np.ndarray]:
        """Return values (H, W, C) of each image; all have the same input size."""
        values = self._logits(images) if self.augment is None else self.augment.merged(images, self._logits)
        return [self._refined(image, part) for image, part in zip(images, values, strict=True)]

    def _logits(self, images, scale=1.0):
        inputs, metas = self.preprocess(images, scale=scale)
        return self._at_own_size(self.network(inputs), metas)

    def _at_own_size(self, raw, metas):
        margins_hw = (0, 0) if self.tiles is None else self.tiles.margins_hw
        return [
            at_own_size(logits, meta.scaled_hw, meta.size_hw, margins_hw)
            for logits, meta in zip(ops.convert_to_numpy(raw), metas, strict=True)
        ]

    @property
    def _merges_logits(self):
        return self.augment is None or self.augment.merge == "max"

    def _refined(self, image, values):
        return values if self.crf is None else self.crf(image, values, from_logits=self._merges_logits)

    def _as_probabilities(self, values):
        return softmax(values) if self.crf is None and self._merges_logits else values

    def _segmentation(self, name: str, values: np.ndarray) -> Segmentation:
        probabilities = self._as_probabilities(values) if self.probabilities else None
        mask = values.argmax(axis=-1).astype(np.int32)
        return Segmentation(name, mask.shape, mask, self.class_names, self.palette, probabilities)

    def _join_tiles(self, image: np.ndarray, name: str, mask: np.ndarray | None = None) -> Segmentation:
        """Segment an image window by window, and write each row of the mask as soon as it is finished."""
        assert self.tiles is not None
        size_hw, classes = image.shape[:2], self.model.num_classes
        if mask is None:
            mask = np.empty(size_hw, np.uint8 if classes <= 256 else np.uint16)
        probabilities = np.empty((*size_hw, classes), np.float32) if self.probabilities else None
        with reporting(self.progress, count_windows(size_hw, self.tiles, classes)) as report:

            def values_of(windows):
                for first in range(0, len(windows), self.batch_size):
                    pixels = [_pixels(read_window(image, *part)) for part in windows[first : first + self.batch_size]]
                    for _, group in itertools.groupby(pixels, key=lambda window: window.shape):
                        yield from self._values(list(group))
                    report(len(pixels))

            for rows, columns, values in join_windows(size_hw, self.tiles, classes, values_of):
                mask[rows, columns] = values.argmax(axis=-1)
                if probabilities is not None:
                    probabilities[rows, columns] = self._as_probabilities(values)
        return Segmentation(name, size_hw, mask, self.class_names, self.palette, probabilities)


def _name_of(item, index: int) -> str:
    """Return what a result is called: its image's path, or the position in the input."""
    return os.fspath(item) if isinstance(item, str | os.PathLike) else str(index)


def _mapped_array(path: Path) -> np.ndarray:
    """Return a .npy file as an array whose parts are read when they are looked at."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(Problem(os.fspath(path), "", "file is missing")) from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(Problem(os.fspath(path), "", f"is no .npy file of numbers, or is cut off ({error})")) from None


def _pixels(image: np.ndarray) -> np.ndarray:
    """Return an image or a part of it as (H, W, 3), uint8 or float32.

    Raises:
        ValueError: Pixels that are NaN or infinite.
    """
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)  # (H, W, 3)
    if image.dtype == np.uint8:
        return image
    if not np.isfinite(image).all():
        raise ValueError("`source` holds an array with NaN or infinite pixels; give finite values in 0-255")
    return image.astype(np.float32)


def _times(size_hw: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return a size times a scale in whole pixels, at least 1."""
    height, width = (max(1, int(side * scale + 0.5)) for side in size_hw)  # rounded as mmseg's image library does
    return height, width


def _is_one_image(source) -> bool:
    """Tell a single image from a sequence of them."""
    if isinstance(source, str | os.PathLike) or hasattr(source, "convert"):
        return True
    return hasattr(source, "ndim") and source.ndim < 4

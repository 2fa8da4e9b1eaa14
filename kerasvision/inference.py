"""From image files, arrays or PIL images of any size to results in each image's own pixels."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import ops

from kerasvision.data.checks import read_image, to_rgb
from kerasvision.models.base import Detector, Segmenter, VisionModel
from kerasvision.ops.resizing import ResizeRule


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
class Segmentation:
    """What a segmenter saw in one image.

    Args:
        name: Path of the image, or its position in the input.
        size_hw: (height, width) of the image in pixels.
        mask: (H, W) int32 class of each pixel.
        class_names: Names of all classes, in label order.
        palette: (C, 3) uint8 colour of each class, if the `Predictor` was given one.
    """

    name: str
    size_hw: tuple[int, int]
    mask: np.ndarray
    class_names: tuple[str, ...]
    palette: np.ndarray | None = None

    def to_dict(self) -> dict:
        """Return the share of the image's pixels of each class that occurs, largest first."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.class_names))
        present = sorted(np.flatnonzero(counts), key=lambda label: -counts[label])
        return {
            "name": self.name,
            "height": self.size_hw[0],
            "width": self.size_hw[1],
            "classes": [
                {
                    "label": int(label),
                    "class": self.class_names[label],
                    "share": float(counts[label] / self.mask.size),
                }
                for label in present
            ],
        }


@dataclass(frozen=True)
class ImageMeta:
    """What postprocessing must know of an image: its name, its own size, and its size in the network's input."""

    name: str
    size_hw: tuple[int, int]
    scaled_hw: tuple[int, int]


class Predictor:
    """A model with the pre- and post-processing that its weights need.

    ```python
    results = Predictor(model)(["street.jpg", array, pil_image])
    ```

    Args:
        model: A Detector or Segmenter.
        class_names: Names of its classes; default: the model's, else "class 0", "class 1" ...
        resize: The `ResizeRule` to apply; default: the model's.
        batch_size: Most images that go through the network together. Only neighbours with the same input size do: on
            a larger canvas, biases of convolutions would leak in from the padding and change results a little.
        score_threshold: Detections that score less are left out, on top of the model's own threshold.
        palette: (C, 3) uint8 colour of each class of a segmenter, handed on with its results.
        freeze: Under TensorFlow, build the weights of the first call into the graph as constants: faster, but weights
            that are loaded or trained later need a new Predictor. Other backends gain nothing and stay as they are.
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
        self.model = model
        self.class_names = tuple(names)
        self.resize = resize or model.resize_rule
        self.batch_size = batch_size
        self.score_threshold = score_threshold
        self.palette = palette
        self._network = _compiled(lambda inputs: model(inputs, training=False), model, freeze=freeze)
        self._decode = _compiled(model.decode, model) if isinstance(model, Detector) else None

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
        batch: list[tuple[str, np.ndarray]] = []
        for index, item in enumerate(items):
            name = os.fspath(item) if isinstance(item, str | os.PathLike) else str(index)
            image = self.read(item)
            if batch and self._canvas_of(image) != self._canvas_of(batch[0][1]):
                yield from self._predict(batch)
                batch = []
            batch.append((name, image))
            if len(batch) == self.batch_size:
                yield from self._predict(batch)
                batch = []
        if batch:
            yield from self._predict(batch)

    def _canvas_of(self, image):
        return self.resize.canvas_hw(*image.shape[:2])

    def _predict(self, batch):
        names, images = zip(*batch, strict=True)
        inputs, metas = self.preprocess(images, names)
        return self.postprocess(self.network(inputs), inputs, metas)

    def read(self, item) -> np.ndarray:
        """Return one image as an array (H, W, 3), uint8 or float32, 0-255.

        Files are decoded, and turned as their EXIF orientation says; the pixels of a PIL image are left as they are.
        """
        if isinstance(item, str | os.PathLike):
            return read_image(Path(item), upright=True)
        if hasattr(item, "convert") and hasattr(item, "mode"):  # PIL, which need not be imported for this
            return to_rgb(item)
        image = np.asarray(item)
        if image.ndim == 2:
            image = np.repeat(image[:, :, None], 3, axis=2)  # (H, W, 3)
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(
                f"`source` holds an array of shape {image.shape}, expected (height, width, 3) RGB or (height, width)"
            )
        if image.dtype == np.uint8:
            return image
        if not np.issubdtype(image.dtype, np.floating):
            raise ValueError(f"`source` holds an array of {image.dtype}; convert it to uint8 or float in 0-255")
        if not np.isfinite(image).all():
            raise ValueError("`source` holds an array with NaN or infinite pixels; give finite values in 0-255")
        return image.astype(np.float32)

    def preprocess(self, images: Sequence[np.ndarray], names: Sequence[str] | None = None):
        """Resize images by the rule and put them into one batch.

        Args:
            images: Arrays (H, W, 3).
            names: Names for the results; default: their positions.

        Returns:
            (inputs, metas): what `network` takes, and one `ImageMeta` an image.
        """
        names = [str(index) for index in range(len(images))] if names is None else names
        scaled = [self.resize.apply(image) for image in images]
        canvases = [self.resize.canvas_hw(*image.shape[:2]) for image in images]
        height, width = (max(canvas[axis] for canvas in canvases) for axis in (0, 1))
        metas = [
            ImageMeta(name, image.shape[:2], small.shape[:2])
            for name, image, small in zip(names, images, scaled, strict=True)
        ]
        if all(small.shape[:2] == (height, width) for small in scaled):
            batch = scaled[0][None] if len(scaled) == 1 else np.stack(scaled)
            return ops.convert_to_tensor(batch), metas
        batch = np.zeros((len(scaled), height, width, 3), np.float32)
        for canvas, small in zip(batch, scaled, strict=True):
            canvas[: small.shape[0], : small.shape[1]] = small
        sizes_hw = np.array([small.shape[:2] for small in scaled], np.int32)
        return {"images": ops.convert_to_tensor(batch), "sizes_hw": ops.convert_to_tensor(sizes_hw)}, metas

    def network(self, inputs):
        """Run the network: raw outputs of a detector, logits (B, H, W, C) of a segmenter."""
        return self._network(inputs)

    def postprocess(self, raw, inputs, metas: Sequence[ImageMeta]) -> list:
        """Turn raw outputs into results in each image's own pixels."""
        if self._decode is None:
            logits = ops.convert_to_numpy(raw)
            return [self._segmentation(logits[index], meta) for index, meta in enumerate(metas)]
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

    def _segmentation(self, logits: np.ndarray, meta: ImageMeta) -> Segmentation:
        logits = logits[: meta.scaled_hw[0], : meta.scaled_hw[1]]
        if meta.scaled_hw != meta.size_hw:
            # Logits are interpolated, not labels: boundaries stay smooth where the image was shrunk.
            import cv2

            height, width = meta.size_hw
            logits = cv2.resize(logits.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
            logits = logits.reshape(height, width, -1)  # OpenCV drops a last axis of one class
        mask = logits.argmax(axis=-1).astype(np.int32)
        return Segmentation(meta.name, meta.size_hw, mask, self.class_names, self.palette)


# Frozen graphs hold a copy of the weights each.
_GRAPHS_OF_ONE_SIZE = 2


def _is_one_image(source) -> bool:
    """Tell a single image from a sequence of them."""
    if isinstance(source, str | os.PathLike) or hasattr(source, "convert"):
        return True
    return hasattr(source, "ndim") and source.ndim < 4


def _compiled(function, model, *, freeze=False):
    """Compile a function of tensors that uses a model's variables, as the backend does it.

    Unless frozen, variables are read at each call, so weights may be loaded or trained in between.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        # Images of many sizes must not mean a graph for each: from the second size on, sizes are left open.
        return _frozen_graph(function) if freeze else tf.function(function, reduce_retracing=True)
    if backend == "jax":
        import jax

        @jax.jit
        def stateless(state, *arguments):
            with keras.StatelessScope(state_mapping=list(zip(model.variables, state, strict=True))):
                return function(*arguments)

        return lambda *arguments: stateless([variable.value for variable in model.variables], *arguments)
    if backend == "torch":
        import torch

        return torch.inference_mode()(function)
    return function


def _frozen_graph(function):
    """Compile a function for TensorFlow, with the variables' values of its first call built in as constants.

    Constants let TensorFlow fold normalisation into kernels once, and lay kernels out for the processor once, instead
    of at every call: RetinaNet R50-FPN takes 0.85 of the time. The first sizes of input get a graph each, where more
    can be fused; one graph serves all other sizes.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    traced = tf.function(function)
    graphs = {}

    def call(*arguments):
        tensors = tf.nest.flatten(arguments)
        specs = tf.nest.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), arguments)
        if str(specs) not in graphs and len(graphs) >= _GRAPHS_OF_ONE_SIZE:
            specs = tf.nest.map_structure(_of_any_size, specs)
        key = str(specs)
        if key not in graphs:
            concrete = traced.get_concrete_function(*specs)
            graphs[key] = convert_variables_to_constants_v2(concrete), concrete.structured_outputs
        graph, structure = graphs[key]
        return tf.nest.pack_sequence_as(structure, tf.nest.flatten(graph(*tensors)))

    return call


def _of_any_size(spec):
    """Leave all but the last axis of a tensor's specification open."""
    return type(spec)([None] * (spec.shape.rank - 1) + spec.shape[-1:], spec.dtype)

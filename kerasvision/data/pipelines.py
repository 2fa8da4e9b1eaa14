"""`pipeline`: from a `Dataset` to the batches that `model.fit`, `evaluate` and `predict` take."""

from __future__ import annotations

import os
from typing import Literal

import numpy as np

from kerasvision.data.augmentation import Augmentation
from kerasvision.data.batching import Batches, PixelWeights, Task
from kerasvision.data.proposals import Proposer
from kerasvision.data.samples import Dataset
from kerasvision.ops.resizing import ResizeRule


def pipeline(
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
    workers: int | None = None,
    framework: Literal["tf", "pydataset"] | None = None,
):
    """Builds the input of `fit`, `evaluate` and `predict`: batches, deterministic for a seed.

    Batch `step` of epoch `epoch` depends on (seed, epoch, step) alone, whatever the framework, the number
    of workers and the platform's thread timing. Training shuffles anew in every epoch.

    The result is a `tf.data.Dataset` under Keras's TensorFlow backend and a `keras.utils.PyDataset` under
    the others. Both are iterated over again for each epoch, have `len()` and `cardinality()` (batches), and

    - `batch_names(epoch, step)`: the names of the samples in a batch;
    - `set_epoch(epoch)`: the next iteration is that epoch (0-based). Iterating counts up by itself; a
      callback that calls this at the start of each epoch is exact even if somebody looked at a batch before;
    - `batches`: the `Batches` behind it (`dataset`, `task`, `resize`, `batch_size`, `max_boxes` …);
    - `failure`: the last error while reading, as it was before TensorFlow wrapped it; None without one.

    An epoch counts as soon as an iteration over it starts.

    Args:
        dataset: what `kerasvision.data.load` returns.
        task: "detection" or "segmentation"; annotations of another task are not read (`Dataset.for_task`).
        resize: how images reach the network's size; the weights' or the model's rule.
        batch_size: samples per batch.
        training: shuffle, and drop a last short batch.
        augment: random changes; only with `training=True`.
        seed: non-negative integer.
        max_boxes: M, the static number of box rows; default the data set's largest number of boxes where
            it knows it, else 100.
        drop_remainder: drop the last batch if it is short; default: when training and there is a full one.
        cache: keep decoded samples in memory (3 bytes a pixel, 4 with masks) after the first epoch.
        pixel_weights: for segmentation: a function from a sample's instance ids, (H, W) integers at the network's
            scale, to the weights of its pixels (H, W), such as `kerasvision.losses.unet_weight_map`. It runs in the
            threads that prepare batches.
        proposals: for detection: what proposes boxes for an image, such as `CachedProposals(model.proposer)`; for
            models that classify boxes which something else proposes.
        workers: threads that prepare batches; default one per CPU core, at most 8. 0 (PyDataset only):
            none.
        framework: "tf" or "pydataset" instead of the backend's.

    Returns:
        Elements for detection: `(images, {"boxes": (B, M, 4) float32 xyxy pixels of the network input,
        "labels": (B, M) int32, -1 = padding, "ignored": (B, M) bool})`; for segmentation: `(images,
        masks (B, H, W) int32, 255 = ignore and padding)`, with `pixel_weights` `(images, masks, weights
        (B, H, W) float32, 0 in padding)`, which `fit` applies to a loss given to `compile`. `images` is
        (B, H, W, 3) float32, 0-255; with a rule that keeps the aspect ratio it is `{"images": …, "sizes_hw":
        (B, 2) int32}`, the valid region of each, and padding (zeros) lies at the bottom and the right: models
        blank what is outside `sizes_hw` after normalisation, where zero is no longer black. Batches of unequal
        images are padded to multiples of 32. With `proposals` it is such a dict with any rule, and holds
        "proposals" too, (B, P, 4) float32 xyxy pixels of the network input, best first, -1 = padding, P being
        `proposals.max_proposals`: they went through the same resize, flip, scale and crop as the boxes.

    Raises:
        ValueError: an argument out of range, a data set without annotations for the task or without
            samples; later, while reading, more boxes than `max_boxes`, or no instance ids for
            `pixel_weights`, naming the sample.
        DataError: while reading: a file that cannot be decoded.
    """
    if framework is None:
        import keras

        framework = "tf" if keras.config.backend() == "tensorflow" else "pydataset"
    if framework not in ("tf", "pydataset"):
        raise ValueError(f"`framework` {framework!r} is unknown; use 'tf' or 'pydataset'")
    if workers is None:
        workers = min(8, os.cpu_count() or 1)
    if workers < 0:
        raise ValueError(f"`workers` {workers!r} must not be negative")
    batches = Batches(
        dataset if pixel_weights is not None else dataset.for_task(task),  # which may leave out instance ids
        task=task,
        resize=resize,
        batch_size=batch_size,
        training=training,
        augment=augment,
        seed=seed,
        max_boxes=max_boxes,
        drop_remainder=drop_remainder,
        cache=cache,
        pixel_weights=pixel_weights,
        proposals=proposals,
    )
    if framework == "tf":
        return _as_tf_dataset(batches, max(1, workers))
    from kerasvision.data.keras_sequence import BatchSequence

    return BatchSequence(batches, workers=workers)


class _EpochCounter:
    """Hands out epoch numbers, one per started iteration."""

    def __init__(self):
        self.next_epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.next_epoch = int(epoch)

    def start(self) -> np.int64:
        self.next_epoch += 1
        return np.int64(self.next_epoch - 1)


def _as_tf_dataset(batches: Batches, workers: int):
    import tensorflow as tf

    counter = _EpochCounter()
    steps = len(batches)
    signature = _tf_signature(batches)
    flat_signature = tf.nest.flatten(signature)

    def steps_of_epoch(_):
        # Stateful, so it runs once for every iteration: that is what counts epochs.
        epoch = tf.numpy_function(counter.start, [], tf.int64)
        return tf.data.Dataset.range(steps).map(lambda step: (epoch, step))

    def read(epoch, step):
        try:
            return tf.nest.flatten(batches.batch(int(epoch), int(step), dtype=batches.image_dtype))
        except Exception as error:
            # TensorFlow turns it into an OpError of its own; callers that want the first one find it here.
            dataset.failure = error
            raise

    def make(epoch, step):
        arrays = tf.numpy_function(
            read,
            [epoch, step],
            [spec.dtype for spec in flat_signature],
            stateful=False,
        )
        for array, spec in zip(arrays, flat_signature, strict=True):
            array.set_shape(spec.shape)
        # uint8 up to here: the copy out of numpy is what limits the speed.
        arrays = [tf.cast(array, tf.float32) if array.dtype == tf.uint8 else array for array in arrays]
        return tf.nest.pack_sequence_as(signature, arrays)

    dataset = tf.data.Dataset.from_tensors(0).flat_map(steps_of_epoch)
    dataset = dataset.map(make, num_parallel_calls=workers, deterministic=True)
    dataset = dataset.prefetch(2).apply(tf.data.experimental.assert_cardinality(steps))
    options = tf.data.Options()
    # Batches are already put together in numpy; sharding them by file is never right here.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    dataset = dataset.with_options(options)
    dataset.failure = None
    dataset.batches = batches
    dataset.batch_names = batches.names
    dataset.set_epoch = counter.set_epoch
    return dataset


def _tf_signature(batches: Batches):
    import tensorflow as tf

    size = batches.batch_size if batches.drop_remainder or len(batches.dataset) % batches.batch_size == 0 else None
    height, width = batches.resize.size_hw or (None, None)
    images = tf.TensorSpec((size, height, width, 3), tf.as_dtype(np.dtype(batches.image_dtype).name))
    named = {"images": images}
    if batches.padded:
        named["sizes_hw"] = tf.TensorSpec((size, 2), tf.int32)
    if batches.proposals is not None:
        named["proposals"] = tf.TensorSpec((size, batches.proposals.max_proposals, 4), tf.float32)
    inputs = named if len(named) > 1 else images
    if batches.task == "segmentation":
        masks = tf.TensorSpec((size, height, width), tf.int32)
        if batches.pixel_weights is None:
            return inputs, masks
        return inputs, masks, tf.TensorSpec((size, height, width), tf.float32)
    targets = {
        "boxes": tf.TensorSpec((size, batches.max_boxes, 4), tf.float32),
        "labels": tf.TensorSpec((size, batches.max_boxes), tf.int32),
        "ignored": tf.TensorSpec((size, batches.max_boxes), tf.bool),
    }
    return inputs, targets

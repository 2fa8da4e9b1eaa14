"""Targets as users have them: ragged ones become padded, and class ids that no model has are refused or blanked.

Outside of a graph a wrong class id is an error that names it. Inside nothing can be raised, so there it is taken out,
counted, and makes the loss NaN.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from kerasvision.ops.compilers import known_value
from kerasvision.ops.labels import no_class, whole_labels

# Rows that a batch's boxes are padded to a multiple of, so that batches of many counts share a few compiled functions.
ROWS = 16
_FILLERS = {"boxes": 0.0, "labels": -1, "ignored": False}
_DTYPES = {"boxes": "float32", "labels": "int32", "ignored": "bool"}


def pad_targets(targets):
    """Return a detector's targets as arrays of one length a batch, padded with label -1.

    Args:
        targets: dict of `boxes`, `labels` and perhaps `ignored`, each a list with one array an image, (N, 4) and (N,);
            or a `tf.RaggedTensor`; or an array or tensor already, which is left as it is.

    Returns:
        dict of the same keys; what was ragged has as many rows as the fullest image, rounded up to a multiple of 16.

    Raises:
        ValueError: No such dict, or other numbers of boxes and labels for an image.
    """
    if not isinstance(targets, dict) or not {"boxes", "labels"} <= targets.keys():
        got = f"a dict of {sorted(targets)}" if isinstance(targets, dict) else f"a {type(targets).__name__}"
        raise ValueError(f"`targets` is {got}; a detector takes a dict of 'boxes' (B, M, 4) and 'labels' (B, M)")
    rows = {name: _rows(name, value) for name, value in targets.items() if _is_listed(value)}
    if rows:
        name, counts = next((name, [len(row) for row in values]) for name, values in rows.items())
        for other, values in rows.items():
            if [len(row) for row in values] != counts:
                raise ValueError(
                    f"`{other}` has {[len(row) for row in values]} rows for the images of the batch, but `{name}` has "
                    f"{counts}; give one label for each box"
                )
    padded = {name: _stacked(name, values) for name, values in rows.items()}
    return {
        name: padded[name] if name in padded else _padded_in_graph(name, value) if _is_ragged(value) else value
        for name, value in targets.items()
    }


def pad_batches(dataset):
    """Return a tf.data.Dataset with its ragged targets padded; anything else as it is."""
    if not any(hasattr(spec, "ragged_rank") for spec in keras.tree.flatten(getattr(dataset, "element_spec", None))):
        return dataset
    return dataset.map(lambda images, targets, *rest: (images, pad_targets(targets), *rest))


def refuse_lists(targets):
    """Raise a ValueError if a batch's targets are lists of arrays, which a compiled step cannot take."""
    if isinstance(targets, dict) and any(isinstance(value, list | tuple) for value in targets.values()):
        raise ValueError(
            "`x` yields a list with one array an image as targets, which a compiled step cannot take; yield "
            "kerasvision.models.pad_targets(targets), a tf.data.Dataset of ragged tensors, or use the PyTorch backend"
        )


def check_boxes(targets, num_classes):
    """Check a detector's padded targets as far as their values are known.

    Raises:
        ValueError: Shapes that do not belong together, or a label that is not below `num_classes`.
    """
    boxes, labels = tuple(targets["boxes"].shape), tuple(targets["labels"].shape)
    fits = len(boxes) == 3 and len(labels) == 2 and boxes[2] in (4, None)
    if not fits or any(None not in pair and pair[0] != pair[1] for pair in zip(boxes, labels, strict=False)):
        raise ValueError(
            f"`boxes` of shape {boxes} and `labels` of shape {labels} must be (batch, boxes, 4) and (batch, boxes); "
            "pad images with fewer boxes with label -1, or give lists of arrays"
        )
    labels, ignored = known_value(targets["labels"]), known_value(targets.get("ignored", False))
    if labels is None or ignored is None:
        return
    wrong = np.argwhere((labels >= num_classes) & ~ignored.astype(bool))
    if len(wrong):
        image, box = wrong[0]
        raise ValueError(
            f"`labels` holds {labels[image, box]} (image {image}, box {box}; {len(wrong)} such in all), but the model "
            f"has {num_classes} classes, 0 to {num_classes - 1}, and -1 for padding; map the data set's class ids, or "
            f"build the model with num_classes={labels.max() + 1}"
        )


def check_masks(masks, num_classes, ignore_class):
    """Check the class ids of a segmenter's masks, if their values are known.

    Raises:
        ValueError: An id that is neither a class nor `ignore_class`, such as one that is no whole number.
    """
    masks = known_value(masks)
    if masks is None:
        return
    wrong = ~((masks >= 0) & (masks < num_classes))  # NaN is wrong
    if masks.dtype.kind == "f":
        wrong |= masks != np.floor(masks)
    if ignore_class is not None:
        wrong &= masks != ignore_class
    if wrong.any():
        ids = np.unique(masks[wrong])
        listed = ", ".join(f"{value:g}" for value in ids[:5]) + (" ..." if len(ids) > 5 else "")
        ignored = "nothing is ignored by the loss" if ignore_class is None else f"{ignore_class} is ignored"
        raise ValueError(
            f"`masks` holds the class ids {listed} in {int(wrong.sum())} pixels, but the model has {num_classes} "
            f"classes, 0 to {num_classes - 1}, and {ignored}; map the data set's ids first"
        )


def screen_boxes(targets, num_classes):
    """Return a detector's targets without labels that no class has, and the number of those; works in a graph."""
    labels = ops.cast(targets["labels"], "int32")
    wrong = labels >= num_classes
    screened = {**targets, "labels": ops.where(wrong, -1, labels)}
    if "ignored" in targets:
        wrong = ops.logical_and(wrong, ops.logical_not(ops.cast(targets["ignored"], "bool")))
    return screened, ops.sum(ops.cast(wrong, "int32"))


def trained_boxes(targets):
    """Return what a detector is trained on, of its padded targets.

    Returns:
        boxes (B, M, 4) float32; labels (B, M) int32; and bool (B, M), False for padding and for ignored boxes.
    """
    labels = ops.cast(targets["labels"], "int32")
    valid = labels >= 0
    if "ignored" in targets:
        valid = ops.logical_and(valid, ops.logical_not(ops.cast(targets["ignored"], "bool")))
    return ops.cast(targets["boxes"], "float32"), labels, valid


def screen_masks(masks, num_classes, ignore_class, *, stand_in):
    """Return masks with `stand_in` for ids that are neither a class nor ignored, and the number of those pixels."""
    masks = ops.convert_to_tensor(masks)
    if "int" not in keras.backend.standardize_dtype(masks.dtype):
        masks = whole_labels(masks, otherwise=no_class(ignore_class))
    wrong = ops.logical_or(masks < 0, masks >= num_classes)
    if ignore_class is not None:
        wrong = ops.logical_and(wrong, masks != ignore_class)
    return ops.where(wrong, ops.cast(stand_in, masks.dtype), masks), ops.sum(ops.cast(wrong, "int32"))


def _is_ragged(value):
    return hasattr(value, "row_splits")


def _is_listed(value):
    """Return whether rows can be told apart here: a list with an array for each image, or an eager RaggedTensor."""
    return isinstance(value, list | tuple) or (_is_ragged(value) and hasattr(value.flat_values, "numpy"))


def _rows(name, value: Any):
    """Return the rows of each image as numpy arrays."""
    dtype = _DTYPES.get(name)
    if _is_ragged(value):
        dense = value.to_tensor().numpy()
        rows = [dense[index, :length] for index, length in enumerate(value.row_lengths().numpy())]
    else:
        rows = [ops.convert_to_numpy(row) if ops.is_tensor(row) else np.asarray(row, dtype) for row in value]
    if name == "boxes":
        for image, row in enumerate(rows):
            if row.size and (row.ndim != 2 or row.shape[1] != 4):
                raise ValueError(f"`boxes` of image {image} has shape {row.shape}, expected (boxes, 4) `xyxy`")
        rows = [row.reshape(-1, 4) for row in rows]
    return [row.astype(dtype) if dtype else row for row in rows]


def _stacked(name, rows):
    """Return (B, M, ...) of one array (N, ...) an image."""
    count = _rounded_up(max([len(row) for row in rows], default=0))
    inner = next((row.shape[1:] for row in rows if row.size), rows[0].shape[1:] if rows else ())
    stacked = np.full((len(rows), count, *inner), _FILLERS.get(name, 0), rows[0].dtype if rows else _DTYPES.get(name))
    for index, row in enumerate(rows):
        if row.size:
            stacked[index, : len(row)] = row
    return stacked


def _rounded_up(count):
    return max(1, -(-count // ROWS)) * ROWS


def _padded_in_graph(name, value):
    """Return (B, M, ...) of a RaggedTensor in a TensorFlow graph."""
    import tensorflow as tf

    if name in _DTYPES:
        value = tf.cast(value, _DTYPES[name])
    longest = tf.cast(value.bounding_shape(axis=1), "int32")
    rows = tf.maximum(1, -(-longest // ROWS)) * ROWS
    shape = tf.stack([-1, rows, *([-1] * (value.shape.rank - 2))])
    dense = value.to_tensor(default_value=tf.cast(_FILLERS.get(name, 0), value.dtype), shape=shape)
    return tf.ensure_shape(dense, (value.shape[0], None, *((4,) if name == "boxes" else value.shape[2:])))

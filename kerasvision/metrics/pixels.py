"""What metrics of pixels share: which pixels count, and what they do about those that are no class."""

import keras
from keras import ops

from kerasvision.metrics.class_ids import check_ids, check_none_counted
from kerasvision.ops.labels import no_class, whole_labels


class PixelMetric(keras.metrics.Metric):
    """Base of metrics of integer masks and logits.

    Counts in `out_of_range` the pixels whose class ids are neither a class nor ignored, and in `undefined` those whose
    logits hold NaN.

    Args:
        num_classes: C, the number of classes.
        ignore_class: Mask value of pixels that do not count, or ``None``.
    """

    def __init__(self, num_classes, *, ignore_class: int | None = 255, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.ignore_class = ignore_class
        self.out_of_range = self.add_variable(shape=(), initializer="zeros", dtype="int32", name="out_of_range")
        self.undefined = self.add_variable(shape=(), initializer="zeros", dtype="int32", name="undefined")

    def take_pixels(self, y_true, y_pred, sample_weight):
        """Return true and predicted classes (N,) int32 of a batch, and which count (N,) bool; see `pixels_of`."""
        truth, predictions, counted, wrong, undefined = pixels_of(
            y_true, y_pred, sample_weight, num_classes=self.num_classes, ignore_class=self.ignore_class
        )
        self.out_of_range.assign(self.out_of_range + wrong)
        self.undefined.assign(self.undefined + undefined)
        return truth, predictions, counted

    def spoiled(self):
        """Return whether a pixel was out of range or undefined, so that no figure holds: a bool scalar.

        Raises:
            ValueError: A graph counted class ids out of range, and this is called outside of it.
        """
        check_none_counted(self)
        return ops.convert_to_tensor(self.out_of_range + self.undefined) > 0

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "num_classes": self.num_classes, "ignore_class": self.ignore_class}


def pixels_of(y_true, y_pred, sample_weight, *, num_classes, ignore_class):
    """Return the pixels of a batch as backend tensors, flattened to (N,).

    Args:
        y_true: (B, H, W) or (B, H, W, 1) integer masks.
        y_pred: (B, H, W, C) logits or probabilities.
        sample_weight: (B, H, W), or (B, H, W, 1), or with fewer axes: (B,) weighs whole images; or ``None``.
        num_classes: C.
        ignore_class: Mask value of pixels that do not count, or ``None``.

    Returns:
        True and predicted classes (N,) int32; whether a pixel counts (N,) bool; the number of pixels, int32, that
        would count but are neither a class nor ignored, such as those that are no whole numbers; the number of those
        that would count but have a NaN among their predictions, of which no class is the greatest.

    Raises:
        ValueError: `y_pred` has another number of channels than `num_classes`, or, outside of graphs, a pixel that
            counts is of no class; or sample weights do not fit the masks.
    """
    if y_pred.shape[-1] != num_classes:
        raise ValueError(
            f"`y_pred` has {y_pred.shape[-1]} channels, but `num_classes` is {num_classes}; make them equal"
        )
    given = ops.reshape(ops.convert_to_tensor(y_true), (-1,))
    truth = whole_labels(given, otherwise=no_class(ignore_class))
    predictions = ops.reshape(ops.cast(ops.argmax(y_pred, axis=-1), "int32"), (-1,))
    counted = ops.ones_like(truth, dtype="bool") if ignore_class is None else truth != ignore_class
    if sample_weight is not None:
        weights = _weights_of(ops.convert_to_tensor(sample_weight), y_true)
        weights = ops.reshape(ops.broadcast_to(weights, ops.shape(y_true)), (-1,))
        counted = ops.logical_and(counted, weights != 0)
    check_ids(truth, counted, num_classes, ignore_class, given=given)
    valid = ops.logical_and(truth >= 0, truth < num_classes)
    wrong = ops.logical_and(counted, ops.logical_not(valid))
    counted = ops.logical_and(counted, valid)
    defined = ops.reshape(ops.all(ops.equal(y_pred, y_pred), axis=-1), (-1,))  # False where a NaN is among them
    undefined = ops.logical_and(counted, ops.logical_not(defined))
    wrong, undefined = (ops.cast(ops.sum(ops.cast(part, "int32")), "int32") for part in (wrong, undefined))
    return truth, predictions, ops.logical_and(counted, defined), wrong, undefined


def _weights_of(weights, y_true):
    """Return sample weights with as many axes as the masks; raise ValueError if they do not fit."""
    given, shape = tuple(weights.shape), tuple(y_true.shape)
    if len(given) == len(shape) + 1 and given[-1] in (1, None):
        weights = ops.squeeze(weights, -1)
    while len(weights.shape) < len(shape):
        weights = ops.expand_dims(weights, -1)  # (B,) to (B, 1, 1): one weight an image, not a column
    pairs = list(zip(weights.shape, shape, strict=False))
    if len(weights.shape) != len(shape) or any(None not in pair and pair[0] not in (1, pair[1]) for pair in pairs):
        raise ValueError(
            f"`sample_weight` has shape {given}, but masks of shape {shape} need one weight for each pixel, (B, H, W), "
            "or each image, (B,)"
        )
    return weights

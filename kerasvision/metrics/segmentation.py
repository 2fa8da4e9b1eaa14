"""Segmentation metrics, all derived from one confusion matrix."""

import keras
import numpy as np
from keras import ops

from kerasvision.metrics.class_ids import check_arrays, check_none_counted
from kerasvision.metrics.pixels import PixelMetric
from kerasvision.ops.rows import count_ids

_FIGURES = ("mIoU", "pixel_accuracy", "dice", "mean_accuracy", "frequency_weighted_IoU")

# Counts are kept in two int32 numbers, so that they stay exact on backends without int64: low + high * 2^24.
_CARRY = 1 << 24


def confusion_matrix(truth, predictions, num_classes, ignore_class: int | None = 255):
    """Count pixels by true and predicted class.

    Args:
        truth: Integer numpy array of any shape: 0 to num_classes - 1, or `ignore_class`.
        predictions: Integer numpy array of the same shape.
        num_classes: C.
        ignore_class: Value of pixels that do not count; ``None`` if there is none.

    Returns:
        int64 (C, C): rows are true, columns predicted classes.

    Raises:
        ValueError: Another value occurs, or the shapes differ.
    """
    truth, predictions = np.asarray(truth), np.asarray(predictions)
    if truth.shape != predictions.shape:
        raise ValueError(f"`predictions` of shape {predictions.shape} must have the shape of `truth`, {truth.shape}")
    counted = np.ones(truth.shape, bool) if ignore_class is None else truth != ignore_class
    truth, predictions = truth[counted], predictions[counted]
    check_arrays(truth, predictions, num_classes, ignore_class)
    truth, predictions = truth.astype(np.int64), predictions.astype(np.int64)
    counts = np.bincount(truth * num_classes + predictions, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)  # (C, C)


def figures_of(confusion, *, num_classes=None, all_statistics=False) -> dict[str, float]:
    """Return mIoU, pixel accuracy and Dice of a confusion matrix.

    Args:
        confusion: (C, C) counts; rows are true, columns predicted classes.
        num_classes: How many of the C are classes of the data; default: all. Predictions of the others have no IoU of
            their own, but are missed by the class that they belong to.
        all_statistics: Also return `mean_accuracy`, the mean over the classes of the truth of the part of their pixels
            that was found, and `frequency_weighted_IoU`, the mean of their IoU weighted by their numbers of pixels
            (Long et al., "Fully Convolutional Networks", CVPR 2015, section 5).

    Returns:
        dict of floats in [0, 1]: `mIoU` and `dice` are means over the classes that occur in the truth or the
        predictions; NaN if no pixel was counted.
    """
    names = _FIGURES if all_statistics else _FIGURES[:3]
    confusion = np.asarray(confusion, np.float64)
    total = confusion.sum()
    if total == 0:
        return dict.fromkeys(names, float("nan"))
    right = np.diag(confusion)[:num_classes]
    true = confusion.sum(axis=1)[:num_classes]
    sizes = confusion.sum(axis=0)[:num_classes] + true  # (num_classes,)
    occurs, is_true = sizes > 0, true > 0
    figures = {
        "mIoU": np.mean(right[occurs] / (sizes - right)[occurs]),
        "pixel_accuracy": right.sum() / total,
        "dice": np.mean(2 * right[occurs] / sizes[occurs]),
        "mean_accuracy": np.mean(right[is_true] / true[is_true]),
        "frequency_weighted_IoU": np.sum((true * right)[is_true] / (sizes - right)[is_true]) / total,
    }
    return {name: float(figures[name]) for name in names}


def per_class_iou(confusion):
    """Return the IoU of each class (C,), NaN for classes that do not occur."""
    right, true, predicted = _counts(confusion)
    return _ratio(right, true + predicted - right)


def per_class_dice(confusion):
    """Return the Dice coefficient of each class (C,), NaN for classes that do not occur."""
    right, true, predicted = _counts(confusion)
    return _ratio(2 * right, true + predicted)


def per_class_accuracy(confusion):
    """Return the part of each class's pixels that was found (C,), its recall; NaN for classes never true."""
    right, true, _ = _counts(confusion)
    return _ratio(right, true)


def _counts(confusion):
    """Return per class (C,) the pixels that are right, true and predicted."""
    confusion = np.asarray(confusion, np.float64)
    return np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)


def _ratio(part, whole):
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


@keras.saving.register_keras_serializable("kerasvision")
class SegmentationMetrics(PixelMetric):
    """mIoU, pixel accuracy and Dice of integer masks and logits, from one exact confusion matrix.

    Args:
        num_classes: C, the number of classes.
        ignore_class: Mask value of pixels that do not count.
        all_statistics: Also report `mean_accuracy` and `frequency_weighted_IoU`; see `figures_of`.
        name: The metric's name.

    `result()` is a dict of `mIoU`, `pixel_accuracy` and `dice`, NaN if no pixel was counted.

    A mask value that is neither a class nor `ignore_class` is an error, at once where values are known. A graph cannot
    raise: there `out_of_range` counts such pixels, `result()` is NaN, and outside of the graph `result()` and
    `confusion()` raise. `Segmenter.evaluate` raises at its end.

    Logits of which one is NaN are no prediction: `undefined` counts such pixels, and all figures are NaN, as is the
    loss of a model that gave them; `confusion()` holds the other pixels.
    """

    def __init__(
        self, num_classes, *, ignore_class: int | None = 255, all_statistics=False, name="segmentation", **kwargs
    ):
        super().__init__(num_classes, ignore_class=ignore_class, name=name, **kwargs)
        self.all_statistics = all_statistics
        shape = (num_classes * num_classes,)
        self.low = self.add_variable(shape=shape, initializer="zeros", dtype="int32", name="low")
        self.high = self.add_variable(shape=shape, initializer="zeros", dtype="int32", name="high")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Count a batch of masks (B, H, W) and logits (B, H, W, C); pixels of sample weight 0 do not count.

        Args:
            y_true: (B, H, W) or (B, H, W, 1) integer masks.
            y_pred: (B, H, W, C) logits or probabilities.
            sample_weight: (B, H, W), or (B, H, W, 1), or with fewer axes: (B,) weighs whole images.

        Raises:
            ValueError: `y_pred` has another number of channels than `num_classes`, or, outside of graphs, a pixel
                that counts is of no class. Nothing of the batch is counted then.
        """
        classes = self.num_classes
        truth, predictions, counted = self.take_pixels(y_true, y_pred, sample_weight)
        # Pixels that do not count go to one cell behind the matrix.
        cells = ops.where(counted, truth * classes + predictions, classes * classes)
        low = self.low + count_ids(cells, classes * classes + 1)[:-1]
        self.low.assign(low % _CARRY)
        self.high.assign(self.high + low // _CARRY)

    def confusion(self):
        """Return the confusion matrix so far: int64 numpy array (C, C), rows true, columns predicted.

        Raises:
            ValueError: A graph counted class ids out of range.
        """
        check_none_counted(self)
        low, high = (np.asarray(ops.convert_to_numpy(part), np.int64) for part in (self.low, self.high))
        return (low + high * _CARRY).reshape(self.num_classes, self.num_classes)

    def result(self):
        """Return the dict of figures.

        Raises:
            ValueError: A graph counted class ids out of range, and this is called outside of it.
        """
        spoiled = self.spoiled()
        counts = ops.cast(self.high, "float32") * _CARRY + ops.cast(self.low, "float32")
        confusion = ops.reshape(counts, (self.num_classes, self.num_classes))  # (C, C)
        right, true = ops.diagonal(confusion), ops.sum(confusion, axis=1)
        sizes = ops.sum(confusion, axis=0) + true
        total = ops.maximum(ops.sum(true), 1)
        invalid = ops.where(ops.logical_or(spoiled, ops.sum(sizes) == 0), float("nan"), 0.0)

        def mean(numerator, denominator):
            occurs = ops.cast(denominator > 0, "float32")
            return ops.sum(numerator / ops.maximum(denominator, 1) * occurs) / ops.maximum(ops.sum(occurs), 1)

        figures = {
            "mIoU": mean(right, sizes - right),
            "pixel_accuracy": ops.sum(right) / total,
            "dice": mean(2 * right, sizes),
            "mean_accuracy": mean(right, true),
            "frequency_weighted_IoU": ops.sum(true / total * right / ops.maximum(sizes - right, 1)),
        }
        names = _FIGURES if self.all_statistics else _FIGURES[:3]
        return {name: figures[name] + invalid for name in names}

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "all_statistics": self.all_statistics}

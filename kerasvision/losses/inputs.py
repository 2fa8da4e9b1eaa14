"""What the losses share: precision, labels, and pixels that do not count."""

import keras
from keras import ops
from keras.src.backend import get_keras_mask, set_keras_mask
from keras.src.losses.loss import reduce_weighted_values

from kerasvision.ops.labels import no_class, whole_labels


class WideLoss(keras.losses.Loss):
    """A Keras loss that computes in float32 where it is asked for half precision.

    Sums over the pixels of a batch leave the range of float16 (65504) and the precision of bfloat16 (8 bits).
    """

    def __init__(self, *, reduction="sum_over_batch_size", name=None, dtype=None):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        if self.dtype in ("float16", "bfloat16"):
            super().__init__(reduction=reduction, name=name, dtype="float32")

    def get_config(self):
        """Return the constructor's arguments; Keras's own leaves out the dtype."""
        return {**super().get_config(), "dtype": self.dtype}


class MaskedLoss(WideLoss):
    """Base of losses for which pixels that predictions' Keras mask leaves out are as ignored ones.

    Keras itself would multiply the losses by the mask at the end, when those pixels have been chosen as the hardest,
    have been counted, or have made NaN of everything.

    Subclasses define ``call(y_true, y_pred, mask=None)``, `mask` being (B, ...) bool: which pixels count. What it
    returns says by a mask of its own which losses means are taken over: see `counting`.
    """

    def __call__(self, y_true, y_pred, sample_weight=None):
        """Return the losses, reduced as `keras.losses.Loss` does."""
        with keras.name_scope(self.name):
            mask = get_keras_mask(y_pred)  # which a conversion may lose
            y_true, y_pred = (ops.convert_to_tensor(part, dtype=self.dtype) for part in (y_true, y_pred))
            losses = self.call(y_true, y_pred, mask=mask)
            counted = get_keras_mask(losses)
            if sample_weight is not None:
                sample_weight = self._weights_of_losses(sample_weight, losses)
            return reduce_weighted_values(losses, sample_weight, counted, self.reduction, self.dtype)

    def _weights_of_losses(self, sample_weight, losses):
        """Return weights of the losses' shape (B, ...), given as many axes or fewer: (B,) weighs images.

        Keras would align them with the last axes, and multiply by the mask in place on PyTorch: in the user's array.
        """
        weights = ops.convert_to_tensor(sample_weight, dtype=losses.dtype)
        if len(weights.shape) > len(losses.shape) and weights.shape[-1] == 1:
            weights = ops.squeeze(weights, -1)
        while weights.shape and len(weights.shape) < len(losses.shape):
            weights = ops.expand_dims(weights, -1)
        return weights * ops.ones_like(losses)


class PooledLoss(MaskedLoss):
    """Base of losses of all pixels of an image, (B,), or of the batch, (1,).

    Called with sample weights that are not one for each image, it raises ValueError: there is no loss of a pixel to
    be weighted.
    """

    def _weights_of_losses(self, sample_weight, losses):
        """Return weights of the losses' shape; those of a batch's images become their mean, 1 if all of them are."""
        weights = ops.convert_to_tensor(sample_weight, dtype=self.dtype)
        if any(size != 1 for size in weights.shape[1:]):
            raise ValueError(
                f"`sample_weight` has shape {tuple(weights.shape)}, but {type(self).__name__} has no loss of a single "
                "pixel; give (B,), a weight for each image, or leave pixels out with `ignore_class`"
            )
        if not weights.shape:
            return weights
        weights = ops.reshape(weights, (-1,))  # (B,)
        if losses.shape[0] != 1 or weights.shape[0] == 1:
            return weights
        count = ops.maximum(ops.shape(weights)[0], 1)
        return ops.reshape(ops.sum(weights) / ops.cast(count, weights.dtype), (1,))


def with_mask(counted, mask):
    """Return which pixels count (B, ...), given which of them a mask (B, ...) of as many axes or fewer counts."""
    if mask is None:
        return counted
    mask = ops.cast(mask, "bool")
    while len(mask.shape) < len(counted.shape):
        mask = ops.expand_dims(mask, -1)
    return ops.logical_and(counted, mask)


def widen(values):
    """Return a tensor as float32, or as it is if it is float32 or float64."""
    values = ops.convert_to_tensor(values)
    return (
        values
        if keras.backend.standardize_dtype(values.dtype) in ("float32", "float64")
        else ops.cast(values, "float32")
    )


def split_labels(y_true, y_pred, ignore_class, mask=None):
    """Return integer labels and which of them count.

    Args:
        y_true: (...) or (..., 1) class indices of any dtype.
        y_pred: (..., C).
        ignore_class: Label that does not count; ``None`` if there is none.
        mask: (...) bool, or of fewer axes: False for further labels that do not count; or ``None``.

    Returns:
        (...) int32 labels, negative ones for what is no whole number, and (...) bool.

    Raises:
        ValueError: If the shapes do not fit.
    """
    rank = len(y_pred.shape)
    if len(y_true.shape) == rank and y_true.shape[-1] == 1:
        y_true = ops.squeeze(y_true, -1)
    if len(y_true.shape) != rank - 1:
        raise ValueError(
            f"`y_true` has shape {tuple(y_true.shape)}, but predictions of shape {tuple(y_pred.shape)} need class "
            f"indices of {rank - 1} axes; turn one-hot targets into indices with argmax(axis=-1)"
        )
    labels = whole_labels(y_true, otherwise=no_class(ignore_class))
    counted = ops.ones_like(labels, dtype="bool") if ignore_class is None else labels != ignore_class
    return labels, with_mask(counted, mask)


def one_hot(labels, classes, dtype):
    """Return (...) integer labels as (..., C), all zeros for labels out of range, for which keras.ops has no rule."""
    return ops.cast(ops.expand_dims(labels, -1) == ops.arange(classes, dtype=labels.dtype), dtype)


def counting(losses, counted):
    """Return `losses`, 0 where `counted` is false, such that Keras's means are taken over the rest alone.

    This is what `keras.losses.SparseCategoricalCrossentropy(ignore_class=...)` does; there is no public name for it.
    """
    losses = ops.where(counted, losses, ops.zeros_like(losses))
    set_keras_mask(losses, counted)
    return losses


def logits_of(probabilities):
    """Return the logits of probabilities, of which 0 and 1 count as 1e-7 and 1 - 1e-7 as in Keras."""
    probabilities = ops.clip(widen(probabilities), 1e-7, 1 - 1e-7)
    return ops.log(probabilities) - ops.log(1 - probabilities)


def power(base, exponent):
    """Return a base in [0, 1] to a constant exponent of at least 0, with a finite slope everywhere."""
    if exponent == 0:
        return ops.ones_like(base)
    if exponent == 1:
        return base
    if exponent == 2:
        return ops.square(base)
    # At 0 the slope of x^e is infinite for e under 1.
    return ops.where(base > 1e-12, ops.power(ops.maximum(base, 1e-12), exponent), 0)


def check_not_negative(**arguments):
    """Raise ValueError for an argument that is negative or no number."""
    for name, value in arguments.items():
        if not value >= 0:
            raise ValueError(f"`{name}` is {value!r}, but must be a number of at least 0")


def check_choice(name, value, choices):
    """Raise ValueError for a value that is none of the choices."""
    if value not in choices:
        raise ValueError(f"`{name}` is {value!r}, but must be one of {', '.join(map(repr, choices))}")


def as_tuple(name, values, *, per="class"):
    """Return a sequence of numbers as a tuple of floats, or ``None``; raise ValueError for negative ones."""
    if values is None:
        return None
    values = tuple(float(value) for value in values)
    if not values or not all(value >= 0 for value in values):
        raise ValueError(f"`{name}` is {values!r}, but must be one number of at least 0 for each {per}")
    return values


def weights_of(name, values, classes):
    """Return a tuple of class weights as a tensor (C,); raise ValueError if predictions have another C."""
    if classes is not None and len(values) != classes:
        raise ValueError(
            f"`{name}` has {len(values)} values, but predictions have {classes} classes; give one for each"
        )
    return ops.convert_to_tensor(values, "float32")


def weights_of_labels(name, values, labels, classes, dtype):
    """Return each element's class weight (...), given integer labels (...); that of a neighbour where out of range."""
    weights = ops.cast(weights_of(name, values, classes), dtype)
    return ops.take(weights, ops.clip(labels, 0, len(values) - 1), axis=0)

"""Lovász losses: the convex surrogate of the IoU that ranks pixels by their errors."""

import math

import keras
import numpy as np
from keras import ops

from kerasvision.losses.inputs import PooledLoss, split_labels, widen, with_mask
from kerasvision.ops.compilers import call_on_host, can_call_host, on_cpu


def lovasz_weights(errors, true, counted):
    """Return by how much each pixel's error raises the Jaccard loss, pixels being added by falling error.

    Args:
        errors: (R, P) errors, each row a region of its own.
        true: (R, P) bool: the pixels of the true region.
        counted: (R, P) bool: the pixels that count.

    Returns:
        (R, P) float32 in [0, 1], 0 for pixels that do not count; the gradient of the Lovász extension of the Jaccard
        loss. No gradient flows through it.

    Source: Berman et al. 2018, https://arxiv.org/abs/1705.08790, algorithm 1. Written with the differences worked
    out, which in float32 keeps the digits that subtracting one IoU from the next loses on large masks.
    """
    rows, pixels = ops.shape(errors)
    true = ops.logical_and(true, counted)
    # Errors under 0 belong to pixels right by more than the margin, whose loss is 0: it is no matter that they come
    # after the pixels that do not count.
    order = _falling(ops.where(counted, ops.stop_gradient(errors), -1))
    order = order + pixels * ops.expand_dims(ops.arange(rows, dtype="int32"), 1)
    order = ops.reshape(order, (-1,))  # (R P,) into the flat errors
    hits = ops.reshape(ops.take(ops.cast(ops.reshape(true, (-1,)), "int32"), order), (rows, pixels))  # sorted
    size = ops.sum(hits, axis=-1, keepdims=True)  # (R, 1)
    left = ops.cast(size - ops.cumsum(hits, axis=-1), "float32")  # true pixels not yet wrong: the intersection
    union = ops.cast(size + ops.cumsum(1 - hits, axis=-1), "float32")
    # A true pixel takes 1 from the intersection I, a false one adds 1 to the union U:
    # (I + 1) / U - I / U = 1 / U and I / (U - 1) - I / U = I / (U (U - 1)).
    weights = ops.where(hits > 0, 1 / ops.maximum(union, 1), left / ops.maximum(union * (union - 1), 1))
    # Without any true pixel the first false one makes the loss 1.
    first = ops.cast(ops.logical_and(size == 0, ops.expand_dims(ops.arange(pixels) == 0, 0)), "float32")
    weights = ops.where(size == 0, first, weights)
    # Back into the pixels' own order. Not ops.scatter: on PyTorch that is a Python loop over the elements.
    weights = ops.reshape(weights, (-1,))
    weights = ops.scatter_update(ops.zeros_like(weights), ops.expand_dims(order, -1), weights)
    return ops.stop_gradient(ops.where(counted, ops.reshape(weights, (rows, pixels)), 0))


def _falling(errors):
    """Return the indices (R, P) int32 that sort each row of errors (R, P), the greatest first; ties in any order.

    On CPUs NumPy sorts: 21 rows of 512 x 512 pixels take it 0.1 s, TensorFlow 0.6 s and JAX 4 s.
    """
    # Keras infers shapes on PyTorch's "meta", where there is nothing to be sorted.
    without_values = keras.backend.backend() == "torch" and errors.device.type == "meta"
    if without_values or not on_cpu(errors) or not can_call_host():
        return ops.cast(ops.argsort(-errors, axis=-1), "int32")
    return call_on_host(_falling_on_host, errors.shape, errors)


def _falling_on_host(errors):
    return np.argsort(-np.asarray(errors), axis=-1).astype(np.int32)


@keras.saving.register_keras_serializable("kerasvision")
class LovaszSoftmaxLoss(PooledLoss):
    """Lovász extension of one minus the IoU, averaged over the classes present.

    Args:
        from_logits: Whether predictions are logits; otherwise probabilities.
        ignore_class: Label of pixels that do not count; ``None`` if there is none.
        per_image: Whether each image has a loss of its own; otherwise IoUs are those of the whole batch.
        reduction: As in `keras.losses.Loss`.
        name: The loss's name.

    Call: masks (B, ...) or (B, ..., 1), whose labels out of range are of no class, and predictions (B, ..., C). Gives
    losses (B,) before reduction where `per_image`, otherwise (1,), which sample weights, one for each image, scale by
    their mean; 0 where nothing counts. It sorts every class's pixels, which makes it slow on large batches.

    Source: Berman et al. 2018, https://arxiv.org/abs/1705.08790, equation 11.
    """

    def __init__(
        self,
        *,
        from_logits=True,
        ignore_class=255,
        per_image=False,
        reduction="sum_over_batch_size",
        name="lovasz_softmax",
        **kwargs,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)
        self.from_logits = from_logits
        self.ignore_class = ignore_class
        self.per_image = per_image

    def call(self, y_true, y_pred, mask=None):
        """Return (B,) or (1,) losses."""
        y_pred = widen(y_pred)
        labels, counted = split_labels(y_true, y_pred, self.ignore_class)
        counted = with_mask(counted, mask)
        y_pred = ops.where(ops.expand_dims(counted, -1), y_pred, 0)  # not even NaN counts
        probabilities = ops.softmax(y_pred, axis=-1) if self.from_logits else y_pred
        classes = y_pred.shape[-1]
        images, pixels = _images_and_pixels(labels, self.per_image)
        rows = images * classes
        probabilities = ops.transpose(ops.reshape(probabilities, (images, pixels, classes)), (0, 2, 1))
        probabilities = ops.reshape(probabilities, (rows, pixels))
        labels = ops.reshape(labels, (images, 1, pixels))
        true = labels == ops.reshape(ops.arange(classes, dtype="int32"), (1, classes, 1))
        true = ops.reshape(true, (rows, pixels))
        counted = ops.reshape(counted, (images, 1, pixels))
        counted = ops.reshape(ops.broadcast_to(counted, (images, classes, pixels)), (rows, pixels))
        errors = ops.where(counted, ops.where(true, 1 - probabilities, probabilities), 0)
        losses = ops.sum(errors * ops.cast(lovasz_weights(errors, true, counted), errors.dtype), axis=-1)
        present = ops.any(ops.logical_and(true, counted), axis=-1)
        present = ops.reshape(ops.cast(present, losses.dtype), (images, classes))
        return ops.sum(ops.reshape(losses, (images, classes)) * present, -1) / ops.maximum(ops.sum(present, -1), 1)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "from_logits": self.from_logits,
            "ignore_class": self.ignore_class,
            "per_image": self.per_image,
        }


@keras.saving.register_keras_serializable("kerasvision")
class LovaszHingeLoss(PooledLoss):
    """Lovász extension of one minus the IoU of a binary mask, over the hinge errors of its logits.

    Args:
        ignore_class: Value in the targets of pixels that do not count; ``None`` if there is none.
        per_image: Whether each image has a loss of its own; otherwise the IoU is that of the whole batch.
        reduction: As in `keras.losses.Loss`.
        name: The loss's name.

    Call: targets of 0 and 1 and logits, of equal shapes but for last axes of 1; several classes, each with a binary
    mask, count as one region, as in segmentation_models.pytorch. Gives losses (B,) before reduction where
    `per_image`, otherwise (1,), which sample weights, one for each image, scale by their mean; 0 where nothing counts.
    A logit beyond 1 on the right side costs nothing. Other shapes raise ValueError.

    Source: Berman et al. 2018, https://arxiv.org/abs/1705.08790, equation 10.
    """

    def __init__(
        self,
        *,
        ignore_class=255,
        per_image=False,
        reduction="sum_over_batch_size",
        name="lovasz_hinge",
        **kwargs,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)
        self.ignore_class = ignore_class
        self.per_image = per_image

    def call(self, y_true, y_pred, mask=None):
        """Return (B,) or (1,) losses."""
        if not _same_but_for_ones(y_true.shape, y_pred.shape):
            raise ValueError(
                f"`y_true` has shape {tuple(y_true.shape)} and `y_pred` {tuple(y_pred.shape)}, but LovaszHingeLoss "
                "needs a target of 0 or 1 for each logit; use LovaszSoftmaxLoss for class indices"
            )
        logits = widen(y_pred)
        images, pixels = _images_and_pixels(logits, self.per_image)
        logits = ops.reshape(logits, (images, pixels))
        targets = ops.reshape(ops.cast(y_true, logits.dtype), (images, pixels))
        counted = ops.ones_like(targets, dtype="bool") if self.ignore_class is None else targets != self.ignore_class
        if mask is not None:
            everywhere = with_mask(ops.ones_like(y_pred, dtype="bool"), mask)
            counted = ops.logical_and(counted, ops.reshape(everywhere, (images, pixels)))
        true = targets > 0.5
        logits = ops.where(counted, logits, 0)  # not even NaN counts
        errors = ops.where(counted, 1 + ops.where(true, -logits, logits), 0)
        weights = ops.cast(lovasz_weights(errors, true, counted), errors.dtype)
        return ops.sum(ops.relu(errors) * weights, axis=-1)

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "ignore_class": self.ignore_class, "per_image": self.per_image}


def _images_and_pixels(values, per_image):
    """Return how many regions of how many pixels (B, ...) values are; -1 would not do for an empty batch."""
    batch, *rest = ops.shape(values)
    pixels = math.prod(rest)
    return (batch, pixels) if per_image else (1, batch * pixels)


def _same_but_for_ones(first, second):
    """Return whether two shapes agree, as far as they are known, but for last axes of 1."""
    first, second = list(first), list(second)
    for longer, shorter in ((first, second), (second, first)):
        while len(longer) > len(shorter) and longer[-1] in (1, None):
            longer.pop()
    pairs = zip(first, second, strict=False)
    return len(first) == len(second) and all(None in pair or pair[0] == pair[1] for pair in pairs)

"""Cross-entropy of masks, over all pixels or over the hard ones alone (online hard example mining)."""

import math
import numbers

import keras
from keras import ops

from kerasvision.losses.inputs import MaskedLoss, as_tuple, counting, split_labels, weights_of, weights_of_labels, widen


def cross_entropy(
    labels,
    predictions,
    *,
    from_logits=True,
    ignore_class: int | None = 255,
    class_weights=None,
    label_smoothing=0.0,
    mask=None,
):
    """Return -log p of each element's true class.

    Args:
        labels: (...) or (..., 1) class indices.
        predictions: (..., C).
        from_logits: Whether predictions are logits; otherwise probabilities, of which those under 1e-7 count as 1e-7.
        ignore_class: Label of elements whose loss is 0 whatever was predicted, even NaN; ``None`` if there is none.
        class_weights: C factors, or ``None`` for 1.
        label_smoothing: Share of the truth that is spread evenly over all classes, in [0, 1].
        mask: (...) bool, or of fewer axes: False for further elements whose loss is 0; or ``None``.

    Returns:
        (...) non-negative float32 or float64, finite for logits in [-1e35, 1e35]: differences of two, and their
        sum over the classes, must be finite numbers. A label that is neither a class nor
        ignored gives NaN, so that a wrong class mapping shows.

    Source: torch.nn.functional.cross_entropy with reduction "none".
    """
    predictions = widen(predictions)
    labels, counted = split_labels(labels, predictions, ignore_class, mask)
    classes = predictions.shape[-1]
    usable = ops.logical_and(labels >= 0, labels < classes)
    labels = ops.where(usable, labels, 0)
    predictions = ops.where(ops.expand_dims(counted, -1), predictions, 0 if from_logits else 1 / classes)
    logits = predictions if from_logits else ops.log(ops.clip(predictions, 1e-7, 1))
    loss = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    weights = (
        None if class_weights is None else ops.cast(weights_of("class_weights", class_weights, classes), loss.dtype)
    )
    if weights is not None:
        loss = loss * ops.take(weights, labels, axis=0)
    if label_smoothing:
        spread = -ops.log_softmax(logits, axis=-1)  # (..., C)
        spread = ops.sum(spread if weights is None else spread * weights, axis=-1)
        loss = (1 - label_smoothing) * loss + label_smoothing / classes * spread
    # Without `counted` a class index that is ignored would have a loss here.
    return ops.where(counted, ops.where(usable, loss, float("nan")), 0)


@keras.saving.register_keras_serializable("kerasvision")
class CrossEntropyLoss(MaskedLoss):
    """`cross_entropy` as a Keras loss.

    Args:
        from_logits: Whether predictions are logits; otherwise probabilities.
        ignore_class: Label of pixels that do not count, in means neither; ``None`` if there is none.
        class_weights: One factor for each class, or ``None``.
        label_smoothing: Share of the truth that is spread evenly over all classes, in [0, 1].
        divide_by_weights: Whether means divide by the class weights of the counted pixels, as torch's do, and not
            by their number, as Keras's do with `class_weight` and `sample_weight`.
        reduction: As in `keras.losses.Loss`.
        name: The loss's name.

    Call: class indices (...) or (..., 1), such as masks (B, H, W), and predictions (..., C); gives (...) losses
    before reduction. With nothing counted the loss is 0. Pixels that predictions' Keras mask leaves out are as ignored
    ones.
    """

    def __init__(
        self,
        *,
        from_logits=True,
        ignore_class=255,
        class_weights=None,
        label_smoothing=0.0,
        divide_by_weights=False,
        reduction="sum_over_batch_size",
        name="cross_entropy",
        **kwargs,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"`label_smoothing` is {label_smoothing!r}, but must be a share, in [0, 1]")
        self.from_logits = from_logits
        self.ignore_class = ignore_class
        self.class_weights = as_tuple("class_weights", class_weights)
        self.label_smoothing = label_smoothing
        self.divide_by_weights = divide_by_weights

    def call(self, y_true, y_pred, mask=None):
        """Return (...) losses."""
        loss = cross_entropy(
            y_true,
            y_pred,
            from_logits=self.from_logits,
            ignore_class=self.ignore_class,
            class_weights=self.class_weights,
            label_smoothing=self.label_smoothing,
            mask=mask,
        )
        labels, counted = split_labels(y_true, y_pred, self.ignore_class, mask)
        if self.divide_by_weights and self.class_weights is not None and self.reduction not in ("sum", "none", None):
            weights = weights_of_labels("class_weights", self.class_weights, labels, y_pred.shape[-1], loss.dtype)
            counts = ops.cast(counted, loss.dtype)
            total = ops.sum(weights * counts)
            loss = loss * ops.where(total > 0, ops.sum(counts) / ops.where(total > 0, total, 1), 0)
        return loss if self.ignore_class is None and mask is None else counting(loss, counted)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "from_logits": self.from_logits,
            "ignore_class": self.ignore_class,
            "class_weights": self.class_weights,
            "label_smoothing": self.label_smoothing,
            "divide_by_weights": self.divide_by_weights,
        }


def hard_pixels(losses, counted, *, threshold=0.7, min_kept=1 / 16):
    """Return which pixels are hard: those whose true class has a probability under a threshold, or the hardest few.

    Args:
        losses: (B, ...) cross-entropies, -log p of the true class.
        counted: (B, ...) bool: which pixels may be kept.
        threshold: Probability under which a pixel is kept.
        min_kept: How many pixels of the batch are kept at least, the hardest first: an int counts pixels an image,
            a float is a share of the counted pixels. Pixels as hard as the last one kept are kept too.

    Returns:
        (B, ...) bool. No gradient flows through it.
    """
    losses = ops.where(counted, ops.stop_gradient(losses), -1)  # below every cross-entropy
    wrong = ops.isnan(losses)  # a label out of range must show
    losses = ops.where(wrong, float("inf"), losses)
    # One more, so that an empty batch has something to pick.
    sizes = ops.concatenate([ops.reshape(losses, (-1,)), -ops.ones((1,), dtype=losses.dtype)])
    sizes = ops.flip(ops.sort(sizes))  # (N + 1,), largest first
    if isinstance(min_kept, numbers.Integral):
        kept = int(min_kept) * ops.shape(losses)[0]
    else:
        kept = ops.cast(ops.ceil(min_kept * ops.sum(ops.cast(counted, "float32"))), "int32")
    kept = ops.minimum(ops.cast(kept, "int32"), ops.cast(ops.shape(sizes)[0], "int32"))
    last = ops.take(sizes, ops.maximum(kept - 1, 0))  # the smallest loss kept
    certain = -math.log(threshold) if threshold > 0 else float("inf")
    hard = ops.logical_or(losses > certain, ops.logical_and(losses >= last, kept > 0))
    return ops.logical_and(counted, ops.logical_or(hard, wrong))


@keras.saving.register_keras_serializable("kerasvision")
class OHEMCrossEntropyLoss(MaskedLoss):
    """Cross-entropy over hard pixels alone (online hard example mining); see `hard_pixels`.

    Args:
        threshold: Probability of the true class under which a pixel is hard, in [0, 1].
        min_kept: How many pixels of the batch are kept at least: an int counts pixels an image, a float is a share
            of the counted pixels. The default share is that of BiSeNet's code; HRNet's code keeps 100,000 pixels of
            a batch.
        from_logits: Whether predictions are logits; otherwise probabilities.
        ignore_class: Label of pixels that do not count; ``None`` if there is none.
        class_weights: One factor for each class, or ``None``; they do not change which pixels are hard.
        reduction: As in `keras.losses.Loss`; means are over the kept pixels.
        name: The loss's name.

    Call: masks (B, H, W) or (B, H, W, 1) and predictions (B, H, W, C); gives (B, H, W) losses before reduction, 0
    for pixels not kept. Pixels that predictions' Keras mask leaves out are as ignored ones.

    Source: Shrivastava et al. 2016, https://arxiv.org/abs/1604.03540, and Yuan et al. 2020,
    https://arxiv.org/abs/1909.11065, section 4.2, for segmentation. Differs from HRNet's code: pixels tied with the
    last one kept are kept, and where fewer pixels count than must be kept, all are.
    """

    def __init__(
        self,
        threshold=0.7,
        min_kept=1 / 16,
        *,
        from_logits=True,
        ignore_class=255,
        class_weights=None,
        reduction="sum_over_batch_size",
        name="ohem_cross_entropy",
        **kwargs,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)
        if not 0 <= threshold <= 1:
            raise ValueError(f"`threshold` is {threshold!r}, but must be a probability, in [0, 1]")
        if not min_kept >= 0 or (not isinstance(min_kept, numbers.Integral) and min_kept > 1):
            raise ValueError(
                f"`min_kept` is {min_kept!r}, but must be a number of pixels an image (an int of at least 0) or a "
                "share of the counted pixels (a float in [0, 1])"
            )
        self.threshold = threshold
        self.min_kept = int(min_kept) if isinstance(min_kept, numbers.Integral) else float(min_kept)
        self.from_logits = from_logits
        self.ignore_class = ignore_class
        self.class_weights = as_tuple("class_weights", class_weights)

    def call(self, y_true, y_pred, mask=None):
        """Return (B, H, W) losses."""
        loss = cross_entropy(y_true, y_pred, from_logits=self.from_logits, ignore_class=self.ignore_class, mask=mask)
        labels, counted = split_labels(y_true, y_pred, self.ignore_class, mask)
        kept = hard_pixels(loss, counted, threshold=self.threshold, min_kept=self.min_kept)
        if self.class_weights is not None:
            loss *= weights_of_labels("class_weights", self.class_weights, labels, y_pred.shape[-1], loss.dtype)
        return counting(loss, kept)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "threshold": self.threshold,
            "min_kept": self.min_kept,
            "from_logits": self.from_logits,
            "ignore_class": self.ignore_class,
            "class_weights": self.class_weights,
        }

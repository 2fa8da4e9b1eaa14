"""Focal loss for dense classification: of independent binary classes (sigmoid) or of exclusive ones (softmax)."""

import math
import numbers

import keras
from keras import ops

from kerasvision.losses.cross_entropy import cross_entropy
from kerasvision.losses.inputs import (
    MaskedLoss,
    as_tuple,
    check_not_negative,
    counting,
    logits_of,
    one_hot,
    power,
    split_labels,
    weights_of_labels,
    widen,
    with_mask,
)


def binary_cross_entropy(targets, logits):
    """Return -t log s(x) - (1 - t) log(1 - s(x)) element by element, s being the sigmoid.

    Args:
        targets: (...) in [0, 1].
        logits: (...), before the sigmoid.

    Returns:
        (...) non-negative, finite for every finite logit; the same as torch's binary_cross_entropy_with_logits.
    """
    targets, logits = widen(targets), widen(logits)
    # log(1 + exp(-|x|)) + max(x, 0) - x t: the cross-entropy that overflows for no logit. Written with `where`,
    # because TensorFlow's |x| and max(x, 0) have slopes of 0 and 1 at x = 0, and the sum would be wrong by 1/2.
    positive = logits >= 0
    return ops.softplus(ops.where(positive, -logits, logits)) + ops.where(positive, logits, 0) - logits * targets


def _positive_weight(alpha):
    """Return a sigmoid focal loss's alpha as a float, or ``None``; raise ValueError if losses could be negative."""
    if alpha is None:
        return None
    if not isinstance(alpha, numbers.Real) or not alpha <= 1:
        raise ValueError(
            f"`alpha` is {alpha!r}, but must be a number of at most 1, the weight of positives, 1 - alpha being that "
            "of negatives; give None for no weighting"
        )
    return float(alpha)


def _class_weights(alpha):
    """Return a softmax focal loss's alpha as a float, a tuple or ``None``; raise ValueError for negative ones."""
    if isinstance(alpha, numbers.Real):
        alpha = float(alpha)
    if isinstance(alpha, str) or (isinstance(alpha, float) and not 0 <= alpha < math.inf):
        raise ValueError(
            f"`alpha` is {alpha!r}, but must be a number of at least 0, or one for each class; give None for no "
            "weighting"
        )
    return alpha if isinstance(alpha, float) else as_tuple("alpha", alpha)


def sigmoid_focal_loss(targets, logits, *, alpha: float | None = 0.25, gamma=2.0):
    """Return the focal loss of independent binary classifications, element by element.

    Args:
        targets: (...) in [0, 1].
        logits: (...), before the sigmoid.
        alpha: Weight of positives, at most 1, 1 - alpha being that of negatives; ``None`` or, as in torchvision, a
            negative number for no weighting.
        gamma: How strongly well-classified elements are played down; 0 gives cross-entropy.

    Returns:
        (...) non-negative float32 or float64, finite for every finite logit; NaN where an input is NaN.

    Raises:
        ValueError: An `alpha` over 1.

    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002, equation 5; torchvision.ops.sigmoid_focal_loss.
    """
    alpha = _positive_weight(alpha)
    targets, logits = widen(targets), widen(logits)
    loss = binary_cross_entropy(targets, logits)
    if gamma != 0:
        probabilities = ops.sigmoid(logits)
        loss = loss * power(probabilities + targets - 2 * probabilities * targets, gamma)  # (1 - p_t)^gamma
    if alpha is not None and alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return loss


def softmax_focal_loss(labels, logits, *, alpha=None, gamma=2.0, ignore_class: int | None = 255, mask=None):
    """Return the focal loss of exclusive classes: -alpha_t (1 - p_t)^gamma log p_t, p_t being the true class's share.

    Args:
        labels: (...) class indices.
        logits: (..., C), before the softmax.
        alpha: Weight of every element, or a tuple of one weight for each class, not negative; ``None`` for no
            weighting.
        gamma: How strongly well-classified elements are played down; 0 gives cross-entropy.
        ignore_class: Label of elements whose loss is 0; ``None`` if there is none.
        mask: (...) bool, or of fewer axes: False for further elements whose loss is 0; or ``None``.

    Returns:
        (...) non-negative float32 or float64, finite for logits in [-1e35, 1e35]. NaN for a label out of range.

    Raises:
        ValueError: A negative `alpha`.

    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002, section 3, with softmax in place of sigmoid.
    """
    alpha = _class_weights(alpha)
    loss = cross_entropy(labels, logits, ignore_class=ignore_class, mask=mask)
    loss = loss * power(-ops.expm1(-loss), gamma)
    if alpha is None:
        return loss
    if isinstance(alpha, float):
        return alpha * loss
    labels, _ = split_labels(labels, logits, ignore_class)
    return weights_of_labels("alpha", alpha, labels, logits.shape[-1], loss.dtype) * loss


@keras.saving.register_keras_serializable("kerasvision")
class SigmoidFocalLoss(MaskedLoss):
    """`sigmoid_focal_loss` as a Keras loss, summed over the last axis (the classes).

    Args:
        alpha: Weight of positives, at most 1; ``None`` or a negative number for no weighting.
        gamma: Focusing exponent.
        from_logits: Whether predictions are logits; otherwise probabilities.
        ignore_class: Label, or value in the targets, that does not count; ``None`` if there is none. Means are taken
            over positions of which any class counts.
        reduction: As in `keras.losses.Loss`.
        name: The loss's name.

    Call: targets (..., C) in [0, 1], or class indices (...), of which those outside 0..C - 1 mean no class at all,
    and predictions (..., C); gives (...) losses before reduction. What predictions' Keras mask leaves out is as
    ignored.
    """

    def __init__(
        self,
        alpha=0.25,
        gamma=2.0,
        *,
        from_logits=True,
        ignore_class=None,
        reduction="sum_over_batch_size",
        name="focal",
        **kwargs,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)
        check_not_negative(gamma=gamma)
        self.alpha = _positive_weight(alpha)
        self.gamma = gamma
        self.from_logits = from_logits
        self.ignore_class = ignore_class

    def call(self, y_true, y_pred, mask=None):
        """Return (...) losses."""
        logits = widen(y_pred) if self.from_logits else logits_of(y_pred)
        classes = logits.shape[-1]
        ignored = self.ignore_class
        if len(y_true.shape) == len(logits.shape) and y_true.shape[-1] in (None, classes):
            targets = ops.cast(y_true, logits.dtype)
            counted = ops.ones_like(targets, dtype="bool") if ignored is None else y_true != ignored  # (..., C)
        else:
            labels, counted = split_labels(y_true, logits, ignored)
            targets = one_hot(labels, classes, logits.dtype)
            counted = ops.expand_dims(counted, -1)  # (..., 1)
        if ignored is None and mask is None:
            return ops.sum(sigmoid_focal_loss(targets, logits, alpha=self.alpha, gamma=self.gamma), axis=-1)
        counted = with_mask(counted, mask)
        targets, logits = ops.where(counted, targets, 0), ops.where(counted, logits, 0)
        loss = sigmoid_focal_loss(targets, logits, alpha=self.alpha, gamma=self.gamma)
        return counting(ops.sum(ops.where(counted, loss, 0), axis=-1), ops.any(counted, axis=-1))

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "gamma": self.gamma,
            "from_logits": self.from_logits,
            "ignore_class": self.ignore_class,
        }


@keras.saving.register_keras_serializable("kerasvision")
class SoftmaxFocalLoss(MaskedLoss):
    """`softmax_focal_loss` as a Keras loss.

    Args:
        alpha: Weight of every element, or a sequence of one weight for each class, not negative; ``None`` for no
            weighting.
        gamma: Focusing exponent.
        from_logits: Whether predictions are logits; otherwise probabilities.
        ignore_class: Label of elements that do not count, in means neither; ``None`` if there is none.
        reduction: As in `keras.losses.Loss`.
        name: The loss's name.

    Call: class indices (...) or (..., 1) and predictions (..., C); gives (...) losses before reduction. What
    predictions' Keras mask leaves out is as ignored.
    """

    def __init__(
        self,
        alpha=None,
        gamma=2.0,
        *,
        from_logits=True,
        ignore_class=255,
        reduction="sum_over_batch_size",
        name="softmax_focal",
        **kwargs,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)
        check_not_negative(gamma=gamma)
        self.alpha = _class_weights(alpha)
        self.gamma = gamma
        self.from_logits = from_logits
        self.ignore_class = ignore_class

    def call(self, y_true, y_pred, mask=None):
        """Return (...) losses."""
        logits = widen(y_pred) if self.from_logits else ops.log(ops.clip(widen(y_pred), 1e-7, 1))
        options = {"alpha": self.alpha, "gamma": self.gamma, "ignore_class": self.ignore_class, "mask": mask}
        loss = softmax_focal_loss(y_true, logits, **options)
        if self.ignore_class is None and mask is None:
            return loss
        return counting(loss, split_labels(y_true, logits, self.ignore_class, mask)[1])

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "gamma": self.gamma,
            "from_logits": self.from_logits,
            "ignore_class": self.ignore_class,
        }

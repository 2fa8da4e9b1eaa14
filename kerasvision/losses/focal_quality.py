"""Focal losses of continuous targets: quality and distribution focal ("generalised focal"), varifocal."""

import keras
from keras import ops

from kerasvision.losses.focal import binary_cross_entropy
from kerasvision.losses.inputs import WideLoss, check_not_negative, logits_of, power, widen


def quality_focal_loss(targets, logits, *, beta=2.0):
    """Return the quality focal loss |q - p|^beta BCE(q, p), element by element, p being the logit's sigmoid.

    Args:
        targets: (...) qualities q in [0, 1]: the IoU of a positive's box at its true class, 0 elsewhere.
        logits: (...), before the sigmoid.
        beta: How strongly elements near their target are played down; 0 gives cross-entropy.

    Returns:
        (...) non-negative float32 or float64, finite for every finite logit. With 0 < q < 1 it is least, 0, at p = q.

    Source: Li et al. 2020, https://arxiv.org/abs/2006.04388, equation 5.
    """
    targets, logits = widen(targets), widen(logits)
    distance = ops.sigmoid(logits) - targets
    distance = ops.where(distance >= 0, distance, -distance)
    return power(distance, beta) * binary_cross_entropy(targets, logits)


def distribution_focal_loss(targets, logits):
    """Return the distribution focal loss: cross-entropy with the two bins next to a continuous target.

    Args:
        targets: (...) positions in [0, K - 1], in bins; those outside count as the nearest end.
        logits: (..., K), before the softmax, of bins 0 to K - 1.

    Returns:
        (...) non-negative float32 or float64: -(i + 1 - y) log S_i - (y - i) log S_(i+1) for a target y between
        bins i and i + 1.

    Source: Li et al. 2020, https://arxiv.org/abs/2006.04388, equation 6.
    """
    logits = widen(logits)
    bins = logits.shape[-1]
    targets = ops.expand_dims(ops.clip(ops.cast(targets, logits.dtype), 0, bins - 1), -1)  # (..., 1)
    # The two neighbours' shares are a triangle around the target: no bin need be looked up.
    shares = ops.maximum(1 - ops.abs(targets - ops.arange(bins, dtype=logits.dtype)), 0)  # (..., K)
    return -ops.sum(shares * ops.log_softmax(logits, axis=-1), axis=-1)


def varifocal_loss(targets, logits, *, alpha=0.75, gamma=2.0):
    """Return the varifocal loss, element by element.

    Args:
        targets: (...) in [0, 1]: a positive's quality q, such as its box's IoU, at its true class, 0 elsewhere.
        logits: (...), before the sigmoid.
        alpha: Weight of negatives (targets of 0).
        gamma: How strongly well-classified negatives are played down; positives are weighted by q alone.

    Returns:
        (...) non-negative float32 or float64, finite for every finite logit: q BCE(q, p) where q > 0, and
        -alpha p^gamma log(1 - p) where q = 0.

    Source: Zhang et al. 2021, https://arxiv.org/abs/2008.13367, equation 2.
    """
    targets, logits = widen(targets), widen(logits)
    weights = ops.where(targets > 0, targets, alpha * power(ops.sigmoid(logits), gamma))
    return weights * binary_cross_entropy(targets, logits)


@keras.saving.register_keras_serializable("kerasvision")
class QualityFocalLoss(WideLoss):
    """`quality_focal_loss` as a Keras loss, summed over the last axis (the classes).

    Args:
        beta: Focusing exponent.
        from_logits: Whether predictions are logits; otherwise probabilities.
        reduction: As in `keras.losses.Loss`.
        name: The loss's name.

    Call: targets and predictions (..., C); gives (...) losses before reduction.
    """

    def __init__(self, beta=2.0, *, from_logits=True, reduction="sum_over_batch_size", name="quality_focal", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)
        check_not_negative(beta=beta)
        self.beta = beta
        self.from_logits = from_logits

    def call(self, y_true, y_pred):
        """Return (...) losses."""
        logits = y_pred if self.from_logits else logits_of(y_pred)
        return ops.sum(quality_focal_loss(y_true, logits, beta=self.beta), axis=-1)

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "beta": self.beta, "from_logits": self.from_logits}


@keras.saving.register_keras_serializable("kerasvision")
class DistributionFocalLoss(WideLoss):
    """`distribution_focal_loss` as a Keras loss.

    Args:
        reduction: As in `keras.losses.Loss`.
        name: The loss's name.

    Call: positions (...), in bins, and logits (..., K); gives (...) losses before reduction. With the four distances
    of a box these are (..., 4) and (..., 4, K); the paper averages them.
    """

    def __init__(self, *, reduction="sum_over_batch_size", name="distribution_focal", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true, y_pred):
        """Return (...) losses."""
        return distribution_focal_loss(y_true, y_pred)


@keras.saving.register_keras_serializable("kerasvision")
class VarifocalLoss(WideLoss):
    """`varifocal_loss` as a Keras loss, summed over the last axis (the classes).

    Args:
        alpha: Weight of negatives.
        gamma: Focusing exponent of negatives.
        from_logits: Whether predictions are logits; otherwise probabilities.
        reduction: As in `keras.losses.Loss`.
        name: The loss's name.

    Call: targets and predictions (..., C); gives (...) losses before reduction.
    """

    def __init__(
        self,
        alpha=0.75,
        gamma=2.0,
        *,
        from_logits=True,
        reduction="sum_over_batch_size",
        name="varifocal",
        **kwargs,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)
        check_not_negative(alpha=alpha, gamma=gamma)
        self.alpha = alpha
        self.gamma = gamma
        self.from_logits = from_logits

    def call(self, y_true, y_pred):
        """Return (...) losses."""
        logits = y_pred if self.from_logits else logits_of(y_pred)
        return ops.sum(varifocal_loss(y_true, logits, alpha=self.alpha, gamma=self.gamma), axis=-1)

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "alpha": self.alpha, "gamma": self.gamma, "from_logits": self.from_logits}

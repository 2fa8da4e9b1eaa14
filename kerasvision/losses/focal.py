"""Focal loss for dense classification."""

import keras
from keras import ops


def sigmoid_focal_loss(targets, logits, *, alpha=0.25, gamma=2.0):
    """Return the focal loss of independent binary classifications, element by element.

    Args:
        targets: (...) in [0, 1].
        logits: (...), before the sigmoid.
        alpha: Weight of positives, 1 - alpha being that of negatives; negative for no weighting.
        gamma: How strongly well-classified elements are played down; 0 gives cross-entropy.

    Returns:
        (...) non-negative, finite for every finite logit.

    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002, equation 5; torchvision.ops.sigmoid_focal_loss.
    """
    probabilities = ops.sigmoid(logits)
    # log(1 + exp(-|x|)) + max(x, 0) - x t: the cross-entropy that overflows for no logit. Written with `where`,
    # because TensorFlow's |x| and max(x, 0) have slopes of 0 and 1 at x = 0, and the sum would be wrong by 1/2.
    positive = logits >= 0
    cross_entropy = (
        ops.softplus(ops.where(positive, -logits, logits)) + ops.where(positive, logits, 0) - logits * targets
    )
    miss = probabilities + targets - 2 * probabilities * targets  # 1 - p_t
    loss = cross_entropy
    if gamma == 2:
        loss = loss * ops.square(miss)
    elif gamma != 0:
        # A certain and right answer misses by 0, where the slope of miss^gamma is infinite for gamma under 1.
        loss = loss * ops.power(ops.maximum(miss, 1e-12), gamma)
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return loss


@keras.saving.register_keras_serializable("kerasvision")
class SigmoidFocalLoss(keras.losses.Loss):
    """`sigmoid_focal_loss` as a Keras loss, summed over the last axis (the classes).

    Args:
        alpha: Weight of positives; negative for no weighting.
        gamma: Focusing exponent.
        from_logits: Whether predictions are logits; otherwise probabilities.
        reduction: As in `keras.losses.Loss`.
        name: The loss's name.
    """

    def __init__(
        self,
        alpha=0.25,
        gamma=2.0,
        *,
        from_logits=True,
        reduction="sum_over_batch_size",
        name="focal",
        **kwargs,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)
        self.alpha = alpha
        self.gamma = gamma
        self.from_logits = from_logits

    def call(self, y_true, y_pred):
        """Return (...) losses of (..., C) targets and predictions."""
        if not self.from_logits:
            y_pred = ops.clip(y_pred, 1e-7, 1 - 1e-7)
            y_pred = ops.log(y_pred) - ops.log(1 - y_pred)
        y_true = ops.cast(y_true, y_pred.dtype)
        return ops.sum(sigmoid_focal_loss(y_true, y_pred, alpha=self.alpha, gamma=self.gamma), axis=-1)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "gamma": self.gamma,
            "from_logits": self.from_logits,
        }

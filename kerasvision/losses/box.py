"""Losses between predicted and true boxes."""

import keras
from keras import ops

from kerasvision.ops import boxes


def smooth_l1(targets, predictions, *, beta=1.0):
    """Return the smooth L1 loss, element by element: quadratic under `beta`, linear above; plain L1 for beta 0.

    Source: Girshick 2015, https://arxiv.org/abs/1504.08083, equation 3; torch.nn.functional.smooth_l1_loss.
    """
    difference = ops.abs(targets - predictions)
    if beta == 0:
        return difference
    return ops.where(difference < beta, 0.5 * ops.square(difference) / beta, difference - 0.5 * beta)


@keras.saving.register_keras_serializable("kerasvision")
class SmoothL1Loss(keras.losses.Loss):
    """`smooth_l1` as a Keras loss, summed over the last axis (the coordinates).

    Args:
        beta: Difference at which the loss turns from quadratic to linear.
        reduction: As in `keras.losses.Loss`.
        name: The loss's name.
    """

    def __init__(self, beta=1.0, *, reduction="sum_over_batch_size", name="smooth_l1", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)
        self.beta = beta

    def call(self, y_true, y_pred):
        """Return (...) losses of (..., 4) targets and predictions."""
        return ops.sum(smooth_l1(ops.cast(y_true, y_pred.dtype), y_pred, beta=self.beta), axis=-1)

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "beta": self.beta}


@keras.saving.register_keras_serializable("kerasvision")
class GIoULoss(keras.losses.Loss):
    """One minus the generalised IoU of (..., 4) `xyxy` boxes; in [0, 2].

    Source: Rezatofighi et al. 2019, https://arxiv.org/abs/1902.09630.
    """

    def __init__(self, *, reduction="sum_over_batch_size", name="giou", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true, y_pred):
        """Return (...) losses."""
        return 1 - boxes.giou(ops.cast(y_true, y_pred.dtype), y_pred)

"""Losses between predicted and true boxes: of coordinates (smooth L1, Huber, balanced L1) and of overlap (IoU family).

A padded box is left out by a sample weight of 0, if its coordinates are finite: 0 times NaN is NaN.
"""

import math
from typing import Literal

import keras
from keras import ops

from kerasvision.losses.inputs import WideLoss, check_choice, check_not_negative, widen
from kerasvision.ops import boxes


def smooth_l1(targets, predictions, *, beta=1.0):
    """Return the smooth L1 loss, element by element: quadratic under `beta`, linear above; plain L1 for beta 0.

    Args:
        targets: (...) coordinates or deltas.
        predictions: (...).
        beta: Difference at which the loss turns from d^2 / (2 beta) to d - beta / 2.

    Returns:
        (...) float32 or float64; NaN where an input is NaN.

    Source: Girshick 2015, https://arxiv.org/abs/1504.08083, equation 3; torch.nn.functional.smooth_l1_loss.
    """
    difference = _difference(targets, predictions)
    if beta == 0:
        return difference
    return ops.where(difference < beta, 0.5 * ops.square(difference) / beta, difference - 0.5 * beta)


def huber(targets, predictions, *, delta=1.0):
    """Return the Huber loss, element by element: `delta` times the smooth L1 loss of beta `delta`.

    Args:
        targets: (...) coordinates or deltas.
        predictions: (...).
        delta: Difference at which the loss turns from d^2 / 2 to delta (d - delta / 2).

    Returns:
        (...) float32 or float64; NaN where an input is NaN.

    Source: Huber 1964; torch.nn.functional.huber_loss.
    """
    difference = _difference(targets, predictions)
    return ops.where(difference < delta, 0.5 * ops.square(difference), delta * (difference - 0.5 * delta))


def balanced_l1(targets, predictions, *, alpha=0.5, gamma=1.5, beta=1.0):
    """Return the balanced L1 loss, element by element: its slope rises as a logarithm, so that inliers weigh more.

    Args:
        targets: (...) coordinates or deltas.
        predictions: (...).
        alpha: The smaller, the steeper the loss of inliers.
        gamma: Slope at and beyond `beta`.
        beta: Difference from which the loss is linear.

    Returns:
        (...) float32 or float64: with b = exp(gamma / alpha) - 1, alpha / b (b d + beta) log(b d / beta + 1) - alpha d
        under beta and gamma d + (gamma / b - alpha) beta above; NaN where an input is NaN.

    Source: Pang et al. 2019 (Libra R-CNN), https://arxiv.org/abs/1904.02701, equations 9 and 10, whose beta is 1.
    Differs from mmdetection's for another beta: its slope jumps at 0 and at beta, this one is continuous.
    """
    difference = _difference(targets, predictions)
    b = math.expm1(gamma / alpha)
    inlier = ops.minimum(difference, beta)  # keeps the logarithm's branch finite
    curved = alpha / b * (b * inlier + beta) * ops.log1p(b * inlier / beta) - alpha * inlier
    return ops.where(difference < beta, curved, gamma * difference + (gamma / b - alpha) * beta)


def _difference(targets, predictions):
    predictions = widen(predictions)
    difference = predictions - ops.cast(targets, predictions.dtype)
    # |d| with a slope of 0 at 0, which JAX's abs does not have.
    return difference * ops.stop_gradient(ops.sign(difference))


def _check_positive(**arguments):
    for name, value in arguments.items():
        if not value > 0:
            raise ValueError(f"`{name}` is {value!r}, but must be a number over 0")


@keras.saving.register_keras_serializable("kerasvision")
class SmoothL1Loss(WideLoss):
    """`smooth_l1` as a Keras loss, summed over the last axis (the coordinates).

    Args:
        beta: Difference at which the loss turns from quadratic to linear.
        reduction: As in `keras.losses.Loss`.
        name: The loss's name.
    """

    def __init__(self, beta=1.0, *, reduction="sum_over_batch_size", name="smooth_l1", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)
        check_not_negative(beta=beta)
        self.beta = beta

    def call(self, y_true, y_pred):
        """Return (...) losses of (..., 4) targets and predictions."""
        return ops.sum(smooth_l1(y_true, y_pred, beta=self.beta), axis=-1)

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "beta": self.beta}


@keras.saving.register_keras_serializable("kerasvision")
class HuberLoss(WideLoss):
    """`huber` as a Keras loss, summed over the last axis (the coordinates); `keras.losses.Huber` averages there.

    Args:
        delta: Difference at which the loss turns from quadratic to linear; EfficientDet's is 0.1.
        reduction: As in `keras.losses.Loss`.
        name: The loss's name.
    """

    def __init__(self, delta=1.0, *, reduction="sum_over_batch_size", name="huber", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)
        _check_positive(delta=delta)
        self.delta = delta

    def call(self, y_true, y_pred):
        """Return (...) losses of (..., 4) targets and predictions."""
        return ops.sum(huber(y_true, y_pred, delta=self.delta), axis=-1)

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "delta": self.delta}


@keras.saving.register_keras_serializable("kerasvision")
class BalancedL1Loss(WideLoss):
    """`balanced_l1` as a Keras loss, summed over the last axis (the coordinates).

    Args:
        alpha: The smaller, the steeper the loss of inliers.
        gamma: Slope of outliers.
        beta: Difference from which the loss is linear.
        reduction: As in `keras.losses.Loss`.
        name: The loss's name.
    """

    def __init__(
        self, alpha=0.5, gamma=1.5, beta=1.0, *, reduction="sum_over_batch_size", name="balanced_l1", **kwargs
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)
        _check_positive(alpha=alpha, gamma=gamma, beta=beta)
        self.alpha = alpha
        self.gamma = gamma
        self.beta = beta

    def call(self, y_true, y_pred):
        """Return (...) losses of (..., 4) targets and predictions."""
        return ops.sum(balanced_l1(y_true, y_pred, alpha=self.alpha, gamma=self.gamma, beta=self.beta), axis=-1)

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "alpha": self.alpha, "gamma": self.gamma, "beta": self.beta}


@keras.saving.register_keras_serializable("kerasvision")
class IoULoss(WideLoss):
    """One minus the IoU of (..., 4) `xyxy` boxes, in [0, 1], or its negative logarithm.

    Args:
        mode: ``"linear"`` for 1 - IoU, ``"log"`` for -log(IoU) as in UnitBox, where an IoU under 1e-6 counts as 1e-6.
        reduction: As in `keras.losses.Loss`.
        name: The loss's name.

    Boxes that do not overlap have no slope: `GIoULoss`, `DIoULoss` and `CIoULoss` do.

    Source: Yu et al. 2016 (UnitBox), https://arxiv.org/abs/1608.01471, algorithm 1.
    """

    def __init__(
        self,
        mode: Literal["linear", "log"] = "linear",
        *,
        reduction="sum_over_batch_size",
        name="iou",
        **kwargs,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)
        check_choice("mode", mode, ("linear", "log"))
        self.mode = mode

    def call(self, y_true, y_pred):
        """Return (...) losses."""
        overlap = boxes.iou(ops.cast(y_true, y_pred.dtype), y_pred)
        return 1 - overlap if self.mode == "linear" else -ops.log(ops.maximum(overlap, 1e-6))

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "mode": self.mode}


@keras.saving.register_keras_serializable("kerasvision")
class GIoULoss(WideLoss):
    """One minus the generalised IoU of (..., 4) `xyxy` boxes, `ops.boxes.giou`; in [0, 2].

    Args:
        reduction: As in `keras.losses.Loss`.
        name: The loss's name.

    Source: Rezatofighi et al. 2019, https://arxiv.org/abs/1902.09630.
    """

    def __init__(self, *, reduction="sum_over_batch_size", name="giou", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true, y_pred):
        """Return (...) losses."""
        return 1 - boxes.giou(ops.cast(y_true, y_pred.dtype), y_pred)


@keras.saving.register_keras_serializable("kerasvision")
class DIoULoss(WideLoss):
    """One minus the distance IoU of (..., 4) `xyxy` boxes, `ops.boxes.diou`; in [0, 2].

    Args:
        reduction: As in `keras.losses.Loss`.
        name: The loss's name.

    Source: Zheng et al. 2020, https://arxiv.org/abs/1911.08287, equation 7.
    """

    def __init__(self, *, reduction="sum_over_batch_size", name="diou", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true, y_pred):
        """Return (...) losses."""
        return 1 - boxes.diou(ops.cast(y_true, y_pred.dtype), y_pred)


@keras.saving.register_keras_serializable("kerasvision")
class CIoULoss(WideLoss):
    """One minus the complete IoU of (..., 4) `xyxy` boxes, `ops.boxes.ciou`; in [0, 3].

    Args:
        reduction: As in `keras.losses.Loss`.
        name: The loss's name.

    Source: Zheng et al. 2020, https://arxiv.org/abs/1911.08287, equations 8 to 11.
    """

    def __init__(self, *, reduction="sum_over_batch_size", name="ciou", **kwargs):
        super().__init__(reduction=reduction, name=name, **kwargs)

    def call(self, y_true, y_pred):
        """Return (...) losses."""
        return 1 - boxes.ciou(ops.cast(y_true, y_pred.dtype), y_pred)

"""Losses of the overlap of predicted and true regions: Dice, Jaccard (soft IoU), Tversky and focal Tversky."""

from typing import Literal

import keras
from keras import ops

from kerasvision.losses.inputs import (
    PooledLoss,
    as_tuple,
    check_choice,
    check_not_negative,
    one_hot,
    power,
    split_labels,
    weights_of,
    widen,
    with_mask,
)

Mode = Literal["multiclass", "multilabel", "binary"]
MODES = ("multiclass", "multilabel", "binary")
ABSENT = ("skip", "zero", "count")


def region_sums(
    y_true, y_pred, *, mode: Mode = "multiclass", from_logits=True, ignore_class=255, per_image=False, mask=None
):
    """Return the soft sizes of each class's overlap, predicted region and true region, in pixels.

    Args:
        y_true: ``"multiclass"``: class indices (B, ...) or (B, ..., 1), those of no class adding to no true region.
            ``"multilabel"``: 0 or 1, (B, ..., C). ``"binary"``: 0 or 1, (B, ...) or (B, ..., 1).
        y_pred: (B, ..., C); for ``"binary"`` (B, ..., 1) or (B, ...).
        mode: What the targets are; logits become probabilities by softmax or, in the last two modes, by sigmoid.
        from_logits: Whether predictions are logits; otherwise probabilities.
        ignore_class: Value in `y_true` of pixels (multilabel: elements) that do not count; ``None`` if there is none.
        per_image: Whether to add up each image on its own.
        mask: (B, ...) bool, False for further pixels that do not count; or ``None``.

    Returns:
        Three tensors (C,), or (B, C) where `per_image`: sums over pixels of p t, p and t. C is 1 for ``"binary"``.
    """
    y_pred = widen(y_pred)
    if mode == "multiclass":
        labels, counted = split_labels(y_true, y_pred, ignore_class)
        targets = one_hot(labels, y_pred.shape[-1], y_pred.dtype)
        counted = ops.expand_dims(counted, -1)
    else:
        y_true, y_pred = _with_classes(y_true, y_pred, mode)
        targets = ops.cast(y_true, y_pred.dtype)
        counted = ops.ones_like(targets, dtype="bool") if ignore_class is None else targets != ignore_class
    counted = with_mask(counted, mask)
    y_pred = ops.where(counted, y_pred, 0)  # not even NaN counts
    activation = ops.softmax if mode == "multiclass" else ops.sigmoid
    probabilities = ops.where(counted, activation(y_pred) if from_logits else y_pred, 0)
    targets = ops.where(counted, targets, 0)
    axes = tuple(range(int(per_image), len(probabilities.shape) - 1))
    return (
        ops.sum(probabilities * targets, axis=axes),
        ops.sum(probabilities, axis=axes),
        ops.sum(targets, axis=axes),
    )


def _with_classes(y_true, y_pred, mode):
    """Return targets and predictions of equal rank, with a last axis for classes."""
    if mode == "binary":
        if len(y_pred.shape) == len(y_true.shape) and y_pred.shape[-1] != 1:
            y_pred = ops.expand_dims(y_pred, -1)
        if len(y_true.shape) == len(y_pred.shape) - 1:
            y_true = ops.expand_dims(y_true, -1)
    true, predicted = tuple(y_true.shape), tuple(y_pred.shape)
    if len(true) != len(predicted) or (None not in (true[-1], predicted[-1]) and true[-1] != predicted[-1]):
        raise ValueError(
            f"`y_true` has shape {true} and `y_pred` {predicted}, but mode {mode!r} needs a target for each "
            'prediction; use mode="multiclass" for class indices'
        )
    return y_true, y_pred


def tversky_index(overlap, predicted, true, *, alpha, beta, smooth=0.0):
    """Return (TP + smooth) / (TP + alpha FP + beta FN + smooth) from the sizes of regions, 1 where all are empty.

    Args:
        overlap: (...) soft true positives TP.
        predicted: (...) sizes of the predicted regions, TP + FP.
        true: (...) sizes of the true regions, TP + FN.
        alpha: Weight of false positives; 0.5 with `beta` 0.5 gives the Dice coefficient, 1 with 1 the IoU.
        beta: Weight of false negatives.
        smooth: Pixels added to both sides.

    Returns:
        (...) in [0, 1].
    """
    total = (1 - alpha - beta) * overlap + alpha * predicted + beta * true + smooth
    return ops.where(total > 1e-7, (overlap + smooth) / ops.maximum(total, 1e-7), 1)


class RegionLoss(PooledLoss):
    """One minus an index of overlap, averaged over classes. Base of the losses here, which set the index.

    Args:
        mode: ``"multiclass"`` (class indices, softmax), ``"multilabel"`` (a 0 or 1 for each class, sigmoid) or
            ``"binary"`` (a 0 or 1, one prediction, sigmoid).
        from_logits: Whether predictions are logits; otherwise probabilities.
        ignore_class: Value in the targets of pixels (multilabel: elements) that do not count; ``None`` if there is
            none.
        smooth: Added to both numerator and denominator of the index, in pixels.
        log: Whether the loss is -log(index), the index being at least 1e-7, and not 1 - index.
        per_image: Whether each image has a loss of its own, so that small ones weigh as much; otherwise regions are
            added up over the batch.
        absent: What of a class that no counted pixel has, whose index says nothing about its shape: ``"skip"``
            leaves it out of the mean; ``"zero"`` counts it with a loss of 0, as segmentation_models.pytorch does;
            ``"count"`` takes it as it is, so that with a `smooth` over 0 false positives are punished.
        class_weights: Weight of each class in the mean, 0 to leave it out; ``None`` for equal weights.
        reduction: As in `keras.losses.Loss`.
        name: The loss's name.

    Call: targets and predictions as in `region_sums`. Gives losses (B,) before reduction where `per_image`, otherwise
    (1,), which sample weights, one for each image, scale by their mean. It is 0 where nothing counts; neither do
    pixels that predictions' Keras mask leaves out.
    """

    def __init__(
        self,
        *,
        mode: Mode = "multiclass",
        from_logits=True,
        ignore_class=255,
        smooth=0.0,
        log=False,
        per_image=False,
        absent: Literal["skip", "zero", "count"] = "skip",
        class_weights=None,
        reduction="sum_over_batch_size",
        name=None,
        **kwargs,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)
        check_choice("mode", mode, MODES)
        check_choice("absent", absent, ABSENT)
        check_not_negative(smooth=smooth)
        self.mode: Mode = mode
        self.from_logits = from_logits
        self.ignore_class = ignore_class
        self.smooth = smooth
        self.log = log
        self.per_image = per_image
        self.absent = absent
        self.class_weights = as_tuple("class_weights", class_weights)

    def index(self, overlap, predicted, true):
        """Return the index of (...) sizes of regions."""
        raise NotImplementedError

    def focus(self, losses):
        """Return the losses of (..., C) classes, shaped before they are averaged."""
        return losses

    def call(self, y_true, y_pred, mask=None):
        """Return (B,) or (1,) losses."""
        overlap, predicted, true = region_sums(
            y_true,
            y_pred,
            mode=self.mode,
            from_logits=self.from_logits,
            ignore_class=self.ignore_class,
            per_image=self.per_image,
            mask=mask,
        )  # (C,) or (B, C)
        index = self.index(overlap, predicted, true)
        losses = self.focus(-ops.log(ops.maximum(index, 1e-7)) if self.log else 1 - index)
        weights = ops.ones_like(losses)
        if self.class_weights is not None:
            given = weights_of("class_weights", self.class_weights, losses.shape[-1])
            weights = weights * ops.cast(given, losses.dtype)
        present = ops.ones_like(losses) if self.absent == "count" else ops.cast(true > 0, losses.dtype)
        total = ops.sum(weights * present if self.absent == "skip" else weights, axis=-1)
        mean = ops.sum(losses * weights * present, axis=-1) / ops.where(total > 0, total, 1)
        return mean if self.per_image else ops.expand_dims(mean, 0)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "mode": self.mode,
            "from_logits": self.from_logits,
            "ignore_class": self.ignore_class,
            "smooth": self.smooth,
            "log": self.log,
            "per_image": self.per_image,
            "absent": self.absent,
            "class_weights": self.class_weights,
        }


@keras.saving.register_keras_serializable("kerasvision")
class DiceLoss(RegionLoss):
    """One minus the soft Dice coefficient, averaged over classes.

    The coefficient of a class is (2 sum p t + smooth) / (sum p + sum t + smooth) over all pixels that count.

    Args:
        name: The loss's name.
        **kwargs: As in `RegionLoss`: `mode`, `from_logits`, `ignore_class`, `smooth`, `log`, `per_image`, `absent`,
            `class_weights`, `reduction`.

    Source: Milletari et al. 2016, https://arxiv.org/abs/1606.04797, with the unsquared denominator of
    segmentation_models.pytorch's `DiceLoss`, which this equals with ``absent="zero"`` and twice its `smooth`.
    """

    def __init__(self, *, name="dice", **kwargs):
        super().__init__(name=name, **kwargs)

    def index(self, overlap, predicted, true):
        """Return the Dice coefficients of (...) sizes of regions."""
        return tversky_index(overlap, predicted, true, alpha=0.5, beta=0.5, smooth=0.5 * self.smooth)


@keras.saving.register_keras_serializable("kerasvision")
class JaccardLoss(RegionLoss):
    """One minus the soft IoU, averaged over classes.

    The IoU of a class is (sum p t + smooth) / (sum p + sum t - sum p t + smooth) over all pixels that count.

    Args:
        name: The loss's name.
        **kwargs: As in `RegionLoss`: `mode`, `from_logits`, `ignore_class`, `smooth`, `log`, `per_image`, `absent`,
            `class_weights`, `reduction`.

    Source: Rahman and Wang 2016, https://doi.org/10.1007/978-3-319-50835-1_22, equation 3. Equals
    segmentation_models.pytorch's `JaccardLoss` with ``absent="zero"``.
    """

    def __init__(self, *, name="jaccard", **kwargs):
        super().__init__(name=name, **kwargs)

    def index(self, overlap, predicted, true):
        """Return the soft IoUs of (...) sizes of regions."""
        return tversky_index(overlap, predicted, true, alpha=1, beta=1, smooth=self.smooth)


@keras.saving.register_keras_serializable("kerasvision")
class TverskyLoss(RegionLoss):
    """One minus the Tversky index, averaged over classes: false positives and false negatives weigh differently.

    The index of a class is (TP + smooth) / (TP + alpha FP + beta FN + smooth) over all pixels that count.

    Args:
        alpha: Weight of false positives.
        beta: Weight of false negatives; the paper found 0.3 and 0.7 best for small lesions. 0.5 and 0.5, the
            defaults of Keras and segmentation_models.pytorch, give the Dice loss, 1 and 1 the Jaccard loss.
        name: The loss's name.
        **kwargs: As in `RegionLoss`: `mode`, `from_logits`, `ignore_class`, `smooth`, `log`, `per_image`, `absent`,
            `class_weights`, `reduction`.

    Source: Salehi et al. 2017, https://arxiv.org/abs/1706.05721, equation 3. Equals segmentation_models.pytorch's
    `TverskyLoss` with ``absent="zero"``.
    """

    def __init__(self, alpha=0.3, beta=0.7, *, name="tversky", **kwargs):
        super().__init__(name=name, **kwargs)
        check_not_negative(alpha=alpha, beta=beta)
        self.alpha = alpha
        self.beta = beta

    def index(self, overlap, predicted, true):
        """Return the Tversky indices of (...) sizes of regions."""
        return tversky_index(overlap, predicted, true, alpha=self.alpha, beta=self.beta, smooth=self.smooth)

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "alpha": self.alpha, "beta": self.beta}


@keras.saving.register_keras_serializable("kerasvision")
class FocalTverskyLoss(TverskyLoss):
    """(1 - Tversky index)^gamma, averaged over classes.

    Args:
        alpha: Weight of false positives.
        beta: Weight of false negatives.
        gamma: Exponent: under 1 it plays up classes that are nearly right, over 1 those that are not. The default is
            the paper's 1 / gamma of 3 / 4.
        of_mean: Whether the mean over classes is raised to the exponent, as in segmentation_models.pytorch's
            `TverskyLoss`, and not each class.
        name: The loss's name.
        **kwargs: As in `RegionLoss`: `mode`, `from_logits`, `ignore_class`, `smooth`, `log`, `per_image`, `absent`,
            `class_weights`, `reduction`.

    Source: Abraham and Khan 2018, https://arxiv.org/abs/1810.07842, equation 4, whose alpha is this beta. Differs
    from the paper: the mean over classes, not the sum.
    """

    def __init__(self, alpha=0.3, beta=0.7, gamma=0.75, *, of_mean=False, name="focal_tversky", **kwargs):
        super().__init__(alpha, beta, name=name, **kwargs)
        check_not_negative(gamma=gamma)
        self.gamma = gamma
        self.of_mean = of_mean

    def focus(self, losses):
        """Return (..., C) losses to the exponent."""
        return losses if self.of_mean else power(losses, self.gamma)

    def call(self, y_true, y_pred, mask=None):
        """Return (B,) or (1,) losses."""
        losses = super().call(y_true, y_pred, mask=mask)
        return power(losses, self.gamma) if self.of_mean else losses

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "gamma": self.gamma, "of_mean": self.of_mean}

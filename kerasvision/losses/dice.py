"""Dice loss for segmentation."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kerasvision")
class DiceLoss(keras.losses.Loss):
    """One minus the soft Dice coefficient, averaged over the classes present in each batch.

    The coefficient of class c is 2 sum(p_c t_c) / (sum p_c + sum t_c) over all pixels of the batch that are
    not ignored. Classes that no pixel of the batch has are left out, as their coefficient is undefined.

    Args:
        from_logits: Whether predictions are logits; otherwise probabilities.
        ignore_class: Mask value of pixels that do not count; ``None`` if there is none.
        smooth: Added to both numerator and denominator, in pixels.
        name: The loss's name.

    Call: integer masks (B, H, W) and predictions (B, H, W, C); returns a scalar in [0, 1], 0 for a batch
    without any counted pixel.

    Source: Milletari et al. 2016, https://arxiv.org/abs/1606.04797, with the unsquared denominator of
    segmentation_models.pytorch's multiclass `DiceLoss`.
    """

    def __init__(self, *, from_logits=True, ignore_class=255, smooth=0.0, name="dice", **kwargs):
        kwargs.setdefault("reduction", "sum")  # call() returns the batch's mean already
        super().__init__(name=name, **kwargs)
        self.from_logits = from_logits
        self.ignore_class = ignore_class
        self.smooth = smooth

    def call(self, y_true, y_pred):
        """Return the scalar loss."""
        probabilities = ops.softmax(y_pred, axis=-1) if self.from_logits else y_pred
        y_true = ops.cast(y_true, "int32")
        counted = ops.ones_like(y_true, dtype="bool") if self.ignore_class is None else y_true != self.ignore_class
        # one_hot gives all zeros for labels out of range, so ignored pixels vanish from the targets ...
        targets = ops.one_hot(ops.where(counted, y_true, -1), y_pred.shape[-1], dtype=probabilities.dtype)
        # ... and this takes them out of the predictions.
        probabilities = probabilities * ops.cast(ops.expand_dims(counted, -1), probabilities.dtype)
        axes = tuple(range(len(y_pred.shape) - 1))
        intersection = ops.sum(probabilities * targets, axis=axes)  # (C,)
        pixels = ops.sum(targets, axis=axes)  # (C,)
        total = ops.sum(probabilities, axis=axes) + pixels  # (C,)
        coefficient = (2 * intersection + self.smooth) / ops.maximum(total + self.smooth, 1e-7)
        present = ops.cast(pixels > 0, probabilities.dtype)
        return ops.sum((1 - coefficient) * present) / ops.maximum(ops.sum(present), 1)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "from_logits": self.from_logits,
            "ignore_class": self.ignore_class,
            "smooth": self.smooth,
        }

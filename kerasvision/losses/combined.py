"""Sums of losses, such as cross-entropy and Dice."""

import keras

from kerasvision.losses.inputs import PooledLoss


@keras.saving.register_keras_serializable("kerasvision")
class CombinedLoss(keras.losses.Loss):
    """A sum of losses of the same targets and predictions, each times a factor.

    Args:
        losses: Keras losses, each of which gives one number: reduced, as they are by default.
        factors: A number of at least 0 for each, or ``None`` for 1.
        name: The loss's name.

    Call: targets and predictions as all of the losses take them. Sample weights that are not one for each image, but
    one for each pixel, leave losses of whole regions as they are (Dice, Lovász), unless there are no others.

    Raises:
        ValueError: No losses, one that is no Keras loss or not reduced, factors that do not fit, or losses that ignore
            different classes.

    Example:
    >>> from kerasvision import losses
    >>> losses.get("cross_entropy + 0.5 * dice").factors
    (1.0, 0.5)
    """

    def __init__(self, losses, factors=None, *, name="combined"):
        super().__init__(name=name)
        self.losses = tuple(losses)
        self.factors = (1.0,) * len(self.losses) if factors is None else tuple(float(factor) for factor in factors)
        if not self.losses:
            raise ValueError("`losses` is empty; give one Keras loss or more")
        for loss in self.losses:
            if not isinstance(loss, keras.losses.Loss) or loss.reduction in (None, "none"):
                shown = f"{loss.name} with reduction {loss.reduction!r}" if hasattr(loss, "reduction") else repr(loss)
                raise ValueError(
                    f"`losses` holds {shown}; give keras.losses.Loss objects whose reduction is a mean or sum"
                )
        if len(self.factors) != len(self.losses) or not all(factor >= 0 for factor in self.factors):
            raise ValueError(
                f"`factors` {self.factors} must be {len(self.losses)} numbers of at least 0, one for each loss"
            )
        ignored = [loss.ignore_class for loss in self.losses if hasattr(loss, "ignore_class")]
        if len(set(ignored)) > 1:
            raise ValueError(f"`losses` have different `ignore_class`: {ignored}; give all the same")
        self.ignore_class = ignored[0] if ignored else None

    def __call__(self, y_true, y_pred, sample_weight=None):
        """Return the sum, a scalar."""
        shape = getattr(sample_weight, "shape", ())
        of_pixels = any(size != 1 for size in shape[1:]) and not all(
            isinstance(loss, PooledLoss) for loss in self.losses
        )
        total = 0.0
        for factor, loss in zip(self.factors, self.losses, strict=True):
            weights = None if of_pixels and isinstance(loss, PooledLoss) else sample_weight
            total += factor * loss(y_true, y_pred, sample_weight=weights)
        return total

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            "losses": [keras.saving.serialize_keras_object(loss) for loss in self.losses],
            "factors": self.factors,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        """Return the loss of a configuration."""
        losses = [keras.saving.deserialize_keras_object(loss) for loss in config["losses"]]
        return cls(**{**config, "losses": losses})

"""What a user may give a segmenter's `compile` as its loss: a name, an object or a function, fit for logits."""

import functools
import inspect

import keras

from kerasvision import losses
from kerasvision.losses.boundary import BoundaryCrossEntropyLoss
from kerasvision.losses.region import RegionLoss

# Keras's functions that take probabilities for granted, unless told otherwise: what to use in their place, and the
# class that can be told. Functions of any numbers, such as the mean squared error, and of scores, such as the hinge
# loss, are the user's choice.
_PROBABILITIES = {
    keras.losses.binary_crossentropy: ("focal", "BinaryCrossentropy"),
    keras.losses.binary_focal_crossentropy: ("focal", "BinaryFocalCrossentropy"),
    keras.losses.categorical_crossentropy: ("cross_entropy", "CategoricalCrossentropy"),
    keras.losses.categorical_focal_crossentropy: ("softmax_focal", "CategoricalFocalCrossentropy"),
    keras.losses.categorical_generalized_cross_entropy: ("cross_entropy", None),
    keras.losses.dice: ("dice", None),
    keras.losses.kl_divergence: ("cross_entropy", None),
    keras.losses.poisson: ("cross_entropy", None),
    keras.losses.sparse_categorical_crossentropy: ("cross_entropy", "SparseCategoricalCrossentropy"),
    keras.losses.tversky: ("tversky", None),
    keras.ops.binary_crossentropy: ("focal", "BinaryCrossentropy"),
    keras.ops.categorical_crossentropy: ("cross_entropy", "CategoricalCrossentropy"),
    keras.ops.sparse_categorical_crossentropy: ("cross_entropy", "SparseCategoricalCrossentropy"),
}
_CLASS_IDS = (
    keras.losses.SparseCategoricalCrossentropy,
    BoundaryCrossEntropyLoss,
    losses.CrossEntropyLoss,
    losses.LovaszSoftmaxLoss,
    losses.OHEMCrossEntropyLoss,
    losses.SoftmaxFocalLoss,
)


def segmentation_loss(loss, ignore_class=255):
    """Return the loss of a segmenter, which gives logits.

    Args:
        loss: A name as `kerasvision.losses.get` takes, or several ("cross_entropy + dice"), a Keras loss, its class or
            configuration, a function, a list of these, or ``None``.
        ignore_class: What a loss given by name ignores, if it would ignore nothing: "focal", a detector's loss too,
            would teach pixels of 255 that they are of no class.

    Raises:
        ValueError: A name that nothing has, or a loss that reads probabilities, whatever it is called. Losses of any
            numbers, such as Keras's "mse", and functions of the user's own pass.
    """
    if isinstance(loss, list | tuple):
        return [segmentation_loss(part, ignore_class) for part in loss]
    given = loss
    if isinstance(loss, str | type) or (isinstance(loss, dict) and "class_name" in loss):
        loss = losses.get(loss)
    if isinstance(given, str) and getattr(loss, "ignore_class", ignore_class) is None:
        loss = losses.get(given, ignore_class=ignore_class)
    if isinstance(loss, losses.CombinedLoss):
        for part in loss.losses:
            segmentation_loss(part)
        return loss
    function, options = _function_of(loss)
    if function in _PROBABILITIES and options.get("from_logits") is not True:
        ours, of_logits = _PROBABILITIES[function]
        other = f", or keras.losses.{of_logits}(from_logits=True)" if of_logits else ""
        raise ValueError(
            f"`loss` {_shown(given)} reads probabilities, but a segmenter gives logits; use {ours!r}, which is "
            f"kerasvision.losses.{losses.by_name.BY_NAME[ours].__name__}{other}"
        )
    if isinstance(loss, keras.losses.Loss) and getattr(loss, "from_logits", True) is False:
        raise ValueError(
            f"`loss` {_shown(given)} reads probabilities, but a segmenter gives logits; construct it with "
            "from_logits=True"
        )
    return loss


def _function_of(loss):
    """Return the function that a loss is or calls, if it can be compared, and its options."""
    if isinstance(loss, functools.partial):
        function, options = _function_of(loss.func)
        return function, {**options, **loss.keywords}
    if isinstance(loss, keras.losses.Loss):
        # Keras's objects hold a function, unless a subclass calls something else.
        wraps = type(loss).call is keras.losses.Dice.call
        return (loss.fn, loss._fn_kwargs) if wraps else (None, {})
    return (loss if inspect.isfunction(loss) else None), {}


def _shown(loss):
    """Return how an error calls a loss."""
    if isinstance(loss, str | dict):
        return repr(loss)
    if isinstance(loss, functools.partial):
        return _shown(loss.func)
    if isinstance(loss, keras.losses.Loss):
        return type(loss).__name__
    return repr(loss.__name__)


def reads_class_ids(loss) -> bool:
    """Return whether a loss reads masks of class ids, and not a 0 or 1 for each class."""
    if isinstance(loss, losses.CombinedLoss):
        return any(map(reads_class_ids, loss.losses))  # all are given the same masks
    return isinstance(loss, _CLASS_IDS) or (isinstance(loss, RegionLoss) and loss.mode == "multiclass")

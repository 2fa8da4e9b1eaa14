"""What a user may give a segmenter's `compile` as its loss: a name, an object or a function, fit for logits."""

import keras

from kerasvision import losses
from kerasvision.losses.boundary import BoundaryCrossEntropyLoss
from kerasvision.losses.region import RegionLoss

# Keras resolves these names to functions that take probabilities for granted.
_PROBABILITIES = {
    "sparse_categorical_crossentropy": "cross_entropy",
    "categorical_crossentropy": "cross_entropy",
    "categorical_focal_crossentropy": "softmax_focal",
    "binary_crossentropy": "focal",
    "binary_focal_crossentropy": "focal",
}
_CLASS_IDS = (
    keras.losses.SparseCategoricalCrossentropy,
    BoundaryCrossEntropyLoss,
    losses.CrossEntropyLoss,
    losses.LovaszSoftmaxLoss,
    losses.OHEMCrossEntropyLoss,
    losses.SoftmaxFocalLoss,
)


def segmentation_loss(loss):
    """Return the loss of a segmenter, which gives logits.

    Args:
        loss: A name as `kerasvision.losses.get` takes, a Keras loss, a function, or ``None``.

    Raises:
        ValueError: A name that nothing has, or a loss that reads probabilities.
    """
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", None)
    if name in _PROBABILITIES:
        raise ValueError(
            f"`loss` {name!r} reads probabilities, but a segmenter gives logits; use {_PROBABILITIES[name]!r}, or "
            "one of Keras's loss classes with from_logits=True"
        )
    if isinstance(loss, str):
        loss = losses.get(loss)
    if isinstance(loss, keras.losses.Loss) and getattr(loss, "from_logits", True) is False:
        raise ValueError(
            f"`loss` {type(loss).__name__} reads probabilities, but a segmenter gives logits; construct it with "
            "from_logits=True"
        )
    return loss


def reads_class_ids(loss) -> bool:
    """Return whether a loss reads masks of class ids, and not a 0 or 1 for each class."""
    return isinstance(loss, _CLASS_IDS) or (isinstance(loss, RegionLoss) and loss.mode == "multiclass")

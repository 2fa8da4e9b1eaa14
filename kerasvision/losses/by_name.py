"""Losses by name, for `compile(loss="dice")` and the command line."""

import keras

from kerasvision.losses.boundary import BoundaryCrossEntropyLoss
from kerasvision.losses.box import BalancedL1Loss, CIoULoss, DIoULoss, GIoULoss, HuberLoss, IoULoss, SmoothL1Loss
from kerasvision.losses.combined import CombinedLoss
from kerasvision.losses.cross_entropy import CrossEntropyLoss, OHEMCrossEntropyLoss
from kerasvision.losses.focal import SigmoidFocalLoss, SoftmaxFocalLoss
from kerasvision.losses.focal_quality import DistributionFocalLoss, QualityFocalLoss, VarifocalLoss
from kerasvision.losses.lovasz import LovaszHingeLoss, LovaszSoftmaxLoss
from kerasvision.losses.region import DiceLoss, FocalTverskyLoss, JaccardLoss, TverskyLoss
from kerasvision.losses.set_loss import SetLoss
from kerasvision.naming import close_matches

# Each under the name that it has in logs by default.
BY_NAME: dict[str, type[keras.losses.Loss]] = {
    "balanced_l1": BalancedL1Loss,
    "boundary_cross_entropy": BoundaryCrossEntropyLoss,
    "ciou": CIoULoss,
    "cross_entropy": CrossEntropyLoss,
    "dice": DiceLoss,
    "diou": DIoULoss,
    "distribution_focal": DistributionFocalLoss,
    "focal": SigmoidFocalLoss,
    "focal_tversky": FocalTverskyLoss,
    "giou": GIoULoss,
    "huber": HuberLoss,
    "iou": IoULoss,
    "jaccard": JaccardLoss,
    "lovasz_hinge": LovaszHingeLoss,
    "lovasz_softmax": LovaszSoftmaxLoss,
    "ohem_cross_entropy": OHEMCrossEntropyLoss,
    "quality_focal": QualityFocalLoss,
    "set_loss": SetLoss,
    "smooth_l1": SmoothL1Loss,
    "softmax_focal": SoftmaxFocalLoss,
    "tversky": TverskyLoss,
    "varifocal": VarifocalLoss,
}


def get(identifier, **options):
    """Return the loss of a name, or the sum of several.

    Args:
        identifier: One of `BY_NAME`; several with plus signs between, each times a factor if wanted, such as
            "cross_entropy + 0.5 * dice", for a `CombinedLoss`; or whatever `keras.losses.get` takes: a name of Keras's
            own, a configuration, a function, a loss or ``None``. A name that both have means ours, in capitals too:
            "dice", and "Dice", which in Keras is the class of its own.
        **options: Arguments of the loss, if `identifier` is one of `BY_NAME`, or of each that is added up.

    Raises:
        ValueError: If neither knows the name, or if options come with something else than a name of ours.

    Example:
    >>> get("dice", mode="binary").mode
    'binary'
    """
    if isinstance(identifier, str) and identifier.lower() in BY_NAME:
        return BY_NAME[identifier.lower()](**options)
    if isinstance(identifier, str) and set(identifier) & set("+*"):
        return _sum_of(identifier, options)
    if options:
        raise ValueError(
            f"`identifier` is {identifier!r}, which takes no options here, but {', '.join(options)} came; give a loss "
            "that has them already"
        )
    try:
        return keras.losses.get(identifier)
    except ValueError:
        if not isinstance(identifier, str):
            raise
    raise ValueError(f"`identifier` {identifier!r} is no loss's name; {close_matches(identifier, BY_NAME)}")


def _sum_of(text, options):
    """Return the `CombinedLoss` that a text such as "cross_entropy + 0.5 * dice" names."""
    names, factors = [], []
    for term in text.split("+"):
        factor, times, name = term.rpartition("*")
        names.append(name.strip())
        try:
            factors.append(float(factor) if times else 1.0)
        except ValueError:
            raise ValueError(
                f"`identifier` {text!r} has the factor {factor.strip()!r}, which is no number; write such as "
                "'cross_entropy + 0.5 * dice'"
            ) from None
        if names[-1].lower() not in BY_NAME:
            raise ValueError(
                f"`identifier` {text!r} adds up {names[-1]!r}, which is no loss of ours; "
                f"{close_matches(names[-1], BY_NAME)}"
            )
    parts = [get(name, **options) for name in names]
    # "focal" ignores nothing unless told to, since it is a detector's too; beside a loss of masks it is one of masks.
    ignored = {part.ignore_class for part in parts if getattr(part, "ignore_class", None) is not None}
    for index, part in enumerate(parts):
        if ignored and getattr(part, "ignore_class", 0) is None:
            parts[index] = get(names[index], **{**options, "ignore_class": min(ignored)})
    return CombinedLoss(parts, factors, name=text)

"""Losses, each a `keras.losses.Loss`, and `get`, which knows them by name."""

from kerasvision.losses.boundary import BoundaryCrossEntropyLoss, unet_weight_map
from kerasvision.losses.box import BalancedL1Loss, CIoULoss, DIoULoss, GIoULoss, HuberLoss, IoULoss, SmoothL1Loss
from kerasvision.losses.by_name import get
from kerasvision.losses.combined import CombinedLoss
from kerasvision.losses.cross_entropy import CrossEntropyLoss, OHEMCrossEntropyLoss
from kerasvision.losses.focal import SigmoidFocalLoss, SoftmaxFocalLoss
from kerasvision.losses.focal_quality import DistributionFocalLoss, QualityFocalLoss, VarifocalLoss
from kerasvision.losses.lovasz import LovaszHingeLoss, LovaszSoftmaxLoss
from kerasvision.losses.region import DiceLoss, FocalTverskyLoss, JaccardLoss, TverskyLoss
from kerasvision.losses.set_loss import SetLoss

__all__ = [
    "BalancedL1Loss",
    "BoundaryCrossEntropyLoss",
    "CIoULoss",
    "CombinedLoss",
    "CrossEntropyLoss",
    "DIoULoss",
    "DiceLoss",
    "DistributionFocalLoss",
    "FocalTverskyLoss",
    "GIoULoss",
    "HuberLoss",
    "IoULoss",
    "JaccardLoss",
    "LovaszHingeLoss",
    "LovaszSoftmaxLoss",
    "OHEMCrossEntropyLoss",
    "QualityFocalLoss",
    "SetLoss",
    "SigmoidFocalLoss",
    "SmoothL1Loss",
    "SoftmaxFocalLoss",
    "TverskyLoss",
    "VarifocalLoss",
    "get",
    "unet_weight_map",
]

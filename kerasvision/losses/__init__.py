"""Losses, each a `keras.losses.Loss`."""

from kerasvision.losses.box import GIoULoss, SmoothL1Loss
from kerasvision.losses.dice import DiceLoss
from kerasvision.losses.focal import SigmoidFocalLoss

__all__ = ["DiceLoss", "GIoULoss", "SigmoidFocalLoss", "SmoothL1Loss"]

"""Architectures: one file each."""

from kerasvision.models.base import Detector, Segmenter
from kerasvision.models.retinanet import RetinaNet
from kerasvision.models.unet import UNet

__all__ = ["Detector", "RetinaNet", "Segmenter", "UNet"]

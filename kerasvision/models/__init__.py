"""Architectures: one file each."""

from kerasvision.models.attention_unet import AttentionUNet
from kerasvision.models.base import Detector, Segmenter
from kerasvision.models.deeplab_v1 import DeepLabV1
from kerasvision.models.deeplab_v2 import DeepLabV2
from kerasvision.models.deeplab_v3 import DeepLabV3
from kerasvision.models.deeplab_v3_plus import DeepLabV3Plus
from kerasvision.models.dilated_fcn import DilatedFCN
from kerasvision.models.fast_rcnn import FastRCNN
from kerasvision.models.faster_rcnn import FasterRCNN
from kerasvision.models.fcn import FCN
from kerasvision.models.non_finite import NonFiniteLossError, StopOnNonFiniteLoss
from kerasvision.models.rcnn import RCNN
from kerasvision.models.retinanet import RetinaNet
from kerasvision.models.targets import pad_targets
from kerasvision.models.unet import UNet
from kerasvision.models.unet_plus_plus import UNetPlusPlus
from kerasvision.models.unet_s5_d16 import UNetS5D16

__all__ = [
    "FCN",
    "RCNN",
    "AttentionUNet",
    "DeepLabV1",
    "DeepLabV2",
    "DeepLabV3",
    "DeepLabV3Plus",
    "Detector",
    "DilatedFCN",
    "FastRCNN",
    "FasterRCNN",
    "NonFiniteLossError",
    "RetinaNet",
    "Segmenter",
    "StopOnNonFiniteLoss",
    "UNet",
    "UNetPlusPlus",
    "UNetS5D16",
    "pad_targets",
]

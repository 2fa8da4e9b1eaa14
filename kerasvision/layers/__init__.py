"""Keras layers that architectures are built from."""

from kerasvision.layers.anchor_generator import (
    AnchorGenerator,
    DefaultBoxGenerator,
    OctaveAnchorGenerator,
    PriorBoxGenerator,
)
from kerasvision.layers.convolution import ConvolutionBlock
from kerasvision.layers.feature_pyramid import FeaturePyramid
from kerasvision.layers.non_max_suppression import NonMaxSuppression
from kerasvision.layers.normalization import FrozenBatchNormalization, ImageNormalization
from kerasvision.layers.roi_align import RoIAlign
from kerasvision.layers.roi_pool import RoIPool
from kerasvision.layers.unet_blocks import UNetDecoderBlock, UNetDoubleConvolution

__all__ = [
    "AnchorGenerator",
    "ConvolutionBlock",
    "DefaultBoxGenerator",
    "FeaturePyramid",
    "FrozenBatchNormalization",
    "ImageNormalization",
    "NonMaxSuppression",
    "OctaveAnchorGenerator",
    "PriorBoxGenerator",
    "RoIAlign",
    "RoIPool",
    "UNetDecoderBlock",
    "UNetDoubleConvolution",
]

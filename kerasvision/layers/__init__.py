"""Keras layers that architectures are built from."""

from kerasvision.layers.anchor_generator import (
    AnchorGenerator,
    DefaultBoxGenerator,
    OctaveAnchorGenerator,
    PriorBoxGenerator,
)
from kerasvision.layers.convolution import ConvolutionBlock
from kerasvision.layers.csp_block import CSPBlock
from kerasvision.layers.feature_pyramid import FeaturePyramid
from kerasvision.layers.l2_normalization import L2Normalization
from kerasvision.layers.non_max_suppression import NonMaxSuppression
from kerasvision.layers.normalization import FrozenBatchNormalization, ImageNormalization
from kerasvision.layers.path_aggregation import CSPPathAggregation, PathAggregation
from kerasvision.layers.roi_align import RoIAlign
from kerasvision.layers.roi_pool import RoIPool
from kerasvision.layers.spatial_pyramid_pooling import SPP, SPPF, SpatialPyramidPooling
from kerasvision.layers.ssd_extra_layers import SSDExtraLayers
from kerasvision.layers.unet_blocks import UNetDecoderBlock, UNetDoubleConvolution

__all__ = [
    "SPP",
    "SPPF",
    "AnchorGenerator",
    "CSPBlock",
    "CSPPathAggregation",
    "ConvolutionBlock",
    "DefaultBoxGenerator",
    "FeaturePyramid",
    "FrozenBatchNormalization",
    "ImageNormalization",
    "L2Normalization",
    "NonMaxSuppression",
    "OctaveAnchorGenerator",
    "PathAggregation",
    "PriorBoxGenerator",
    "RoIAlign",
    "RoIPool",
    "SSDExtraLayers",
    "SpatialPyramidPooling",
    "UNetDecoderBlock",
    "UNetDoubleConvolution",
]

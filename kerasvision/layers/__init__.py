"""Keras layers that architectures are built from."""

from kerasvision.layers.anchor_generator import (
    AnchorGenerator,
    DefaultBoxGenerator,
    OctaveAnchorGenerator,
    PriorBoxGenerator,
)
from kerasvision.layers.attention_gate import AttentionGate
from kerasvision.layers.bifpn import BiFPN
from kerasvision.layers.box_head import BoxHead, BoxPredictor
from kerasvision.layers.convolution import ConvolutionBlock, DepthwiseConvolutionBlock
from kerasvision.layers.convolutional_crf import ConvolutionalCRF
from kerasvision.layers.csp_block import CSPBlock
from kerasvision.layers.deeplab_blocks import ASPP, AtrousPyramidClassifier, DeepLabV3PlusDecoder
from kerasvision.layers.fcn_blocks import BilinearInitializer, BilinearUpsampling, FCNHead, FCNSkip
from kerasvision.layers.feature_pyramid import FeaturePyramid
from kerasvision.layers.inverted_residual import InvertedResidual
from kerasvision.layers.l2_normalization import L2Normalization
from kerasvision.layers.local_response_normalization import LocalResponseNormalization
from kerasvision.layers.non_max_suppression import NonMaxSuppression
from kerasvision.layers.normalization import (
    BatchNormalization,
    FrozenBatchNormalization,
    ImageNormalization,
    SyncBatchNormalization,
)
from kerasvision.layers.path_aggregation import CSPPathAggregation, PathAggregation
from kerasvision.layers.pooling import MaxPooling
from kerasvision.layers.roi_align import RoIAlign
from kerasvision.layers.roi_pool import RoIPool
from kerasvision.layers.separable_convolution import SeparableConvolutionBlock
from kerasvision.layers.spatial_pyramid_pooling import SPP, SPPF, SpatialPyramidPooling
from kerasvision.layers.squeeze_excitation import SqueezeExcitation
from kerasvision.layers.ssd_extra_layers import SSDExtraLayers, SSDLiteExtraLayers
from kerasvision.layers.unet_blocks import UNetDecoderBlock, UNetDoubleConvolution, UNetEncoderBlock
from kerasvision.layers.weighted_fusion import WeightedFusion

__all__ = [
    "ASPP",
    "SPP",
    "SPPF",
    "AnchorGenerator",
    "AtrousPyramidClassifier",
    "AttentionGate",
    "BatchNormalization",
    "BiFPN",
    "BilinearInitializer",
    "BilinearUpsampling",
    "BoxHead",
    "BoxPredictor",
    "CSPBlock",
    "CSPPathAggregation",
    "ConvolutionBlock",
    "ConvolutionalCRF",
    "DeepLabV3PlusDecoder",
    "DefaultBoxGenerator",
    "DepthwiseConvolutionBlock",
    "FCNHead",
    "FCNSkip",
    "FeaturePyramid",
    "FrozenBatchNormalization",
    "ImageNormalization",
    "InvertedResidual",
    "L2Normalization",
    "LocalResponseNormalization",
    "MaxPooling",
    "NonMaxSuppression",
    "OctaveAnchorGenerator",
    "PathAggregation",
    "PriorBoxGenerator",
    "RoIAlign",
    "RoIPool",
    "SSDExtraLayers",
    "SSDLiteExtraLayers",
    "SeparableConvolutionBlock",
    "SpatialPyramidPooling",
    "SqueezeExcitation",
    "SyncBatchNormalization",
    "UNetDecoderBlock",
    "UNetDoubleConvolution",
    "UNetEncoderBlock",
    "WeightedFusion",
]

"""Blocks of segmentation and classification networks against torchvision's, SMP's and torch's, weights carried over."""

import keras
import numpy as np
import pytest
import torch
from segmentation_models_pytorch.decoders.deeplabv3.decoder import ASPP as SmpASPP
from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder as SmpDecoder
from segmentation_models_pytorch.decoders.deeplabv3.decoder import SeparableConv2d
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoderBlock
from torch import nn
from torchvision.models.segmentation.deeplabv3 import ASPP as TorchASPP
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops import SqueezeExcitation as TorchSqueezeExcitation

from kerasvision import layers
from tests.parity.pieces.modules import check_module, convolution_pairs, norm_pairs

MODES = pytest.mark.parametrize("training", [False, True])


class _Listed(keras.layers.Layer):
    """Takes the arguments of a layer as one list."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.built = True

    def call(self, inputs, training=None):
        return self.layer(*inputs, training=training) if self.layer._call_has_training_arg else self.layer(*inputs)


def _features(*shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def _first(count, sequential):
    """Return the first modules; slicing would make a module of the same class, which takes other arguments."""
    return list(sequential)[:count]


def _unknown(*channels):
    return [(None, None, None, count) for count in channels]


def _separable_pairs(ours, separable, norm):
    depthwise, pointwise = separable
    yield from convolution_pairs(ours.depthwise, depthwise)
    yield from convolution_pairs(ours.pointwise, pointwise, norm)


def _aspp_pairs(ours, theirs):
    point, *atrous, whole = theirs.convs
    yield from convolution_pairs(ours.point, *_first(2, point))
    for branch, module in zip(ours.atrous, atrous, strict=True):
        pairs = _separable_pairs if hasattr(branch, "depthwise") else convolution_pairs
        yield from pairs(branch, *_first(2, module))
    yield from convolution_pairs(ours.whole, *_first(3, whole)[1:])
    yield from convolution_pairs(ours.projection, *_first(2, theirs.project))


def _deterministic(module):
    """Leave out dropout, as the two draw differently."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return module


@MODES
def test_aspp_equals_torchvision(training):
    torch.manual_seed(0)
    theirs = _deterministic(TorchASPP(6, (2, 4, 12), 5))
    ours = layers.ASPP(5, (2, 4, 12), dropout=0.0)
    ours.build((None, None, None, 6))
    check_module(
        "layers.ASPP",
        "torchvision deeplabv3.ASPP",
        ours,
        theirs,
        _aspp_pairs(ours, theirs),
        _features((3, 9, 7, 6))[0],
        training=training,
    )


@MODES
def test_separable_aspp_equals_smp(training):
    torch.manual_seed(0)
    theirs = _deterministic(SmpASPP(6, 5, (2, 4, 12), separable=True, dropout=0.0))
    ours = layers.ASPP(5, (2, 4, 12), dropout=0.0, separable=True)
    ours.build((None, None, None, 6))
    check_module(
        "layers.ASPP, separable",
        "smp deeplabv3.decoder.ASPP",
        ours,
        theirs,
        _aspp_pairs(ours, theirs),
        _features((3, 9, 7, 6))[0],
        training=training,
    )


@MODES
def test_deeplab_decoder_equals_smp(training):
    torch.manual_seed(0)
    theirs = _deterministic(SmpDecoder((3, 4, 5, 6, 7, 8), 5, 6, (2, 4, 12), 16, True, 0.0))
    ours = layers.DeepLabV3PlusDecoder(6, (2, 4, 12), dropout=0.0)
    ours.build(_unknown(5, 8))

    def pairs():
        aspp, separable, norm, _ = theirs.aspp
        yield from _aspp_pairs(ours.pyramid, aspp)
        yield from _separable_pairs(ours.refinements[0], separable, norm)
        yield from convolution_pairs(ours.low_level, *_first(2, theirs.block1))
        yield from _separable_pairs(ours.fusions[0], *_first(2, theirs.block2))

    check_module(
        "layers.DeepLabV3PlusDecoder",
        "smp DeepLabV3PlusDecoder",
        ours,
        theirs,
        pairs(),
        _features((3, 12, 20, 5), (3, 3, 5, 8)),
        training=training,
        theirs=lambda module, inputs: module([None, None, inputs[0], None, None, inputs[1]]),
    )


class _Sum(nn.Module):
    def __init__(self, channels, classes, rates):
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(channels, classes, 3, padding=rate, dilation=rate) for rate in rates)

    def forward(self, inputs):
        return sum(branch(inputs) for branch in self.branches)


def test_atrous_pyramid_classifier_equals_torch():
    theirs = _Sum(6, 4, (2, 4, 6, 12))
    ours = layers.AtrousPyramidClassifier(4, (2, 4, 6, 12))
    ours.build((None, None, None, 6))
    pairs = [
        pair
        for branch, module in zip(ours.branches, theirs.branches, strict=True)
        for pair in convolution_pairs(branch, module)
    ]
    name = "sum of torch.nn.Conv2d"
    check_module("layers.AtrousPyramidClassifier", name, ours, theirs, pairs, _features((2, 9, 7, 6))[0])


@pytest.mark.parametrize(("strides", "dilation", "training"), [(2, 1, False), (1, 3, True)])
def test_separable_convolution_equals_smp(strides, dilation, training):
    torch.manual_seed(0)
    separable = SeparableConv2d(6, 5, 3, strides, dilation, dilation, bias=False)
    theirs = nn.Sequential(separable, nn.BatchNorm2d(5), nn.ReLU())
    ours = layers.SeparableConvolutionBlock(
        5, strides=strides, dilation=dilation, normalization="batch", activation="relu"
    )
    ours.build((None, None, None, 6))
    check_module(
        "layers.SeparableConvolutionBlock",
        "smp SeparableConv2d",
        ours,
        theirs,
        _separable_pairs(ours, separable, theirs[1]),
        _features((3, 9, 8, 6))[0],
        training=training,
    )


@pytest.mark.parametrize(("kernel_size", "strides", "training"), [(3, 2, True), (5, 1, False)])
def test_depthwise_convolution_block_equals_torch(kernel_size, strides, training):
    convolution = nn.Conv2d(6, 6, kernel_size, strides, kernel_size // 2, groups=6, bias=False)
    theirs = nn.Sequential(convolution, nn.BatchNorm2d(6, eps=1e-3), nn.Hardswish())
    ours = layers.DepthwiseConvolutionBlock(
        kernel_size, strides=strides, normalization="batch", epsilon=1e-3, activation="hard_silu"
    )
    ours.build((None, None, None, 6))
    check_module(
        "layers.DepthwiseConvolutionBlock",
        "torch.nn.Conv2d, BatchNorm2d, Hardswish",
        ours,
        theirs,
        convolution_pairs(ours, *_first(2, theirs)),
        _features((3, 9, 8, 6))[0],
        training=training,
    )


@pytest.mark.parametrize(
    ("activation", "gate", "torch_activation", "torch_gate"),
    [
        ("relu", "sigmoid", nn.ReLU, nn.Sigmoid),
        ("relu", "hard_sigmoid", nn.ReLU, nn.Hardsigmoid),
        ("silu", "sigmoid", nn.SiLU, nn.Sigmoid),
    ],
)
def test_squeeze_excitation_equals_torchvision(activation, gate, torch_activation, torch_gate):
    torch.manual_seed(0)
    theirs = TorchSqueezeExcitation(6, 4, torch_activation, torch_gate)
    ours = layers.SqueezeExcitation(4, activation=activation, gate=gate)
    ours.build((None, None, None, 6))
    pairs = [*convolution_pairs(ours.reduce, theirs.fc1), *convolution_pairs(ours.expand, theirs.fc2)]
    features = 4 * _features((3, 5, 7, 6))[0]  # far enough for both ends of the hard sigmoid
    name = f"torchvision.ops.SqueezeExcitation, {activation}, {gate}"
    check_module("layers.SqueezeExcitation", name, ours, theirs, pairs, features)


def test_frozen_batch_normalization_equals_torchvision():
    theirs = FrozenBatchNorm2d(6, eps=0.1)
    ours = layers.FrozenBatchNormalization(0.1)
    ours.build((None, None, None, 6))
    features = _features((2, 5, 7, 6))[0]
    name = "torchvision.ops.FrozenBatchNorm2d"
    check_module("layers.FrozenBatchNormalization", name, ours, theirs, norm_pairs(ours, theirs), features)


@MODES
@pytest.mark.parametrize("skip", [True, False])
def test_unet_decoder_block_equals_smp(skip, training):
    torch.manual_seed(0)
    theirs = UnetDecoderBlock(6, 4 if skip else 0, 5)
    block = layers.UNetDecoderBlock(5, normalization="batch")
    block.build((None, None, None, 6), (None, None, None, 4) if skip else None)
    convolutions = zip((block.convolutions.first, block.convolutions.second), (theirs.conv1, theirs.conv2), strict=True)
    pairs = [pair for ours, module in convolutions for pair in convolution_pairs(ours, *_first(2, module))]
    check_module(
        "layers.UNetDecoderBlock",
        "smp UnetDecoderBlock",
        _Listed(block),
        theirs,
        pairs,
        _features((3, 4, 5, 6), *[(3, 8, 10, 4)] * skip),
        training=training,
        theirs=lambda module, inputs: module(inputs[0], 8, 10, *inputs[1:]),
    )


def _caffe_filler(kernel_size):
    """Return Caffe's bilinear filter, by the formula in filler.hpp."""
    factor = int(np.ceil(kernel_size / 2))
    centre = (2 * factor - 1 - factor % 2) / (2.0 * factor)
    x = np.arange(kernel_size)
    line = 1 - np.abs(x / factor - centre)
    return torch.tensor(np.outer(line, line), dtype=torch.float32)


class _Skip(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.up = _transposed(classes, 2)
        self.score = nn.Conv2d(channels, classes, 1)

    def forward(self, inputs):
        coarse, fine = inputs
        return self.score(fine) + self.up(coarse)[:, :, : fine.shape[2], : fine.shape[3]]


def _transposed(channels, factor):
    kernel_size = 2 * factor - factor % 2
    module = nn.ConvTranspose2d(channels, channels, kernel_size, factor, int(np.ceil((factor - 1) / 2)), bias=False)
    weight = torch.zeros_like(module.weight)
    weight[range(channels), range(channels)] = _caffe_filler(kernel_size)
    module.weight.data.copy_(weight)
    return module


@pytest.mark.parametrize(("factor", "initial"), [(2, True), (3, True), (8, True), (3, False)])
def test_bilinear_upsampling_equals_torch(factor, initial):
    theirs = _transposed(3, factor)
    ours = layers.BilinearUpsampling(factor)
    ours.build((None, None, None, 3))
    weight = theirs.weight.detach().permute(2, 3, 1, 0).numpy()
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ours.kernel), weight, atol=1e-6)
    if not initial:
        torch.manual_seed(0)
        nn.init.normal_(theirs.weight)
    pairs = [(ours.kernel, theirs.weight)]
    features = _features((2, 4, 5, 3))[0]
    check_module("layers.BilinearUpsampling", "torch.nn.ConvTranspose2d", ours, theirs, pairs, features)


@pytest.mark.parametrize("size", [(8, 10), (7, 9)])
def test_fcn_skip_equals_torch(size):
    torch.manual_seed(0)
    theirs = _Skip(6, 3)
    skip = layers.FCNSkip(3)
    skip.build((None, None, None, 3), (None, None, None, 6))
    pairs = [(skip.enlarge.kernel, theirs.up.weight), *convolution_pairs(skip.score, theirs.score)]
    name = "torch.nn.ConvTranspose2d and Conv2d"
    features = _features((2, 4, 5, 3), (2, *size, 6))
    check_module("layers.FCNSkip", name, _Listed(skip), theirs, pairs, features)

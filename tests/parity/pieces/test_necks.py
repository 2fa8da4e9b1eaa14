"""Necks and what belongs to them: SSD's extra layers, PANet's path, the neck of YOLOX, pooling.

PANet's and YOLOX's references are written here, after mmdet/models/necks/pafpn.py and yolox/models/yolo_pafpn.py.
"""

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import vgg16
from torchvision.models.detection.ssd import SSDFeatureExtractorVGG
from torchvision.models.detection.ssdlite import _extra_block

from kerasvision.layers import (
    SPP,
    SPPF,
    CSPBlock,
    CSPPathAggregation,
    L2Normalization,
    PathAggregation,
    SpatialPyramidPooling,
    SSDExtraLayers,
    SSDLiteExtraLayers,
)
from kerasvision.layers.ssd_extra_layers import SSD300_BLOCKS, SSD512_BLOCKS
from tests.parity.pieces.compare import check
from tests.parity.pieces.modules import check_module, convolution_pairs


def _features(*shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def _channels_first(function):
    def call(tensor):
        found = function(tensor.permute(0, 3, 1, 2))
        return found.permute(0, 2, 3, 1) if found.ndim == 4 else found

    return call


# --- pooling


@pytest.mark.parametrize("layer", [SPP((5, 9, 13)), SPPF(5)], ids=["spp", "sppf"])
def test_spp_equals_torch(layer):
    pools = [nn.MaxPool2d(size, stride=1, padding=size // 2) for size in (5, 9, 13)]
    check(
        f"layers.{type(layer).__name__}",
        "torch.nn.MaxPool2d of 5, 9, 13",
        layer,
        _channels_first(lambda x: torch.cat([x, *(pool(x) for pool in pools)], 1)),
        _features((1, 7, 10, 2)),
    )


def test_fixed_length_pooling_equals_torch():
    bins = (1, 2, 3, 6)

    def theirs(features):
        # Bin by bin, channels last.
        grids = (nn.functional.adaptive_max_pool2d(features, count).permute(0, 2, 3, 1) for count in bins)
        return torch.cat([grid.flatten(1) for grid in grids], 1)

    check(
        "layers.SpatialPyramidPooling",
        "torch.nn.functional.adaptive_max_pool2d",
        SpatialPyramidPooling(bins),
        _channels_first(theirs),
        _features((2, 7, 4, 3)),
    )


# --- SSD


def _convolutions(module):
    return [part for part in module.modules() if isinstance(part, nn.Conv2d)]


def _one_after_another(blocks, features):
    levels = []
    for block in blocks:
        levels.append(block(levels[-1] if levels else features))
    return levels


def _thinner(channels):
    """Return an SSDFeatureExtractorVGG whose layers after the backbone have a 32nd of the channels."""

    class Thin(nn.Conv2d):
        def __init__(self, in_channels, out_channels, *sizes, **options):
            super().__init__(in_channels // 32, out_channels // 32, *sizes, **options)

    return Thin


@pytest.mark.parametrize(
    ("blocks", "highres"),
    [(SSD300_BLOCKS, False), ((*SSD300_BLOCKS, (256, 4, 1, 0)), True)],
    ids=["ssd300", "highres"],
)
def test_ssd_extra_layers_equal_torchvision(blocks, highres, monkeypatch):
    torch.manual_seed(0)
    backbone = vgg16().features
    monkeypatch.setattr(nn, "Conv2d", _thinner(32))
    extra = SSDFeatureExtractorVGG(backbone, highres).extra
    extra[0] = extra[0][-1]  # from the modified maxpool5 on
    monkeypatch.undo()
    ours = SSDExtraLayers([(filters // 32, *rest) for filters, *rest in blocks], filters=32)
    ours.build((None, None, None, 16))
    mine = [ours.conv6, ours.conv7]
    for pair in zip(ours.firsts, ours.seconds, strict=True):
        mine += pair

    check_module(
        "layers.SSDExtraLayers",
        f"torchvision SSDFeatureExtractorVGG.extra, {'high resolution' if highres else 'SSD300'}",
        ours,
        extra,
        [
            pair
            for block, conv in zip(mine, _convolutions(extra), strict=True)
            for pair in convolution_pairs(block, conv)
        ],
        _features((1, 31, 33, 16) if highres else (1, 17, 19, 16))[0],
        theirs=_one_after_another,
    )


def test_ssd512_extra_layers_equal_the_authors_layers():
    """As ssd_pascal_512.py of the authors lists them: five times 1x1 and 3x3 with stride 2, the last one 4x4."""
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(4, 8, 3, padding=6, dilation=6), nn.ReLU())]
    layers[0].extend([nn.Conv2d(8, 8, 1), nn.ReLU()])
    channels = 8
    for filters, kernel, stride in ((8, 3, 2), (4, 3, 2), (4, 3, 2), (4, 3, 2), (4, 4, 1)):
        second = nn.Conv2d(filters // 2, filters, kernel, stride=stride, padding=1)
        layers.append(nn.Sequential(nn.Conv2d(channels, filters // 2, 1), nn.ReLU(), second, nn.ReLU()))
        channels = filters
    theirs = nn.ModuleList(layers)
    ours = SSDExtraLayers([(filters // 64, *rest) for filters, *rest in SSD512_BLOCKS], filters=8)
    ours.build((None, None, None, 4))
    mine = [ours.conv6, ours.conv7]
    for pair in zip(ours.firsts, ours.seconds, strict=True):
        mine += pair

    check_module(
        "layers.SSDExtraLayers",
        "SSD512 as its authors list it, in torch",
        ours,
        theirs,
        [p for block, conv in zip(mine, _convolutions(theirs), strict=True) for p in convolution_pairs(block, conv)],
        _features((1, 32, 32, 4))[0],
        theirs=_one_after_another,
    )


def test_l2_normalization_equals_torch():
    layer = L2Normalization(20)
    layer.build((None, None, None, 6))

    def ours(features, factors):
        outputs, _ = layer.stateless_call([factors], [], features)
        return outputs

    features = _features((2, 3, 4, 6))[0] * 100
    factors = np.linspace(15, 25, 6).astype(np.float32)
    theirs = lambda x, factors: factors * nn.functional.normalize(x, dim=-1)  # noqa: E731
    check("layers.L2Normalization", "torch.nn.functional.normalize", ours, theirs, [features, factors])


# --- PANet


class _PathAggregation(nn.Module):
    def __init__(self, filters, levels, relu):
        super().__init__()
        activation = nn.ReLU if relu else nn.Identity
        self.downs, self.outputs = (
            nn.ModuleList(
                nn.Sequential(nn.Conv2d(filters, filters, 3, stride, 1), activation()) for _ in range(levels - 1)
            )
            for stride in (2, 1)
        )
        self.relu = relu

    def forward(self, features):
        if self.relu:  # the paper
            levels = [features[0]]
            for feature, down, output in zip(features[1:], self.downs, self.outputs, strict=True):
                levels.append(output(feature + down(levels[-1])))
            return levels
        sums = [features[0]]  # mmdet
        for feature, down in zip(features[1:], self.downs, strict=True):
            sums.append(feature + down(sums[-1]))
        return [sums[0], *(output(total) for output, total in zip(self.outputs, sums[1:], strict=True))]


@pytest.mark.parametrize("downsample", ["output", "sum"])
def test_path_aggregation_equals_the_formula(downsample):
    torch.manual_seed(0)
    theirs = _PathAggregation(4, 3, relu=downsample == "output")
    ours = PathAggregation(4, downsample=downsample, activation="relu" if downsample == "output" else None)
    ours.build([(None, None, None, 4)] * 3)
    pairs = [
        pair
        for block, conv in zip((*ours.downs, *ours.outputs), (*theirs.downs, *theirs.outputs), strict=True)
        for pair in convolution_pairs(block, conv[0])
    ]
    reference = "the paper's formula in torch" if downsample == "output" else "mmdet PAFPN's formula in torch"
    features = _features((2, 7, 8, 4), (2, 4, 4, 4), (2, 2, 2, 4))
    check_module("layers.PathAggregation", reference, ours, theirs, pairs, features)


# --- YOLOX


def _unit(inputs, filters, kernel_size=1, stride=1, depthwise=False):
    if depthwise:
        return nn.Sequential(_unit(inputs, inputs, kernel_size, stride, None), _unit(inputs, filters))
    groups = inputs if depthwise is None else 1
    convolution = nn.Conv2d(inputs, filters, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(filters, eps=1e-3), nn.SiLU())


class _CSP(nn.Module):
    def __init__(self, inputs, filters, repeats, shortcut, depthwise=False):
        super().__init__()
        half = filters // 2
        self.long_way, self.short_way, self.output = _unit(inputs, half), _unit(inputs, half), _unit(filters, filters)
        self.bottlenecks = nn.ModuleList(
            nn.Sequential(_unit(half, half), _unit(half, half, 3, depthwise=depthwise)) for _ in range(repeats)
        )
        self.shortcut = shortcut

    def forward(self, inputs):
        x = self.long_way(inputs)
        for bottleneck in self.bottlenecks:
            x = bottleneck(x) + x if self.shortcut else bottleneck(x)
        return self.output(torch.cat([x, self.short_way(inputs)], 1))


class _YOLOXNeck(nn.Module):
    def __init__(self, a, b, c, repeats, depthwise):
        super().__init__()
        self.reduce = nn.ModuleList([_unit(b, a), _unit(c, b)])
        self.down = nn.ModuleList([_unit(a, a, 3, 2, depthwise), _unit(b, b, 3, 2, depthwise)])
        self.top_down = nn.ModuleList(
            [_CSP(2 * a, a, repeats, False, depthwise), _CSP(2 * b, b, repeats, False, depthwise)]
        )
        self.bottom_up = nn.ModuleList(
            [_CSP(2 * a, b, repeats, False, depthwise), _CSP(2 * b, c, repeats, False, depthwise)]
        )

    def forward(self, features):
        c3, c4, c5 = features
        up = lambda x: nn.functional.interpolate(x, scale_factor=2, mode="nearest")  # noqa: E731
        p5 = self.reduce[1](c5)
        p4 = self.reduce[0](self.top_down[1](torch.cat([up(p5), c4], 1)))
        n3 = self.top_down[0](torch.cat([up(p4), c3], 1))
        n4 = self.bottom_up[0](torch.cat([self.down[0](n3), p4], 1))
        n5 = self.bottom_up[1](torch.cat([self.down[1](n4), p5], 1))
        return n3, n4, n5


def _unit_pairs(ours, theirs):
    if isinstance(theirs[0], nn.Sequential):  # depthwise
        yield from convolution_pairs(ours.depthwise, *theirs[0][:2])
        ours, theirs = ours.pointwise, theirs[1]
    yield from convolution_pairs(ours, *theirs[:2])


def _csp_pairs(ours, theirs):
    yield from convolution_pairs(ours.long_way, *theirs.long_way[:2])
    yield from convolution_pairs(ours.short_way, *theirs.short_way[:2])
    yield from convolution_pairs(ours.output_convolution, *theirs.output[:2])
    for first, second, bottleneck in zip(ours.reductions, ours.convolutions, theirs.bottlenecks, strict=True):
        yield from convolution_pairs(first, *bottleneck[0][:2])
        yield from _unit_pairs(second, bottleneck[1])


@pytest.mark.parametrize(("shortcut", "training"), [(True, False), (True, True), (False, False)])
def test_csp_block_equals_yolox(shortcut, training):
    torch.manual_seed(0)
    ours, theirs = CSPBlock(6, 2, shortcut=shortcut), _CSP(5, 6, 2, shortcut)
    ours.build((None, None, None, 5))
    check_module(
        "layers.CSPBlock",
        "YOLOX's CSPLayer in torch",
        ours,
        theirs,
        _csp_pairs(ours, theirs),
        _features((2, 5, 6, 5))[0],
        training=training,
    )


@pytest.mark.parametrize(("depthwise", "training"), [(False, True), (False, False), (True, False)])
def test_csp_path_aggregation_equals_yolox(depthwise, training):
    torch.manual_seed(0)
    filters = (4, 6, 8)
    ours, theirs = CSPPathAggregation(filters, repeats=1, depthwise=depthwise), _YOLOXNeck(*filters, 1, depthwise)
    ours.build([(None, None, None, count) for count in filters])

    def pairs():
        for mine, module in ((ours.reductions, theirs.reduce), (ours.downs, theirs.down)):
            for block, unit in zip(mine, module, strict=True):
                yield from _unit_pairs(block, unit)
        for mine, module in ((ours.top_down_blocks, theirs.top_down), (ours.bottom_up_blocks, theirs.bottom_up)):
            for block, csp in zip(mine, module, strict=True):
                yield from _csp_pairs(block, csp)

    check_module(
        "layers.CSPPathAggregation",
        f"YOLOX's YOLOPAFPN in torch{', depthwise' if depthwise else ''}",
        ours,
        theirs,
        pairs(),
        _features((2, 16, 12, 4), (2, 8, 6, 6), (2, 4, 3, 8)),
        training=training,
    )


# --- SSDlite


@pytest.mark.parametrize("training", [True, False])
def test_ssdlite_extra_layers_equal_torchvision(training):
    torch.manual_seed(0)
    filters, inputs = (8, 6, 4), 5
    norm = functools.partial(nn.BatchNorm2d, eps=1e-3, momentum=0.03)
    theirs = nn.ModuleList(_extra_block(a, b, norm) for a, b in zip((inputs, *filters), filters, strict=False))
    ours = SSDLiteExtraLayers(filters)
    ours.build((None, None, None, inputs))

    def pairs():
        for first, second, block in zip(ours.firsts, ours.seconds, theirs, strict=True):
            for mine, unit in zip((first, second.depthwise, second.pointwise), block, strict=True):
                yield from convolution_pairs(mine, *list(unit)[:2])

    check_module(
        "layers.SSDLiteExtraLayers",
        "torchvision ssdlite._extra_block",
        ours,
        theirs,
        pairs(),
        _features((4, 13, 10, inputs))[0],
        training=training,
        theirs=_one_after_another,
    )

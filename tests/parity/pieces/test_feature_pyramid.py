"""FeaturePyramid against torchvision's, and enlarging against torch's."""

import numpy as np
import pytest
import torch
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool, LastLevelP6P7

from kerasvision.layers import FeaturePyramid
from kerasvision.ops.nearest import resize_nearest_like
from tests.parity.pieces.compare import check
from tests.parity.pieces.modules import check_module, convolution_pairs

CHANNELS = (3, 4, 5)
EXTRA = {
    "p6p7_from_p5": ("LastLevelP6P7 from P5", lambda filters: LastLevelP6P7(filters, filters)),
    "p6p7_from_c5": ("LastLevelP6P7 from C5", lambda filters: LastLevelP6P7(5, filters)),
    "pool": ("LastLevelMaxPool", lambda filters: LastLevelMaxPool()),
    None: ("no extra levels", lambda filters: None),
}


def _features(sizes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(2, *size, c)).astype(np.float32) for size, c in zip(sizes, CHANNELS, strict=True)]


def _pairs(ours, theirs, extra):
    for index in range(3):
        yield from convolution_pairs(ours.laterals[index], *theirs.inner_blocks[index])
        yield from convolution_pairs(ours.outputs[index], *theirs.layer_blocks[index])
    if isinstance(extra, LastLevelP6P7):
        yield from convolution_pairs(ours.p6, extra.p6)
        yield from convolution_pairs(ours.p7, extra.p7)


def _named(module, features):
    return list(module({str(index): feature for index, feature in enumerate(features)}).values())


EVEN = [(8, 12), (4, 6), (2, 3)]
UP = [(9, 5), (5, 3), (3, 2)]  # halved and rounded up
DOWN = [(11, 7), (5, 3), (2, 1)]  # halved and rounded down


def _check(coarse_levels, sizes, filters=6, norm_layer=None, training=False, **options):
    torch.manual_seed(0)
    name, make = EXTRA[coarse_levels]
    extra = make(filters)
    theirs = FeaturePyramidNetwork(CHANNELS, filters, extra_blocks=extra, norm_layer=norm_layer)
    ours = FeaturePyramid(filters, coarse_levels=coarse_levels, **options)
    ours.build([(None, None, None, channels) for channels in CHANNELS])
    norm = f", {options['normalization']}" if options else ""
    check_module(
        "layers.FeaturePyramid",
        f"torchvision.ops.FeaturePyramidNetwork, {name}{norm}",
        ours,
        theirs,
        _pairs(ours, theirs, extra),
        _features(sizes),
        training=training,
        theirs=_named,
    )


@pytest.mark.parametrize(
    ("coarse_levels", "sizes"),
    [("p6p7_from_p5", EVEN), ("p6p7_from_c5", UP), ("pool", DOWN), ("pool", EVEN), (None, UP)],
)
def test_feature_pyramid_equals_torchvision(coarse_levels, sizes):
    _check(coarse_levels, sizes)


@pytest.mark.parametrize("training", [True, False])
def test_feature_pyramid_with_batch_normalization_equals_torchvision(training):
    # Many pixels: the gradient through the statistics of a dozen is mostly rounding.
    sizes = [(16, 24), (8, 12), (4, 6)]
    _check("pool", sizes, norm_layer=torch.nn.BatchNorm2d, training=training, normalization="batch")


def test_feature_pyramid_with_group_normalization_equals_torchvision():
    norm = lambda channels: torch.nn.GroupNorm(32, channels)  # noqa: E731
    _check("p6p7_from_p5", UP, filters=32, norm_layer=norm, normalization="group")


def test_resize_nearest_like_equals_torch():
    sizes = [(1, 1), (1, 2), (2, 3), (3, 5), (3, 6), (3, 7), (5, 8), (6, 4)]
    arrays = [np.random.default_rng(0).normal(size=(1, size, 4, 2)).astype(np.float32) for size, _ in sizes]

    def ours(*features):
        return [resize_nearest_like(f, np.zeros((1, size, 7, 1))) for f, (_, size) in zip(features, sizes, strict=True)]

    def theirs(*features):
        resized = (
            torch.nn.functional.interpolate(f.permute(0, 3, 1, 2), (size, 7), mode="nearest")
            for f, (_, size) in zip(features, sizes, strict=True)
        )
        return [r.permute(0, 2, 3, 1) for r in resized]

    check("ops.nearest.resize_nearest_like", "torch.nn.functional.interpolate", ours, theirs, arrays)

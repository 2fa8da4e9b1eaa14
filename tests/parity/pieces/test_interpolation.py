"""Bilinear resizing, atrous and depthwise convolution against torch's."""

import numpy as np
import pytest
from torch.nn import functional

from kerasvision.ops.atrous import atrous_convolution, depthwise_convolution
from kerasvision.ops.interpolation import resize_bilinear
from tests.parity.pieces.compare import check


def _normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _first(channels_last):
    return channels_last.permute(0, 3, 1, 2)


def _last(channels_first):
    return channels_first.permute(0, 2, 3, 1)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("source", "size"),
    [
        ((5, 7), (20, 28)),
        ((9, 13), (5, 7)),
        ((33, 9), (8, 40)),
        ((3, 4), (1, 1)),
        ((1, 1), (4, 3)),
        ((65, 33), (513, 9)),
    ],
)
def test_resize_bilinear_equals_torch(source, size, align_corners):
    check(
        f"ops.resize_bilinear, corners {'' if align_corners else 'not '}aligned",
        "torch.nn.functional.interpolate",
        lambda x: resize_bilinear(x, size, align_corners=align_corners),
        lambda x: _last(functional.interpolate(_first(x), size, mode="bilinear", align_corners=align_corners)),
        [_normal(0, 2, *source, 3)],
    )


@pytest.mark.parametrize(("size", "dilation"), [((9, 7), 2), ((17, 17), 6), ((5, 7), 12)])
def test_atrous_convolution_equals_torch(size, dilation):
    check(
        "ops.atrous_convolution",
        "torch.nn.functional.conv2d",
        lambda x, kernel: atrous_convolution(x, kernel, dilation),
        lambda x, kernel: _last(
            functional.conv2d(_first(x), kernel.permute(3, 2, 0, 1), padding=dilation, dilation=dilation)
        ),
        [_normal(0, 2, *size, 4), _normal(1, 3, 3, 4, 5)],
    )


@pytest.mark.parametrize(("strides", "dilation"), [(1, 1), (2, 1), (1, 4)])
def test_depthwise_convolution_equals_torch(strides, dilation):
    check(
        "ops.depthwise_convolution",
        "torch.nn.functional.conv2d",
        lambda x, kernel: depthwise_convolution(x, kernel, strides=strides, dilation=dilation, padding="same"),
        lambda x, kernel: _last(
            functional.conv2d(
                _first(x), kernel.permute(2, 3, 0, 1), stride=strides, padding=dilation, dilation=dilation, groups=4
            )
        ),
        [_normal(0, 2, 9, 7, 4), _normal(1, 3, 3, 4, 1)],
    )

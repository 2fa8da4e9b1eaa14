"""Inverted residuals, and small networks as a whole, against torchvision's and timm's: gradients, training mode."""

import keras
import numpy as np
import pytest
import torch
from torchvision import models
from torchvision.models import mobilenetv2, mobilenetv3

from kerasvision import layers
from kerasvision.backbones.mobilenet_v2 import MobileNetV2
from kerasvision.backbones.mobilenet_v3 import MobileNetV3
from tests.parity.pieces.modules import check_module, convolution_pairs
from tests.parity.xception_pairs import small_xceptions, xception_pairs
from zoo.converters.torchvision_mobilenet import mobilenet_v2_pairs, mobilenet_v3_pairs

MODES = pytest.mark.parametrize("training", [False, True])


def _features(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _named(module, assignments):
    """Turn a converter's pairs into pairs of variable and tensor."""
    tensors = module.state_dict(keep_vars=True)
    return [(pair.variable, tensors[pair.source]) for pair in assignments]


@MODES
@pytest.mark.parametrize(("channels", "filters", "strides"), [(6, 6, 1), (6, 4, 2)])
def test_inverted_residual_equals_torchvisions_second(channels, filters, strides, training):
    torch.manual_seed(0)
    theirs = mobilenetv2.InvertedResidual(channels, filters, strides, 3)
    ours = layers.InvertedResidual(filters, 3 * channels, strides=strides)
    ours.build((None, None, None, channels))
    expand, depthwise, project, norm = theirs.conv
    pairs = [
        *convolution_pairs(ours.expand, *list(expand)[:2]),
        *convolution_pairs(ours.depthwise, *list(depthwise)[:2]),
        *convolution_pairs(ours.project, project, norm),
    ]
    name = "torchvision mobilenetv2.InvertedResidual"
    check_module("layers.InvertedResidual", name, ours, theirs, pairs, _features(3, 8, 7, 6), training=training)


@MODES
@pytest.mark.parametrize(
    ("kernel_size", "expanded", "squeezes", "activation", "strides", "dilation"),
    [(3, 8, False, "RE", 1, 1), (5, 24, True, "HS", 2, 1), (5, 24, True, "HS", 1, 2), (3, 16, True, "RE", 1, 1)],
)
def test_inverted_residual_equals_torchvisions_third(
    kernel_size, expanded, squeezes, activation, strides, dilation, training
):
    torch.manual_seed(0)
    config = mobilenetv3.InvertedResidualConfig(
        8, kernel_size, expanded, 8, squeezes, activation, strides, dilation, width_mult=1
    )
    theirs = mobilenetv3.InvertedResidual(config, lambda count: torch.nn.BatchNorm2d(count, eps=1e-3))
    ours = layers.InvertedResidual(
        8,
        expanded,
        kernel_size=kernel_size,
        strides=strides,
        dilation=dilation,
        squeeze_filters=8 if squeezes else None,
        activation="hard_silu" if activation == "HS" else "relu",
        epsilon=1e-3,
    )
    ours.build((None, None, None, 8))
    *_, project = parts = list(theirs.block)
    pairs = [] if ours.expand is None else [*convolution_pairs(ours.expand, *list(parts.pop(0))[:2])]
    pairs += convolution_pairs(ours.depthwise, *list(parts[0])[:2])
    if squeezes:
        pairs += [*convolution_pairs(ours.squeeze.reduce, parts[1].fc1)]
        pairs += [*convolution_pairs(ours.squeeze.expand, parts[1].fc2)]
    pairs += convolution_pairs(ours.project, *list(project)[:2])
    name = "torchvision mobilenetv3.InvertedResidual"
    check_module("layers.InvertedResidual", name, ours, theirs, pairs, _features(3, 8, 9, 8), training=training)


def _at(*indices):
    """Return a function of a torch sequence and images that gives the outputs of these layers."""

    def call(sequence, x):
        outputs = []
        for index, layer in enumerate(sequence):
            x = layer(x)
            if index in indices:
                outputs.append(x)
        return outputs

    return call


@MODES
@pytest.mark.skipif(keras.backend.backend() == "jax", reason="XLA compiles whole gradients for minutes; blocks do")
@pytest.mark.parametrize("name", ["MobileNetV2", "MobileNetV3", "Xception"])
def test_backbone_equals_reference(name, training):
    torch.manual_seed(0)
    if name == "Xception":
        theirs, ours = small_xceptions(output_stride=16)
        pairs = xception_pairs(ours)

        def outputs(module, x):
            return module.forward_intermediates(x, intermediates_only=True)

    elif name == "MobileNetV2":
        theirs, outputs = models.mobilenet_v2(width_mult=0.25).features, _at(1, 3, 6, 13, 17)
        theirs = theirs[:18]
        ours = MobileNetV2(0.25, feature_indices=(1, 3, 6, 13, 17))
        pairs = mobilenet_v2_pairs(ours, "")
    else:
        theirs, outputs = models.mobilenet_v3_small(width_mult=0.25, dilated=True).features, _at(2, 12)
        ours = MobileNetV3("small", width_multiplier=0.25, output_stride=16, feature_indices=(2, 12))
        pairs = mobilenet_v3_pairs(ours, "")
    reference = f"{'timm' if name == 'Xception' else 'torchvision'}, narrow"
    check_module(
        f"backbones.{name}",
        reference,
        ours,
        theirs,
        _named(theirs, pairs),
        _features(4, 48, 61, 3),
        training=training,
        theirs=outputs,
        tolerance=1e-4,
        # A ReLU whose input is all but 0 is on here and off there. In double precision TensorFlow's differ by 1e-15.
        gradient_tolerance=1e-2,
    )

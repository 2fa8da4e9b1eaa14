"""The layouts of others' DeepLabs: segmentation_models.pytorch's DeepLabV3+, and DeepLabV2 as converted from Caffe.

- https://github.com/qubvel-org/segmentation_models.pytorch: `DeepLabV3Plus` on torchvision's ResNets and MobileNetV2.
- https://github.com/kazuto1011/deeplab-pytorch: `deeplabv2_resnet101_msc`, converted from the authors' Caffe models,
  whose images are BGR.
"""

import re
from typing import Any

import numpy as np

from zoo.converters.assign import Converter, kernel_from_torch
from zoo.converters.smp import smp_encoder_pairs
from zoo.converters.torch_pairs import BATCH_COUNTERS, Pairs, block_pairs


def _separable(name: str, block: Any, norm: str) -> Pairs:
    """Pair a `SeparableConvolutionBlock` with depthwise and pointwise convolution, and normalisation after both."""
    yield from block_pairs(f"{name}.0", block.depthwise)
    yield from block_pairs(f"{name}.1", block.pointwise, norm=norm)


def _smp_decoder(decoder: Any) -> Pairs:
    pyramid = decoder.pyramid
    place = "decoder.aspp.0"
    yield from block_pairs(f"{place}.convs.0.0", pyramid.point, norm=f"{place}.convs.0.1")
    for index, branch in enumerate(pyramid.atrous, start=1):
        yield from _separable(f"{place}.convs.{index}.0", branch, f"{place}.convs.{index}.1")
    whole = f"{place}.convs.{len(pyramid.atrous) + 1}"
    yield from block_pairs(f"{whole}.1", pyramid.whole, norm=f"{whole}.2")
    yield from block_pairs(f"{place}.project.0", pyramid.projection, norm=f"{place}.project.1")
    yield from _separable("decoder.aspp.1", decoder.refinements[0], "decoder.aspp.2")
    yield from block_pairs("decoder.block1.0", decoder.low_level, norm="decoder.block1.1")
    yield from _separable("decoder.block2.0", decoder.fusions[0], "decoder.block2.1")


def _smp_deeplabv3plus(model: Any) -> Pairs:
    yield from smp_encoder_pairs(model.backbone)
    yield from _smp_decoder(model.head.decoder)
    yield from block_pairs("segmentation_head.0", model.head.score, head=True)


SMP_DEEPLABV3PLUS = Converter(
    layout="segmentation_models.pytorch DeepLabV3Plus with a ResNet or MobileNetV2",
    recognises=lambda names: {"decoder.aspp.0.convs.0.0.weight", "decoder.block1.0.weight"} <= set(names),
    assignments=_smp_deeplabv3plus,
    ignored=(BATCH_COUNTERS,),
    num_classes=lambda tensors: tensors["segmentation_head.0.bias"].size,
)


def _from_bgr(array: np.ndarray) -> np.ndarray:
    """Turn a kernel (out, 3, H, W) that reads blue, green, red into (H, W, 3, out) that reads red, green, blue."""
    return kernel_from_torch(array[:, ::-1])


def _deeplabv2(model: Any) -> Pairs:
    def unit(name: str, layer: Any, **options: Any) -> Pairs:
        return block_pairs(f"{name}.conv", layer, norm=f"{name}.bn", **options)

    yield from unit("base.layer1.conv1", model.backbone.get_layer("stem"), transform=_from_bgr)
    names = {"conv1": "reduce", "conv2": "conv3x3", "conv3": "increase", "downsample": "shortcut"}
    for layer in model.backbone.layers:
        match = re.fullmatch(r"stage(\d)_block(\d+)_(conv\d|downsample)", layer.name)
        if match is not None:
            stage, block = int(match[1]) + 1, int(match[2]) + 1
            yield from unit(f"base.layer{stage}.block{block}.{names[match[3]]}", layer)
    for index, branch in enumerate(model.head.branches):
        yield from block_pairs(f"base.aspp.c{index}", branch, head=True)


KAZUTO_DEEPLABV2 = Converter(
    layout="kazuto1011 deeplab-pytorch deeplabv2_resnet101_msc",
    recognises=lambda names: {"base.layer1.conv1.conv.weight", "base.aspp.c0.weight"} <= set(names),
    assignments=_deeplabv2,
    ignored=(BATCH_COUNTERS,),
    num_classes=lambda tensors: tensors["base.aspp.c0.bias"].size,
)

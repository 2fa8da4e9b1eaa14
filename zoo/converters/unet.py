"""The layouts of others' U-Nets: segmentation_models.pytorch's, mmsegmentation's and milesial's.

- https://github.com/qubvel-org/segmentation_models.pytorch: `Unet` on torchvision's ResNets and MobileNetV2,
  `UnetPlusPlus` on ResNets.
- https://github.com/open-mmlab/mmsegmentation: `fcn_unet_s5-d16`.
- https://github.com/milesial/Pytorch-UNet, of which the names of the tensors alone are used here.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from zoo.converters.assign import Assignment, Converter, Transform, kernel_from_torch
from zoo.converters.smp import smp_encoder_pairs
from zoo.converters.torch_pairs import BATCH_COUNTERS, Pairs, block_pairs


def _double(
    block: Any, first: tuple[str, str], second: tuple[str, str], *, transform: Transform | None = None
) -> Pairs:
    """Pair a `UNetDoubleConvolution`; each pair of names is of a convolution and its normalisation."""
    yield from block_pairs(first[0], block.first, norm=first[1], transform=transform)
    yield from block_pairs(second[0], block.second, norm=second[1])


def _skip_first(skip_channels: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return the transform of a kernel whose first inputs are the skip connection: here they are the last."""
    return lambda array: kernel_from_torch(np.roll(array, -skip_channels, axis=1))


def _skip_channels(model: Any) -> list[int]:
    """Return the channels of the skip connections, from coarse to fine."""
    return [feature.shape[-1] for feature in model.backbone.outputs[-2::-1]]


def _outputs(name: str) -> Callable[[Mapping[str, np.ndarray]], int | None]:
    """Return a function that counts the classes of a file by the length of its last bias."""
    return lambda tensors: tensors[name].size if name in tensors else None


# --- segmentation_models.pytorch


def _smp_step(block: Any, name: str) -> Pairs:
    names = ((f"{name}.conv{number}.0", f"{name}.conv{number}.1") for number in (1, 2))
    yield from _double(block.convolutions, *names)


def _smp_unet(model: Any) -> Pairs:
    yield from smp_encoder_pairs(model.backbone)
    for index, block in enumerate(model.decoder):
        yield from _smp_step(block, f"decoder.blocks.{index}")
    yield from block_pairs("segmentation_head.0", model.head, head=True)


def _smp_unet_plus_plus(model: Any) -> Pairs:
    """Pair the nodes: X(level, step) is there the block x_{depth}_{layer}, counted from the coarsest resolution."""
    yield from smp_encoder_pairs(model.backbone)
    for key, block in model.nodes.items():
        level, step = map(int, key.split("_"))
        layer = model.depth - 1 - level
        yield from _smp_step(block, f"decoder.blocks.x_{layer + 1 - step}_{layer}")
    yield from _smp_step(model.final, f"decoder.blocks.x_0_{model.depth}")
    yield from block_pairs("segmentation_head.0", model.heads[-1], head=True)


SMP_UNET = Converter(
    layout="segmentation_models.pytorch Unet with a ResNet or MobileNetV2",
    recognises=lambda names: {"decoder.blocks.0.conv1.0.weight", "segmentation_head.0.weight"} <= set(names),
    assignments=_smp_unet,
    ignored=(BATCH_COUNTERS,),
    num_classes=_outputs("segmentation_head.0.bias"),
)

SMP_UNET_PLUS_PLUS = Converter(
    layout="segmentation_models.pytorch UnetPlusPlus with a ResNet",
    recognises=lambda names: "decoder.blocks.x_0_0.conv1.0.weight" in names,
    assignments=_smp_unet_plus_plus,
    ignored=(BATCH_COUNTERS,),
    num_classes=_outputs("segmentation_head.0.bias"),
)

# --- milesial's Pytorch-UNet


def _milesial(model: Any) -> Pairs:
    def names(place: str) -> list[tuple[str, str]]:
        return [(f"{place}.double_conv.{first}", f"{place}.double_conv.{first + 1}") for first in (0, 3)]

    levels = _levels(model.backbone)
    yield from _double(levels[0], *names("inc"))
    for index, level in enumerate(levels[1:], start=1):
        yield from _double(level, *names(f"down{index}.maxpool_conv.1"))
    for index, (block, channels) in enumerate(zip(model.decoder, _skip_channels(model), strict=True), start=1):
        if block.up is not None:
            yield Assignment(f"up{index}.up.weight", block.up.kernel, kernel_from_torch)
            yield Assignment(f"up{index}.up.bias", block.up.bias)
        yield from _double(block.convolutions, *names(f"up{index}.conv"), transform=_skip_first(channels))
    yield from block_pairs("outc.conv", model.head, head=True)


def _levels(path: Any) -> list[Any]:
    """Return the double convolutions of a `ContractingPath`, from fine to coarse."""
    layers = [layer for layer in path.layers if re.fullmatch(r"level\d+", layer.name)]
    return [getattr(layer, "convolutions", layer) for layer in layers]


MILESIAL_UNET = Converter(
    layout="milesial Pytorch-UNet",
    recognises=lambda names: {"inc.double_conv.0.weight", "outc.conv.weight"} <= set(names),
    assignments=_milesial,
    ignored=(BATCH_COUNTERS,),
    num_classes=_outputs("outc.conv.bias"),
)

# --- mmsegmentation's fcn_unet_s5-d16


def _mmseg(model: Any) -> Pairs:
    def names(place: str) -> list[tuple[str, str]]:
        return [(f"{place}.convs.{index}.conv", f"{place}.convs.{index}.bn") for index in (0, 1)]

    for index, level in enumerate(_levels(model.backbone)):
        # From the second stage on, the first part of each is the pooling.
        yield from _double(level, *names(f"backbone.encoder.{index}.{min(index, 1)}"))
    last = len(model.decoder) - 1
    for index, (block, channels) in enumerate(zip(model.decoder, _skip_channels(model), strict=True)):
        place = f"backbone.decoder.{last - index}"  # numbered from the finest
        up = f"{place}.upsample.interp_upsample.1"
        yield from block_pairs(f"{up}.conv", block.up, norm=f"{up}.bn")
        yield from _double(block.convolutions, *names(f"{place}.conv_block"), transform=_skip_first(channels))
    for name, head in (("decode_head", model.head), ("auxiliary_head", model.auxiliary_head)):
        if head is not None:
            yield from block_pairs(f"{name}.convs.0.conv", head.convolution, norm=f"{name}.convs.0.bn")
            yield from block_pairs(f"{name}.conv_seg", head.score, head=True)


def _is_mmseg(names: Collection[str]) -> bool:
    return "backbone.decoder.0.upsample.interp_upsample.1.conv.weight" in names


MMSEG_UNET_S5_D16 = Converter(
    layout="mmsegmentation fcn_unet_s5-d16",
    recognises=_is_mmseg,
    assignments=_mmseg,
    ignored=(BATCH_COUNTERS,),
    num_classes=_outputs("decode_head.conv_seg.bias"),
)

"""The layouts of torchvision's checkpoints (https://github.com/pytorch/vision, `torchvision/models`)."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from zoo.converters.assign import Converter
from zoo.converters.torch_pairs import BATCH_COUNTERS, Pairs, block_pairs
from zoo.converters.torchvision_mobilenet import mobilenet_v3_pairs


def resnet_pairs(backbone: Any, prefix: str = "") -> Pairs:
    """Pair a `ResNet` with torchvision's `resnet*`, whose names begin with `prefix`."""
    yield from block_pairs(f"{prefix}conv1", backbone.get_layer("stem"), norm=f"{prefix}bn1")
    pattern = re.compile(r"stage(\d)_block(\d+)_(?:conv(\d)|downsample)")
    for layer in backbone.layers:
        match = pattern.fullmatch(layer.name)
        if match is None:
            continue
        stage, index, number = match.groups()
        block = f"{prefix}layer{stage}.{index}"
        if number is None:
            yield from block_pairs(f"{block}.downsample.0", layer, norm=f"{block}.downsample.1")
        else:
            yield from block_pairs(f"{block}.conv{number}", layer, norm=f"{block}.bn{number}")


def pyramid_pairs(pyramid: Any, prefix: str) -> Pairs:
    """Pair a `FeaturePyramid` with torchvision's `FeaturePyramidNetwork`, whose names begin with `prefix`."""
    for level, (lateral, output) in enumerate(zip(pyramid.laterals, pyramid.outputs, strict=True)):
        for name, block in (("inner_blocks", lateral), ("layer_blocks", output)):
            yield from block_pairs(f"{prefix}{name}.{level}.0", block, norm=f"{prefix}{name}.{level}.1")
    if hasattr(pyramid, "p6"):
        yield from block_pairs(f"{prefix}extra_blocks.p6", pyramid.p6)
        yield from block_pairs(f"{prefix}extra_blocks.p7", pyramid.p7)


def _retinanet(model: Any) -> Pairs:
    yield from resnet_pairs(model.backbone, "backbone.body.")
    yield from pyramid_pairs(model.pyramid, "backbone.fpn.")
    for prefix, head, output in (
        ("head.classification_head", model.classification_head, "cls_logits"),
        ("head.regression_head", model.box_head, "bbox_reg"),
    ):
        for index, hidden in enumerate(head.hidden):
            yield from block_pairs(f"{prefix}.conv.{index}.0", hidden)
        of_classes = output == "cls_logits"
        yield from block_pairs(f"{prefix}.{output}", head.output_convolution, head=of_classes)


def _fcn_head(name: str, head: Any) -> Pairs:
    """Pair an `FCNHead` with torchvision's."""
    yield from block_pairs(f"{name}.0", head.convolution, norm=f"{name}.1")
    yield from block_pairs(f"{name}.4", head.score, head=True)


def _deeplabv3_head(name: str, head: Any) -> Pairs:
    """Pair a `DeepLabV3Head` with torchvision's `DeepLabHead`."""
    pyramid = head.pyramid
    branches = [pyramid.point, *pyramid.atrous]
    for index, branch in enumerate(branches):
        yield from block_pairs(f"{name}.0.convs.{index}.0", branch, norm=f"{name}.0.convs.{index}.1")
    whole = f"{name}.0.convs.{len(branches)}"
    yield from block_pairs(f"{whole}.1", pyramid.whole, norm=f"{whole}.2")
    yield from block_pairs(f"{name}.0.project.0", pyramid.projection, norm=f"{name}.0.project.1")
    yield from block_pairs(f"{name}.1", head.convolution, norm=f"{name}.2")
    yield from block_pairs(f"{name}.4", head.score, head=True)


def _segmenter(backbone: Callable[[Any, str], Pairs], head: Callable[[str, Any], Pairs]) -> Callable[[Any], Pairs]:
    """Return the pairs of a `DilatedSegmenter`, given those of its backbone and head; the auxiliary one is FCN's."""

    def pairs(model: Any) -> Pairs:
        yield from backbone(model.backbone, "backbone.")
        yield from head("classifier", model.head)
        if model.auxiliary:
            yield from _fcn_head("aux_classifier", model.auxiliary_head)

    return pairs


def _segmenter_classes(tensors: Mapping[str, np.ndarray]) -> int | None:
    bias = tensors.get("classifier.4.bias")
    return None if bias is None else bias.size


def _retinanet_classes(tensors: Mapping[str, np.ndarray]) -> int | None:
    """Divide the channels of the class outputs by the anchors of a cell."""
    logits = tensors.get("head.classification_head.cls_logits.bias")
    deltas = tensors.get("head.regression_head.bbox_reg.bias")
    if logits is None or deltas is None or logits.size * 4 % max(deltas.size, 1):
        return None
    return logits.size * 4 // deltas.size


def modern_name(name: str) -> str:
    """Return today's spelling of a name from files before torchvision 0.13.

    Pyramid: ``inner_blocks.1.weight`` is ``inner_blocks.1.0.weight`` now. Heads: a convolution and its ReLU
    were ``conv.{2i}`` and ``conv.{2i + 1}``; the convolution is ``conv.{i}.0`` now.
    """
    name = re.sub(r"(inner_blocks|layer_blocks)\.(\d+)\.(weight|bias)$", r"\1.\2.0.\3", name)
    old_head = re.fullmatch(r"(head\.\w+_head\.conv)\.(\d+)\.(weight|bias)", name)
    if old_head:
        prefix, position, kind = old_head.groups()
        name = f"{prefix}.{int(position) // 2}.0.{kind}"
    return name


def _is_retinanet(names: Collection[str]) -> bool:
    return "head.classification_head.cls_logits.weight" in names


def _is_resnet(names: Collection[str]) -> bool:
    return "conv1.weight" in names and "layer1.0.conv1.weight" in names


RETINANET = Converter(
    layout="torchvision RetinaNet with a ResNet and a feature pyramid",
    recognises=_is_retinanet,
    assignments=_retinanet,
    rename=modern_name,
    ignored=(BATCH_COUNTERS,),
    num_classes=_retinanet_classes,
)

FCN = Converter(
    layout="torchvision FCN with a ResNet",
    recognises=lambda names: (
        {"backbone.layer1.0.conv1.weight", "classifier.4.weight"} <= set(names) and "classifier.0.weight" in names
    ),
    assignments=_segmenter(resnet_pairs, _fcn_head),
    ignored=(BATCH_COUNTERS,),
    num_classes=_segmenter_classes,
)

DEEPLABV3 = Converter(
    layout="torchvision DeepLabV3 with a ResNet",
    recognises=lambda names: {"backbone.layer1.0.conv1.weight", "classifier.0.convs.0.0.weight"} <= set(names),
    assignments=_segmenter(resnet_pairs, _deeplabv3_head),
    ignored=(BATCH_COUNTERS,),
    num_classes=_segmenter_classes,
)

DEEPLABV3_MOBILENET_V3 = Converter(
    layout="torchvision DeepLabV3 with a MobileNetV3",
    recognises=lambda names: {"backbone.1.block.0.0.weight", "classifier.0.convs.0.0.weight"} <= set(names),
    assignments=_segmenter(mobilenet_v3_pairs, _deeplabv3_head),
    ignored=(BATCH_COUNTERS,),
    num_classes=_segmenter_classes,
)

# A classifier: its last layer, fc, has no place in a detector or segmenter.
RESNET_BACKBONE = Converter(
    layout="torchvision ResNet classifier",
    part="backbone",
    recognises=_is_resnet,
    assignments=lambda model: resnet_pairs(model.backbone),
    scope=lambda model: model.backbone,
    ignored=(BATCH_COUNTERS, r"fc\.(weight|bias)"),
)

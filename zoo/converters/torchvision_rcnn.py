"""The layout of torchvision's Faster R-CNNs (https://github.com/pytorch/vision, `torchvision/models/detection`)."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from zoo.converters.assign import Assignment, Converter, Transform, matrix_from_torch
from zoo.converters.torch_pairs import BATCH_COUNTERS, Pairs, block_pairs
from zoo.converters.torchvision import modern_name, pyramid_pairs, resnet_pairs
from zoo.converters.torchvision_mobilenet import mobilenet_v3_pairs


def _dense_pairs(name: str, layer: Any, transform: Transform = matrix_from_torch) -> Pairs:
    yield Assignment(f"{name}.weight", layer.kernel, transform)
    yield Assignment(f"{name}.bias", layer.bias)


def _first_matrix(size: int) -> Transform:
    """Return the transform of a matrix (out, C * size * size) of a flattened map: channels are last here."""
    return lambda array: array.reshape(array.shape[0], -1, size, size).transpose(2, 3, 1, 0).reshape(-1, array.shape[0])


def box_head_pairs(model: Any) -> Pairs:
    """Pair a `RegionDetector`'s second stage with torchvision's `RoIHeads`; the background's deltas are left out."""
    head = model.box_head
    for index, convolution in enumerate(head.hidden):
        yield from block_pairs(f"roi_heads.box_head.{index}.0", convolution, norm=f"roi_heads.box_head.{index}.1")
    first = _first_matrix(model.pooling.output_size)
    for index, dense in enumerate(head.dense):
        # A list of layers counts the flattening, and each ReLU.
        name = str(len(head.hidden) + 1 + 2 * index) if head.hidden else f"fc{6 + index}"
        yield from _dense_pairs(f"roi_heads.box_head.{name}", dense, matrix_from_torch if index else first)
    predictor = model.box_predictor
    prefix = "roi_heads.box_predictor"
    yield Assignment(f"{prefix}.cls_score.weight", predictor.classifier.kernel, matrix_from_torch, head=True)
    yield Assignment(f"{prefix}.cls_score.bias", predictor.classifier.bias, head=True)
    yield Assignment(f"{prefix}.bbox_pred.weight", predictor.regressor.kernel, lambda array: array[4:].T, head=True)
    yield Assignment(f"{prefix}.bbox_pred.bias", predictor.regressor.bias, lambda array: array[4:], head=True)


def _faster_rcnn(backbone: Callable[[Any, str], Pairs]) -> Callable[[Any], Pairs]:
    """Return the pairs of a `FasterRCNN` over a pyramid, given those of its backbone."""

    def pairs(model: Any) -> Pairs:
        yield from backbone(model.backbone, "backbone.body.")
        yield from pyramid_pairs(model.pyramid, "backbone.fpn.")
        head = model.proposal_head
        for index, hidden in enumerate(head.hidden):
            yield from block_pairs(f"rpn.head.conv.{index}.0", hidden)
        yield from block_pairs("rpn.head.cls_logits", head.objectness)
        yield from block_pairs("rpn.head.bbox_pred", head.deltas)
        yield from box_head_pairs(model)

    return pairs


def _current_name(name: str) -> str:
    """Return today's spelling of a name; the proposal head's convolution was ``rpn.head.conv`` before 0.13."""
    return re.sub(r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1", modern_name(name))


def _classes(tensors: Mapping[str, np.ndarray]) -> int | None:
    bias = tensors.get("roi_heads.box_predictor.cls_score.bias")
    return None if bias is None else bias.size - 1


FASTER_RCNN = Converter(
    layout="torchvision Faster R-CNN with a ResNet and a feature pyramid",
    recognises=lambda names: {"backbone.body.layer1.0.conv1.weight", "rpn.head.cls_logits.weight"} <= set(names),
    assignments=_faster_rcnn(resnet_pairs),
    rename=_current_name,
    ignored=(BATCH_COUNTERS,),
    num_classes=_classes,
)

FASTER_RCNN_MOBILENET_V3 = Converter(
    layout="torchvision Faster R-CNN with a MobileNetV3 and a feature pyramid",
    recognises=lambda names: {"backbone.body.1.block.0.0.weight", "rpn.head.cls_logits.weight"} <= set(names),
    assignments=_faster_rcnn(mobilenet_v3_pairs),
    rename=_current_name,
    ignored=(BATCH_COUNTERS,),
    num_classes=_classes,
)

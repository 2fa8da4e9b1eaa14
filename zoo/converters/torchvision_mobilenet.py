"""The layouts of torchvision's MobileNetV2 and V3 (https://github.com/pytorch/vision, `torchvision/models`).

Inside a detector or segmenter the layers keep their numbers and lose the word ``features``: ``backbone.4.block.1.0``.
"""

import re
from collections.abc import Collection
from typing import Any

from zoo.converters.assign import Converter
from zoo.converters.torch_pairs import BATCH_COUNTERS, Pairs, block_pairs


def _residual(name: str, layer: Any, *, flat_end: bool) -> Pairs:
    """Pair an `InvertedResidual`, whose parts are numbered; `flat_end`: so are the last convolution and its norm."""
    number = 0
    for part in (layer.expand, layer.depthwise, layer.squeeze, layer.project):
        if part is None:
            continue
        if part is layer.squeeze:
            yield from block_pairs(f"{name}.{number}.fc1", part.reduce)
            yield from block_pairs(f"{name}.{number}.fc2", part.expand)
        elif part is layer.project and flat_end:
            yield from block_pairs(f"{name}.{number}", part, norm=f"{name}.{number + 1}")
        else:
            yield from block_pairs(f"{name}.{number}.0", part, norm=f"{name}.{number}.1")
        number += 1


def _network(backbone: Any, prefix: str, word: str, *, flat_end: bool) -> Pairs:
    for layer in backbone.layers:
        match = re.fullmatch(r"block(\d+)", layer.name)
        if match is not None:
            yield from _residual(f"{prefix}{match[1]}.{word}", layer, flat_end=flat_end)
        elif layer.name in ("stem", "last"):
            number = 0 if layer.name == "stem" else backbone.last_index
            yield from block_pairs(f"{prefix}{number}.0", layer, norm=f"{prefix}{number}.1")


def mobilenet_v2_pairs(backbone: Any, prefix: str = "features.") -> Pairs:
    """Pair a `MobileNetV2` with torchvision's, whose names begin with `prefix`."""
    return _network(backbone, prefix, "conv", flat_end=True)


def mobilenet_v3_pairs(backbone: Any, prefix: str = "features.") -> Pairs:
    """Pair a `MobileNetV3` with torchvision's, whose names begin with `prefix`."""
    return _network(backbone, prefix, "block", flat_end=False)


def _is_mobilenet_v2(names: Collection[str]) -> bool:
    return "features.1.conv.0.0.weight" in names and "classifier.1.weight" in names


def _is_mobilenet_v3(names: Collection[str]) -> bool:
    return "features.1.block.0.0.weight" in names and "classifier.3.weight" in names


# Classifiers: their dense layers have no place in a detector or segmenter, nor has the last convolution in some.
MOBILENET_V2_BACKBONE = Converter(
    layout="torchvision MobileNetV2 classifier",
    part="backbone",
    recognises=_is_mobilenet_v2,
    assignments=lambda model: mobilenet_v2_pairs(model.backbone),
    scope=lambda model: model.backbone,
    ignored=(BATCH_COUNTERS, r"classifier\.1\.(weight|bias)", r"features\.18\..*"),
)
MOBILENET_V3_BACKBONE = Converter(
    layout="torchvision MobileNetV3 classifier",
    part="backbone",
    recognises=_is_mobilenet_v3,
    assignments=lambda model: mobilenet_v3_pairs(model.backbone),
    scope=lambda model: model.backbone,
    ignored=(BATCH_COUNTERS, r"classifier\.[03]\.(weight|bias)"),
)

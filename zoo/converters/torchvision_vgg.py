"""The layouts of torchvision's VGG and AlexNet checkpoints (https://github.com/pytorch/vision, `torchvision/models`).

Models that keep the classifier's first two dense layers, as convolutions `fc6` and `fc7`, have converters of their own.
Where these are smaller than the dense layers, every n-th tap and every n-th channel is taken, as DeepLab (Chen et al.
2015, https://arxiv.org/abs/1412.7062, section 3) and SSD do; which channels their authors took is not published.
"""

import re
from collections.abc import Collection
from typing import Any

import numpy as np

from zoo.converters.assign import Assignment, Converter, kernel_from_torch
from zoo.converters.torch_pairs import BATCH_COUNTERS, Pairs, block_pairs

_FULL_FILTERS = 4096  # of both dense layers


def _vgg(backbone: Any) -> Pairs:
    """Pair a `VGG`: in torchvision's list convolution, norm, ReLU and pooling each have a number."""
    number, former = 0, "1"
    for layer in backbone.layers:
        match = re.fullmatch(r"conv(\d)_\d", layer.name)
        if match is None:
            continue
        number += match[1] != former  # the pooling between two blocks
        former = match[1]
        yield from block_pairs(f"features.{number}", layer, norm=f"features.{number + 1}")
        number += 2 if layer.normalization is None else 3


def _alexnet(backbone: Any) -> Pairs:
    for layer in backbone.layers:
        match = re.fullmatch(r"conv(\d)(_group\d+)?", layer.name)
        if match is not None:
            # A network of several groups has kernels of other shapes, which the error will name.
            yield from block_pairs(f"features.{(0, 3, 6, 8, 10)[int(match[1]) - 1]}", layer)


def _dense(model: Any, first: str, second: str, side: int) -> Pairs:
    """Pair `fc6` and `fc7` with dense layers, the first of which saw a map of `side` x `side` cells."""

    def taken(array: np.ndarray, variable: Any) -> np.ndarray:
        """Return every n-th of the first axis's entries, as many as the variable's last axis has."""
        return array[:: max(1, _FULL_FILTERS // variable.shape[-1])]

    fc6, fc7 = model.fc6, model.fc7
    taps = max(1, (side - 1) // max(1, fc6.kernel.shape[0] - 1))

    def first_kernel(array: np.ndarray) -> np.ndarray:
        kernel = taken(array, fc6.kernel).reshape(-1, array.shape[1] // side**2, side, side)  # (F, C, side, side)
        return kernel_from_torch(kernel[:, :, ::taps, ::taps])

    def second_kernel(array: np.ndarray) -> np.ndarray:
        return taken(taken(array, fc7.kernel).T, fc6.kernel)[None, None]  # (1, 1, F, F')

    yield Assignment(f"{first}.weight", fc6.kernel, first_kernel)
    yield Assignment(f"{first}.bias", fc6.bias, lambda array: taken(array, fc6.bias))
    yield Assignment(f"{second}.weight", fc7.kernel, second_kernel)
    yield Assignment(f"{second}.bias", fc7.bias, lambda array: taken(array, fc7.bias))


def _with_dense(model: Any) -> Any:
    return [model.backbone, model.fc6, model.fc7]


def _is_vgg(names: Collection[str]) -> bool:
    return "features.0.weight" in names and "classifier.0.weight" in names


def _is_alexnet(names: Collection[str]) -> bool:
    return "features.0.weight" in names and "classifier.1.weight" in names


def _vgg_model(model: Any) -> Pairs:
    yield from _vgg(model.backbone)
    yield from _dense(model, "classifier.0", "classifier.3", side=7)


def _alexnet_model(model: Any) -> Pairs:
    yield from _alexnet(model.backbone)
    yield from _dense(model, "classifier.1", "classifier.4", side=6)


# Classifiers: the last layer has no place in a detector or segmenter.
VGG_BACKBONE = Converter(
    layout="torchvision VGG classifier",
    part="backbone",
    recognises=_is_vgg,
    assignments=lambda model: _vgg(model.backbone),
    scope=lambda model: model.backbone,
    ignored=(BATCH_COUNTERS, r"classifier\.\d\.(weight|bias)"),
)
VGG_BACKBONE_AND_DENSE = Converter(
    layout="torchvision VGG classifier",
    part="backbone",
    recognises=_is_vgg,
    assignments=_vgg_model,
    scope=_with_dense,
    fills="the backbone, fc6 and fc7",
    ignored=(BATCH_COUNTERS, r"classifier\.6\.(weight|bias)"),
)
ALEXNET_BACKBONE = Converter(
    layout="torchvision AlexNet classifier",
    part="backbone",
    recognises=_is_alexnet,
    assignments=lambda model: _alexnet(model.backbone),
    scope=lambda model: model.backbone,
    ignored=(r"classifier\.\d\.(weight|bias)",),
)
ALEXNET_BACKBONE_AND_DENSE = Converter(
    layout="torchvision AlexNet classifier",
    part="backbone",
    recognises=_is_alexnet,
    assignments=_alexnet_model,
    scope=_with_dense,
    fills="the backbone, fc6 and fc7",
    ignored=(r"classifier\.6\.(weight|bias)",),
)

"""The encoders of segmentation_models.pytorch (https://github.com/qubvel-org/segmentation_models.pytorch)."""

from typing import Any

from zoo.converters.torch_pairs import Pairs
from zoo.converters.torchvision import resnet_pairs
from zoo.converters.torchvision_mobilenet import mobilenet_v2_pairs


def smp_encoder_pairs(backbone: Any) -> Pairs:
    """Pair a `ResNet` or `MobileNetV2` with its encoder, which has torchvision's names."""
    if type(backbone).__name__ == "MobileNetV2":
        return mobilenet_v2_pairs(backbone, "encoder.features.")
    return resnet_pairs(backbone, "encoder.")

"""Attention U-Net."""

from zoo.embedded import weights_of
from zoo.registry import Entry

_PAPER = "Oktay et al. 2018, Attention U-Net: Learning Where to Look for the Pancreas, https://arxiv.org/abs/1804.03999"
_ARCHITECTURE = "kerasvision.models.attention_unet:AttentionUNet"

_STREETS = weights_of("attention_unet_resnet10")

ENTRIES = (
    Entry(
        name="attention_unet",
        task="segmentation",
        builder="kerasvision.models.attention_unet:attention_unet",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="U-Net whose skip connections are weighed pixel by pixel by what the coarser level knows.",
        parameters=33_115_653,
        macs=197_521_833_984,
        macs_hw=(512, 512),
        macs_classes=2,
    ),
    Entry(
        name="attention_unet_resnet10",
        task="segmentation",
        builder="kerasvision.models.attention_unet:attention_unet_resnet10",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="An attention U-Net small enough to train on a CPU: half-width ResNet-10, narrow expanding path.",
        parameters=2_153_504,
        macs=1_802_588_160,
        macs_hw=(256, 384),
        macs_classes=21,
        weights=_STREETS,
        default=_STREETS[0].tag if _STREETS else None,
    ),
)

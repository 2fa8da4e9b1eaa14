"""U-Net++."""

from zoo.embedded import weights_of
from zoo.entries.unet import imagenet_weights
from zoo.registry import Entry

_PAPER = "Zhou et al. 2018, UNet++: A Nested U-Net Architecture for Medical Image Segmentation, "
_PAPER += "https://arxiv.org/abs/1807.10165"
_ARCHITECTURE = "kerasvision.models.unet_plus_plus:UNetPlusPlus"

_STREETS = weights_of("unet_plus_plus_resnet10")

ENTRIES = (
    Entry(
        name="unet_plus_plus",
        task="segmentation",
        builder="kerasvision.models.unet_plus_plus:unet_plus_plus",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="Nested, densely joined skip connections on U-Net's own contracting path, in the paper's widths.",
        parameters=9_053_154,
        macs=119_160_176_640,
        macs_hw=(512, 512),
        macs_classes=2,
    ),
    Entry(
        name="unet_plus_plus_resnet34",
        task="segmentation",
        builder="kerasvision.models.unet_plus_plus:unet_plus_plus_resnet34",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="U-Net++ on a ResNet-34, as in segmentation_models.pytorch.",
        parameters=26_102_309,
        macs=74_289_512_448,
        macs_hw=(512, 512),
        macs_classes=21,
        converters=("zoo.converters.unet:SMP_UNET_PLUS_PLUS",),
        weights=(imagenet_weights("resnet34-b627a593.pth", 87_320_000, 73.314),),
        default="imagenet",
    ),
    Entry(
        name="unet_plus_plus_resnet10",
        task="segmentation",
        builder="kerasvision.models.unet_plus_plus:unet_plus_plus_resnet10",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="A U-Net++ small enough to train on a CPU: half-width ResNet-10.",
        parameters=2_454_140,
        macs=6_183_714_816,
        macs_hw=(256, 384),
        macs_classes=21,
        weights=_STREETS,
        default=_STREETS[0].tag if _STREETS else None,
    ),
)

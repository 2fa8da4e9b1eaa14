"""U-Net."""

from zoo.embedded import weights_of
from zoo.registry import Entry, Weights

_PAPER = "Ronneberger et al. 2015, U-Net: Convolutional Networks for Biomedical Image Segmentation, "
_PAPER += "https://arxiv.org/abs/1505.04597"
_ARCHITECTURE = "kerasvision.models.unet:UNet"
_SMP = "zoo.converters.unet:SMP_UNET"


def imagenet_weights(
    file: str, size_bytes: int, accuracy: float, *, converter="torchvision:RESNET_BACKBONE", recipe="resnet"
) -> Weights:
    """Return torchvision's ImageNet weights (IMAGENET1K_V1) of a backbone."""
    return Weights(
        tag="imagenet",
        source=f"https://download.pytorch.org/models/{file}",
        sha256=file.removesuffix(".pth").rpartition("-")[2],
        size_bytes=size_bytes,
        converter=f"zoo.converters.{converter}",
        part="backbone",
        license="BSD-3-Clause (torchvision), trained on ImageNet-1K",
        reported={"ImageNet-1K top-1 accuracy (as a classifier)": accuracy},
        recipe=f"https://github.com/pytorch/vision/tree/main/references/classification#{recipe}",
    )


_STREETS = weights_of("unet_resnet10")

ENTRIES = (
    Entry(
        name="unet",
        task="segmentation",
        builder="kerasvision.models.unet:unet",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="The network of the paper, with padded convolutions so that any image size fits.",
        parameters=31_031_810,
        macs=192_686_325_760,
        macs_hw=(512, 512),
        macs_classes=2,
    ),
    Entry(
        name="unet_valid",
        task="segmentation",
        builder="kerasvision.models.unet:unet_valid",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="The network of the paper as it was: no padding; images are mirrored at their borders instead.",
        parameters=31_031_810,
        macs=150_802_709_248,
        macs_hw=(388, 388),
        macs_classes=2,
    ),
    Entry(
        name="unet_batch_norm",
        task="segmentation",
        builder="kerasvision.models.unet:unet_batch_norm",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="U-Net with batch normalisation, in the layout of the widespread PyTorch one, milesial's.",
        parameters=31_049_474,
        macs=192_686_325_760,
        macs_hw=(512, 512),
        macs_classes=2,
        converters=("zoo.converters.unet:MILESIAL_UNET",),
    ),
    Entry(
        name="unet_resnet34",
        task="segmentation",
        builder="kerasvision.models.unet:unet_resnet34",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="U-Net whose contracting path is a ResNet-34, as in segmentation_models.pytorch.",
        parameters=24_458_277,
        macs=32_010_928_128,
        macs_hw=(512, 512),
        macs_classes=21,
        converters=(_SMP,),
        weights=(imagenet_weights("resnet34-b627a593.pth", 87_320_000, 73.314),),
        default="imagenet",
    ),
    Entry(
        name="unet_resnet50",
        task="segmentation",
        builder="kerasvision.models.unet:unet_resnet50",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="U-Net whose contracting path is a ResNet-50, as in segmentation_models.pytorch.",
        parameters=32_579_109,
        macs=43_285_217_280,
        macs_hw=(512, 512),
        macs_classes=21,
        converters=(_SMP,),
        weights=(imagenet_weights("resnet50-0676ba61.pth", 102_530_000, 76.130),),
        default="imagenet",
    ),
    Entry(
        name="unet_mobilenet_v2",
        task="segmentation",
        builder="kerasvision.models.unet:unet_mobilenet_v2",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="U-Net whose contracting path is a MobileNetV2, as in segmentation_models.pytorch.",
        parameters=6_667_941,
        macs=14_135_033_856,
        macs_hw=(512, 512),
        macs_classes=21,
        converters=(_SMP,),
        weights=(
            imagenet_weights(
                "mobilenet_v2-b0353104.pth",
                13_555_000,
                71.878,
                converter="torchvision_mobilenet:MOBILENET_V2_BACKBONE",
                recipe="mobilenetv2",
            ),
        ),
        default="imagenet",
    ),
    Entry(
        name="unet_resnet10",
        task="segmentation",
        builder="kerasvision.models.unet:unet_resnet10",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="A U-Net small enough to train on a CPU: half-width ResNet-10 and narrow expanding path.",
        parameters=2_024_029,
        macs=1_774_190_592,
        macs_hw=(256, 384),
        macs_classes=21,
        weights=_STREETS,
        default=_STREETS[0].tag if _STREETS else None,
    ),
)

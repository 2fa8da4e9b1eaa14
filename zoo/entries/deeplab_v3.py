"""DeepLabV3, as torchvision's."""

from kerasvision.ops.resizing import ResizeRule
from zoo.embedded import weights_of
from zoo.registry import Entry, Weights

_PAPER = "Chen et al. 2017, Rethinking Atrous Convolution for Semantic Image Segmentation, "
_PAPER += "https://arxiv.org/abs/1706.05587"
_ARCHITECTURE = "kerasvision.models.deeplab_v3:DeepLabV3"


def _coco(file: str, size_bytes: int, mean_iou: float, accuracy: float, converter: str = "DEEPLABV3") -> Weights:
    """Return torchvision's weights COCO_WITH_VOC_LABELS_V1."""
    return Weights(
        tag="coco_voc_v1",
        source=f"https://download.pytorch.org/models/{file}",
        sha256=file.removesuffix(".pth").rpartition("-")[2],
        size_bytes=size_bytes,
        converter=f"zoo.converters.torchvision:{converter}",
        license="BSD-3-Clause (torchvision), trained on COCO",
        num_classes=21,
        class_names="voc_21",
        resize_rule=ResizeRule("shortest_side", shortest=520, antialias=True),
        reported={
            "mIoU on COCO val2017 with VOC's labels": mean_iou,
            "pixel accuracy on COCO val2017 with VOC's labels": accuracy,
        },
        recipe="https://github.com/pytorch/vision/tree/main/references/segmentation",
    )


ENTRIES = (
    Entry(
        name="deeplabv3_resnet50",
        task="segmentation",
        builder="kerasvision.models.deeplab_v3:deeplabv3_resnet50",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="torchvision's DeepLabV3: a dilated ResNet-50, atrous spatial pyramid pooling, an auxiliary head.",
        parameters=42_061_290,
        macs=168_731_205_888,
        macs_hw=(520, 520),
        macs_classes=21,
        weights=(_coco("deeplabv3_resnet50_coco-cd0a2569.pth", 168_312_000, 66.4, 92.4),),
        default="coco_voc_v1",
        converters=("zoo.converters.torchvision:RESNET_BACKBONE",),
    ),
    Entry(
        name="deeplabv3_resnet101",
        task="segmentation",
        builder="kerasvision.models.deeplab_v3:deeplabv3_resnet101",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="torchvision's DeepLabV3: a dilated ResNet-101, atrous spatial pyramid pooling, an auxiliary head.",
        parameters=61_105_642,
        macs=248_752_300_288,
        macs_hw=(520, 520),
        macs_classes=21,
        weights=(_coco("deeplabv3_resnet101_coco-586e9e4e.pth", 244_546_000, 67.4, 92.4),),
        default="coco_voc_v1",
        converters=("zoo.converters.torchvision:RESNET_BACKBONE",),
    ),
    Entry(
        name="deeplabv3_mobilenet_v3_large",
        task="segmentation",
        builder="kerasvision.models.deeplab_v3:deeplabv3_mobilenet_v3_large",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="torchvision's DeepLabV3: a dilated MobileNetV3-Large, atrous spatial pyramid pooling.",
        parameters=11_057_332,
        macs=10_436_350_688,
        macs_hw=(520, 520),
        macs_classes=21,
        weights=(_coco("deeplabv3_mobilenet_v3_large-fc3c493d.pth", 44_356_000, 60.3, 91.2, "DEEPLABV3_MOBILENET_V3"),),
        default="coco_voc_v1",
        converters=("zoo.converters.torchvision_mobilenet:MOBILENET_V3_BACKBONE",),
    ),
    Entry(
        name="deeplabv3_resnet10",
        task="segmentation",
        builder="kerasvision.models.deeplab_v3:deeplabv3_resnet10",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="A DeepLabV3 small enough to train on a CPU: half-width ResNet-10, 64 channels in the head.",
        parameters=1_806_442,
        macs=2_873_344_000,
        macs_hw=(256, 384),
        macs_classes=21,
        weights=weights_of("deeplabv3_resnet10"),
        default="streets",
    ),
)

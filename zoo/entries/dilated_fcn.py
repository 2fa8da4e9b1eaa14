"""FCN on dilated residual networks, as torchvision's."""

from kerasvision.ops.resizing import ResizeRule
from zoo.embedded import weights_of
from zoo.registry import Entry, Weights

_PAPER = "Long et al. 2015, Fully Convolutional Networks for Semantic Segmentation, https://arxiv.org/abs/1411.4038"
_ARCHITECTURE = "kerasvision.models.dilated_fcn:DilatedFCN"


def _coco(file: str, size_bytes: int, mean_iou: float, accuracy: float) -> Weights:
    """Return torchvision's weights COCO_WITH_VOC_LABELS_V1."""
    return Weights(
        tag="coco_voc_v1",
        source=f"https://download.pytorch.org/models/{file}",
        sha256=file.removesuffix(".pth").rpartition("-")[2],
        size_bytes=size_bytes,
        converter="zoo.converters.torchvision:FCN",
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
        name="fcn_resnet50",
        task="segmentation",
        builder="kerasvision.models.dilated_fcn:fcn_resnet50",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="torchvision's FCN: a dilated ResNet-50, one 3x3 convolution, an auxiliary head.",
        parameters=35_376_874,
        macs=142_725_772_800,
        macs_hw=(520, 520),
        macs_classes=21,
        weights=(_coco("fcn_resnet50_coco-1167a1af.pth", 141_567_000, 60.5, 91.4),),
        default="coco_voc_v1",
        converters=("zoo.converters.torchvision:RESNET_BACKBONE",),
    ),
    Entry(
        name="fcn_resnet101",
        task="segmentation",
        builder="kerasvision.models.dilated_fcn:fcn_resnet101",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="torchvision's FCN: a dilated ResNet-101, one 3x3 convolution, an auxiliary head.",
        parameters=54_421_226,
        macs=222_746_867_200,
        macs_hw=(520, 520),
        macs_classes=21,
        weights=(_coco("fcn_resnet101_coco-7ecb50ca.pth", 217_800_000, 63.7, 91.9),),
        default="coco_voc_v1",
        converters=("zoo.converters.torchvision:RESNET_BACKBONE",),
    ),
    Entry(
        name="fcn_resnet10",
        task="segmentation",
        builder="kerasvision.models.dilated_fcn:fcn_resnet10",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="A dilated FCN small enough to train on a CPU: half-width ResNet-10.",
        parameters=1_419_882,
        macs=2_307_096_576,
        macs_hw=(256, 384),
        macs_classes=21,
        weights=weights_of("fcn_resnet10"),
        default="streets",
    ),
)

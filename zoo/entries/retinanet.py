"""RetinaNet."""

from kerasvision.ops.resizing import ResizeRule
from zoo.embedded import weights_of
from zoo.registry import Entry, Weights

_PAPER = "Lin et al. 2017, Focal Loss for Dense Object Detection, https://arxiv.org/abs/1708.02002"
_CONVERTER = "zoo.converters.torchvision:RETINANET"
_ARCHITECTURE = "kerasvision.models.retinanet:RetinaNet"

_COCO_V1 = Weights(
    tag="coco_v1",
    source="https://download.pytorch.org/models/retinanet_resnet50_fpn_coco-eeacb38b.pth",
    sha256="eeacb38b",
    size_bytes=136_594_850,
    converter=_CONVERTER,
    license="BSD-3-Clause (torchvision), trained on COCO",
    num_classes=91,
    class_names="coco_91",
    resize_rule=ResizeRule("shortest_side", shortest=800, longest=1333),
    reported={"COCO val2017 AP": 36.4},
    # torchvision overwrites the epsilon of this one checkpoint's frozen normalisation (overwrite_eps).
    options={"epsilon": 0.0},
    recipe="https://github.com/pytorch/vision/tree/main/references/detection#retinanet",
)

_STREETS = weights_of("retinanet_resnet10_fpn")

ENTRIES = (
    Entry(
        name="retinanet_resnet50_fpn",
        task="detection",
        builder="kerasvision.models.retinanet:retinanet_resnet50_fpn",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="One-stage detector with focal loss: ResNet-50, feature pyramid P3-P7, as torchvision's.",
        parameters=34_121_239,
        macs=151_540_437_248,
        macs_hw=(800, 800),
        macs_classes=91,
        weights=(_COCO_V1,),
        default="coco_v1",
        # torchvision, without any weights: BatchNorm2d, and trainable_backbone_layers = 5.
        scratch_options={"normalization": "batch", "frozen_stages": 0},
        converters=("zoo.converters.torchvision:RESNET_BACKBONE",),
    ),
    Entry(
        name="retinanet_resnet10_fpn",
        task="detection",
        builder="kerasvision.models.retinanet:retinanet_resnet10_fpn",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="A RetinaNet small enough to train on a CPU: half-width ResNet-10, 64 pyramid channels.",
        parameters=2_030_548,
        macs=1_772_164_608,
        macs_hw=(256, 384),
        macs_classes=80,
        weights=_STREETS,
        default=_STREETS[0].tag if _STREETS else None,
    ),
)

"""Faster R-CNN, as torchvision's and as in the paper."""

from kerasvision.ops.resizing import ResizeRule
from zoo.class_names import CLASS_NAMES
from zoo.embedded import weights_of
from zoo.registry import Entry, Weights

_PAPER = "Ren et al. 2015, Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks, "
_PAPER += "https://arxiv.org/abs/1506.01497"
_ARCHITECTURE = "kerasvision.models.faster_rcnn:FasterRCNN"
_RESNET = "zoo.converters.torchvision_rcnn:FASTER_RCNN"
_MOBILENET = "zoo.converters.torchvision_rcnn:FASTER_RCNN_MOBILENET_V3"
_LARGE = ResizeRule("shortest_side", shortest=800, longest=1333)
# torchvision, without any weights: BatchNorm2d, and all of the backbone is trained.
_SCRATCH = {"normalization": "batch", "frozen_stages": 0}


def _coco(file: str, size_bytes: int, average_precision: float, converter: str, resize_rule=_LARGE, **options):
    """Return torchvision's weights COCO_V1; COCO's ids without the background, which is no class here."""
    return Weights(
        tag="coco_v1",
        source=f"https://download.pytorch.org/models/{file}",
        sha256=file.removesuffix(".pth").rpartition("-")[2],
        size_bytes=size_bytes,
        converter=converter,
        license="BSD-3-Clause (torchvision), trained on COCO",
        num_classes=90,
        class_names=CLASS_NAMES["coco_91"][1:],
        resize_rule=resize_rule,
        reported={"COCO val2017 AP": average_precision},
        options=options,
        recipe="https://github.com/pytorch/vision/tree/main/references/detection",
    )


_STREETS = weights_of("fasterrcnn_resnet10_fpn")

ENTRIES = (
    Entry(
        name="fasterrcnn_resnet50_fpn",
        task="detection",
        builder="kerasvision.models.faster_rcnn:fasterrcnn_resnet50_fpn",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="Two-stage detector: ResNet-50, feature pyramid P2-P6, RoIAlign, as torchvision's.",
        parameters=41_857_426,
        macs=134_375_625_216,
        macs_hw=(800, 800),
        macs_classes=90,
        # torchvision overwrites the epsilon of this one checkpoint's frozen normalisation (overwrite_eps).
        weights=(_coco("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", 167_502_836, 37.0, _RESNET, epsilon=0.0),),
        default="coco_v1",
        scratch_options=_SCRATCH,
        converters=("zoo.converters.torchvision:RESNET_BACKBONE",),
    ),
    Entry(
        name="fasterrcnn_resnet50_fpn_v2",
        task="detection",
        builder="kerasvision.models.faster_rcnn:fasterrcnn_resnet50_fpn_v2",
        architecture=_ARCHITECTURE,
        paper="Li et al. 2021, Benchmarking Detection Transfer Learning with Vision Transformers, "
        "https://arxiv.org/abs/2111.11429",
        description="torchvision's second Faster R-CNN: batch normalisation everywhere, convolutions in the box head.",
        parameters=43_767_442,
        macs=280_366_633_472,
        macs_hw=(800, 800),
        macs_classes=90,
        weights=(_coco("fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth", 175_221_000, 46.7, _RESNET),),
        default="coco_v1",
        scratch_options={"frozen_stages": 0},
        converters=("zoo.converters.torchvision:RESNET_BACKBONE",),
    ),
    Entry(
        name="fasterrcnn_mobilenet_v3_large_fpn",
        task="detection",
        builder="kerasvision.models.faster_rcnn:fasterrcnn_mobilenet_v3_large_fpn",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="A light Faster R-CNN on MobileNetV3-Large, as torchvision's.",
        parameters=19_431_054,
        macs=18_849_048_256,
        macs_hw=(800, 800),
        macs_classes=90,
        weights=(_coco("fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth", 77_844_000, 32.8, _MOBILENET),),
        default="coco_v1",
        scratch_options=_SCRATCH,
        converters=("zoo.converters.torchvision_mobilenet:MOBILENET_V3_BACKBONE",),
    ),
    Entry(
        name="fasterrcnn_mobilenet_v3_large_320_fpn",
        task="detection",
        builder="kerasvision.models.faster_rcnn:fasterrcnn_mobilenet_v3_large_320_fpn",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="The same for images of 320 pixels and with 150 proposals.",
        parameters=19_431_054,
        macs=2_872_316_800,
        macs_hw=(320, 320),
        macs_classes=90,
        weights=(
            _coco(
                "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth",
                77_844_000,
                22.8,
                _MOBILENET,
                ResizeRule("shortest_side", shortest=320, longest=640),
            ),
        ),
        default="coco_v1",
        scratch_options=_SCRATCH,
        converters=("zoo.converters.torchvision_mobilenet:MOBILENET_V3_BACKBONE",),
    ),
    Entry(
        name="fasterrcnn_vgg16",
        task="detection",
        builder="kerasvision.models.faster_rcnn:fasterrcnn_vgg16",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="The paper's own: VGG-16's conv5_3, RoIPool, two dense layers of 4096.",
        parameters=137_057_234,
        macs=152_489_453_568,
        macs_hw=(608, 608),
        macs_classes=20,
        converters=("zoo.converters.torchvision_vgg:VGG_BACKBONE",),
        scratch_options={"frozen_stages": 0},
    ),
    Entry(
        name="fasterrcnn_resnet10_fpn",
        task="detection",
        builder="kerasvision.models.faster_rcnn:fasterrcnn_resnet10_fpn",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="A Faster R-CNN small enough to train on a CPU: half-width ResNet-10, 64 pyramid channels.",
        parameters=1_919_488,
        macs=1_267_783_680,
        macs_hw=(256, 384),
        macs_classes=80,
        weights=_STREETS,
        default=_STREETS[0].tag if _STREETS else None,
    ),
)

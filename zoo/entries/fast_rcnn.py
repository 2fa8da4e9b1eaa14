"""Fast R-CNN, as in the paper and as Detectron2's."""

from zoo.embedded import weights_of
from zoo.registry import Entry

_PAPER = "Girshick 2015, Fast R-CNN, https://arxiv.org/abs/1504.08083"
_ARCHITECTURE = "kerasvision.models.fast_rcnn:FastRCNN"

_STREETS = weights_of("fast_rcnn_resnet10_fpn")

ENTRIES = (
    Entry(
        name="fast_rcnn_vgg16",
        task="detection",
        builder="kerasvision.models.fast_rcnn:fast_rcnn_vgg16",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="The paper's own: selective search, VGG-16's conv5_3, RoIPool, two dense layers of 4096.",
        parameters=134_674_341,
        macs=352_966_672_384,
        macs_hw=(608, 608),
        macs_classes=20,
        converters=("zoo.converters.torchvision_vgg:VGG_BACKBONE",),
        scratch_options={"frozen_stages": 0},
    ),
    Entry(
        name="fast_rcnn_resnet50_fpn",
        task="detection",
        builder="kerasvision.models.fast_rcnn:fast_rcnn_resnet50_fpn",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="Selective search, ResNet-50, feature pyramid P2-P5, Detectron2's RoIAlign and box head.",
        parameters=41_212_241,
        macs=116_989_952_000,
        macs_hw=(800, 800),
        macs_classes=80,
        scratch_options={"normalization": "batch", "frozen_stages": 0},
        converters=("zoo.converters.torchvision:RESNET_BACKBONE",),
    ),
    Entry(
        name="fast_rcnn_resnet10_fpn",
        task="detection",
        builder="kerasvision.models.fast_rcnn:fast_rcnn_resnet10_fpn",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="A Fast R-CNN small enough to train on a CPU: half-width ResNet-10, 64 pyramid channels.",
        parameters=1_881_585,
        macs=1_286_616_064,
        macs_hw=(256, 384),
        macs_classes=80,
        weights=_STREETS,
        default=_STREETS[0].tag if _STREETS else None,
    ),
)

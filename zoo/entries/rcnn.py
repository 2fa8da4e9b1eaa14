"""R-CNN, as in the paper."""

from zoo.embedded import weights_of
from zoo.registry import Entry

_PAPER = "Girshick et al. 2014, Rich feature hierarchies for accurate object detection and semantic segmentation, "
_PAPER += "https://arxiv.org/abs/1311.2524"
_ARCHITECTURE = "kerasvision.models.rcnn:RCNN"

_STREETS = weights_of("rcnn_vgg8")

ENTRIES = (
    Entry(
        name="rcnn_alexnet",
        task="detection",
        builder="kerasvision.models.rcnn:rcnn_alexnet",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="The paper's own: selective search, AlexNet on each box, support vector machines.",
        parameters=57_773_562,
        macs=1_440_793_664_000,
        macs_hw=(375, 500),
        macs_classes=20,
    ),
    Entry(
        name="rcnn_vgg16",
        task="detection",
        builder="kerasvision.models.rcnn:rcnn_vgg16",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="The paper's larger network: VGG-16 on each box.",
        parameters=136_435_642,
        macs=30_932_508_672_000,
        macs_hw=(375, 500),
        macs_classes=20,
        converters=("zoo.converters.torchvision_vgg:VGG_BACKBONE",),
    ),
    Entry(
        name="rcnn_vgg8",
        task="detection",
        builder="kerasvision.models.rcnn:rcnn_vgg8",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="An R-CNN small enough to train on a CPU: a narrow VGG on crops of 64 pixels.",
        parameters=513_602,
        macs=9_188_416_000,
        macs_hw=(256, 384),
        macs_classes=80,
        weights=_STREETS,
        default=_STREETS[0].tag if _STREETS else None,
    ),
)

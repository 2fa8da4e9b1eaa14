"""DeepLabV2.

The weights that https://github.com/kazuto1011/deeplab-pytorch publishes (VOC 2012, reported mIoU 76.65, 77.93 with a
dense CRF) are read from a file: their checksum is not known here.
"""

from zoo.embedded import weights_of
from zoo.registry import Entry

_PAPER = "Chen et al. 2016, DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and "
_PAPER += "Fully Connected CRFs, https://arxiv.org/abs/1606.00915"
_ARCHITECTURE = "kerasvision.models.deeplab_v2:DeepLabV2"

ENTRIES = (
    Entry(
        name="deeplabv2_resnet101",
        task="segmentation",
        builder="kerasvision.models.deeplab_v2:deeplabv2_resnet101",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="The paper's network: a dilated ResNet-101, four dilated classifiers, three scales.",
        parameters=44_153_876,
        macs=344_875_910_336,
        macs_hw=(513, 513),
        macs_classes=21,
        converters=("zoo.converters.deeplab:KAZUTO_DEEPLABV2",),
    ),
    Entry(
        name="deeplabv2_resnet10",
        task="segmentation",
        builder="kerasvision.models.deeplab_v2:deeplabv2_resnet10",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="A DeepLabV2 small enough to train on a CPU: half-width ResNet-10, two scales.",
        parameters=1_426_740,
        macs=2_969_763_840,
        macs_hw=(256, 384),
        macs_classes=21,
        weights=weights_of("deeplabv2_resnet10"),
        default="streets",
    ),
)

"""DeepLabV3+."""

from zoo.embedded import weights_of
from zoo.registry import Entry

_PAPER = "Chen et al. 2018, Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation, "
_PAPER += "https://arxiv.org/abs/1802.02611"
_ARCHITECTURE = "kerasvision.models.deeplab_v3_plus:DeepLabV3Plus"

ENTRIES = (
    Entry(
        name="deeplabv3plus_resnet50",
        task="segmentation",
        builder="kerasvision.models.deeplab_v3_plus:deeplabv3plus_resnet50",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="DeepLabV3+ on ResNet-50, as segmentation_models.pytorch's.",
        parameters=26_740_037,
        macs=36_645_109_760,
        macs_hw=(512, 512),
        macs_classes=21,
        converters=(
            "zoo.converters.deeplab:SMP_DEEPLABV3PLUS",
            "zoo.converters.torchvision:RESNET_BACKBONE",
        ),
    ),
    Entry(
        name="deeplabv3plus_resnet101",
        task="segmentation",
        builder="kerasvision.models.deeplab_v3_plus:deeplabv3plus_resnet101",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="DeepLabV3+ on ResNet-101, as segmentation_models.pytorch's.",
        parameters=45_784_389,
        macs=56_039_571_456,
        macs_hw=(512, 512),
        macs_classes=21,
        converters=(
            "zoo.converters.deeplab:SMP_DEEPLABV3PLUS",
            "zoo.converters.torchvision:RESNET_BACKBONE",
        ),
    ),
    Entry(
        name="deeplabv3plus_mobilenet_v2",
        task="segmentation",
        builder="kerasvision.models.deeplab_v3_plus:deeplabv3plus_mobilenet_v2",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="DeepLabV3+ on MobileNetV2, as segmentation_models.pytorch's.",
        parameters=4_421_957,
        macs=6_009_454_592,
        macs_hw=(512, 512),
        macs_classes=21,
        converters=(
            "zoo.converters.deeplab:SMP_DEEPLABV3PLUS",
            "zoo.converters.torchvision_mobilenet:MOBILENET_V2_BACKBONE",
        ),
    ),
    Entry(
        name="deeplabv3plus_xception65",
        task="segmentation",
        builder="kerasvision.models.deeplab_v3_plus:deeplabv3plus_xception65",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="DeepLabV3+ on the modified Xception-65, with the paper's decoder.",
        parameters=41_231_397,
        macs=51_284_320_256,
        macs_hw=(512, 512),
        macs_classes=21,
    ),
    Entry(
        name="deeplabv3plus_resnet10",
        task="segmentation",
        builder="kerasvision.models.deeplab_v3_plus:deeplabv3plus_resnet10",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="A DeepLabV3+ small enough to train on a CPU: half-width ResNet-10.",
        parameters=1_357_805,
        macs=847_273_984,
        macs_hw=(256, 384),
        macs_classes=21,
        weights=weights_of("deeplabv3plus_resnet10"),
        default="streets",
    ),
)

"""DeepLab v1."""

from zoo.embedded import weights_of
from zoo.registry import Entry, Weights

_PAPER = "Chen et al. 2015, Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs, "
_PAPER += "https://arxiv.org/abs/1412.7062"
_ARCHITECTURE = "kerasvision.models.deeplab_v1:DeepLabV1"

ENTRIES = (
    Entry(
        name="deeplab_v1_vgg16",
        task="segmentation",
        builder="kerasvision.models.deeplab_v1:deeplab_v1_vgg16",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="DeepLab-LargeFOV: VGG-16 at a stride of 8 by dilation, for a dense CRF to follow.",
        parameters=20_505_429,
        macs=128_584_633_024,
        macs_hw=(513, 513),
        macs_classes=21,
        weights=(
            Weights(
                tag="imagenet",
                source="https://download.pytorch.org/models/vgg16-397923af.pth",
                sha256="397923af",
                size_bytes=553_430_000,
                converter="zoo.converters.torchvision_vgg:VGG_BACKBONE_AND_DENSE",
                part="backbone",
                fills="the backbone, fc6 and fc7",
                license="BSD-3-Clause (torchvision), trained on ImageNet-1K",
                reported={"ImageNet-1K top-1 accuracy (as a classifier)": 71.592},
                recipe="https://github.com/pytorch/vision/tree/main/references/classification#alexnet-and-vgg",
            ),
        ),
        default="imagenet",
    ),
    Entry(
        name="deeplab_v1_vgg8",
        task="segmentation",
        builder="kerasvision.models.deeplab_v1:deeplab_v1_vgg8",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="A DeepLab v1 small enough to train on a CPU: one narrow convolution a block.",
        parameters=612_853,
        macs=1_222_598_400,
        macs_hw=(256, 384),
        macs_classes=21,
        weights=weights_of("deeplab_v1_vgg8"),
        default="streets",
    ),
)

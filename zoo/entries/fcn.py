"""FCN on VGG-16 and AlexNet, as in the paper."""

from zoo.embedded import weights_of
from zoo.registry import Entry, Weights

_PAPER = "Long et al. 2015, Fully Convolutional Networks for Semantic Segmentation, https://arxiv.org/abs/1411.4038"
_ARCHITECTURE = "kerasvision.models.fcn:FCN"


def _imagenet(file: str, size_bytes: int, accuracy: float, converter: str, **options) -> Weights:
    """Return torchvision's ImageNet weights (IMAGENET1K_V1) of a backbone with fc6 and fc7."""
    return Weights(
        tag="imagenet",
        source=f"https://download.pytorch.org/models/{file}",
        sha256=file.removesuffix(".pth").rpartition("-")[2],
        size_bytes=size_bytes,
        converter=f"zoo.converters.torchvision_vgg:{converter}",
        part="backbone",
        fills="the backbone, fc6 and fc7",
        license="BSD-3-Clause (torchvision), trained on ImageNet-1K",
        reported={"ImageNet-1K top-1 accuracy (as a classifier)": accuracy},
        options=options,
        recipe="https://github.com/pytorch/vision/tree/main/references/classification#alexnet-and-vgg",
    )


_VGG16 = _imagenet("vgg16-397923af.pth", 553_430_000, 71.592, "VGG_BACKBONE_AND_DENSE")
_ALEXNET = _imagenet(
    "alexnet-owt-7be5be79.pth", 244_410_000, 56.522, "ALEXNET_BACKBONE_AND_DENSE", layout="torchvision"
)


def _entry(stride: int, backbone: str, weights: Weights, description: str, parameters: int, macs: int) -> Entry:
    name = f"fcn{stride}s_{backbone}"
    return Entry(
        name=name,
        task="segmentation",
        builder=f"kerasvision.models.fcn:{name}",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description=description,
        parameters=parameters,
        macs=macs,
        macs_hw=(500, 500),
        macs_classes=21,
        weights=(weights,),
        default=weights.tag,
    )


_ONE = "all said by the coarsest features."
_TWO = "with a skip from stride 16."
_THREE = "with skips from strides 16 and 8."

ENTRIES = (
    _entry(32, "vgg16", _VGG16, f"The paper's FCN-32s: VGG-16, {_ONE}", 134_346_581, 180_903_432_960),
    _entry(16, "vgg16", _VGG16, f"The paper's FCN-16s: VGG-16, {_TWO}", 134_357_354, 180_924_248_832),
    _entry(8, "vgg16", _VGG16, f"The paper's FCN-8s: VGG-16, {_THREE}", 134_362_751, 180_965_880_576),
    _entry(32, "alexnet", _ALEXNET, f"The paper's FCN-AlexNet, {_ONE}", 56_954_261, 20_976_403_744),
    _entry(16, "alexnet", _ALEXNET, f"FCN-AlexNet {_TWO}", 56_959_658, 20_986_343_968),
    _entry(8, "alexnet", _ALEXNET, f"FCN-AlexNet {_THREE}", 56_961_695, 21_001_254_304),
    Entry(
        name="fcn8s_vgg8",
        task="segmentation",
        builder="kerasvision.models.fcn:fcn8s_vgg8",
        architecture=_ARCHITECTURE,
        paper=_PAPER,
        description="An FCN-8s small enough to train on a CPU: one narrow convolution a block, no margin.",
        parameters=616_927,
        macs=477_044_736,
        macs_hw=(256, 384),
        macs_classes=21,
        weights=weights_of("fcn8s_vgg8"),
        default="streets",
    ),
)

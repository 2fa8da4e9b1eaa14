"""UNet-S5-D16."""

from kerasvision.ops.resizing import ResizeRule
from zoo.registry import Entry, Weights

_PAPER = "Ronneberger et al. 2015, U-Net: Convolutional Networks for Biomedical Image Segmentation, "
_PAPER += "https://arxiv.org/abs/1505.04597; as mmsegmentation's UNet-S5-D16 with an FCN head"
_CONFIG = "fcn_unet_s5-d16_4x4_512x1024_160k_cityscapes"

# Address and figures: mmsegmentation's configs/unet/unet.yml.
_CITYSCAPES = Weights(
    tag="cityscapes",
    source=f"https://download.openmmlab.com/mmsegmentation/v0.5/unet/{_CONFIG}/{_CONFIG}_20211210_145204-6860854e.pth",
    sha256="6860854e",
    converter="zoo.converters.unet:MMSEG_UNET_S5_D16",
    license="Apache-2.0 (mmsegmentation), trained on Cityscapes, which is for non-commercial use",
    num_classes=19,
    class_names="cityscapes_19",
    resize_rule=ResizeRule(),
    reported={"Cityscapes val mIoU": 69.10, "Cityscapes val mIoU, multi-scale and flipped": 71.05},
    recipe=f"https://github.com/open-mmlab/mmsegmentation/blob/0.x/configs/unet/{_CONFIG}.py",
)

ENTRIES = (
    Entry(
        name="unet_s5_d16",
        task="segmentation",
        builder="kerasvision.models.unet_s5_d16:unet_s5_d16",
        architecture="kerasvision.models.unet_s5_d16:UNetS5D16",
        paper=_PAPER,
        description="mmsegmentation's U-Net: batch normalisation, bilinear steps up, FCN head and auxiliary head.",
        parameters=29_076_838,
        macs=405_270_429_696,
        macs_hw=(512, 1024),
        macs_classes=19,
        weights=(_CITYSCAPES,),
        default="cityscapes",
    ),
)

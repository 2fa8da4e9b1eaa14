"""U-Net: convolutional networks for biomedical image segmentation (Ronneberger et al. 2015,
https://arxiv.org/abs/1505.04597).

```
image -> double convolution ----------------- skip ----------------> + double convolution -> 1x1 -> logits
           | pool /2                                                 | up x2
         double convolution ------------------ skip ---------------> + double convolution
           | pool /2                                                 | up x2
           :                                                         :
         double convolution (the bottom) ----------------------------+
```

`unet_valid` is the paper's network: convolutions without padding, so that 572x572 pixels give 388x388 logits. The image
is mirrored at its borders by what that costs (the overlap-tile strategy, section 2), so that logits have its own size.

Differs from the paper, in all others: convolutions are padded ("same"), so that skip connections need no cropping.
`unet_batch_norm` has normalisation and other widths. With a backbone (`unet_resnet50`), the contracting path is a
pre-trained classifier and the expanding path follows segmentation_models.pytorch: five steps, the last without a skip
connection.
"""

from typing import Literal

import keras

from kerasvision.backbones.contracting_path import ContractingPath
from kerasvision.backbones.mobilenet_v2 import mobilenet_v2
from kerasvision.backbones.resnet import resnet10, resnet34, resnet50
from kerasvision.layers import ConvolutionBlock
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.models.encoder_decoder import EncoderDecoder
from kerasvision.models.recipe import SMALL_SEGMENTER
from kerasvision.ops.resizing import ResizeRule


@keras.saving.register_keras_serializable("kerasvision")
class UNet(EncoderDecoder):
    """U-Net on any backbone that halves the resolution from feature to feature.

    Args:
        backbone: See `EncoderDecoder`: `ContractingPath`, or one that begins at stride 2, such as `ResNet`.
        num_classes: Number of classes, the background included where there is one.
        head_kernel_size: Side of the last convolution's kernel.
        **kwargs: As in `EncoderDecoder`.
    """

    def __init__(self, backbone, num_classes, *, head_kernel_size=1, name="unet", **kwargs):
        super().__init__(backbone, num_classes, name=name, **kwargs)
        self.head_kernel_size = head_kernel_size
        self.head = ConvolutionBlock(num_classes, head_kernel_size, name="head", dtype=self.dtype_policy)
        self.build()

    def build(self, input_shape=None):
        """Create the weights of the expanding path and the head."""
        if not self.built:
            self.head.build(self.build_decoder()[-1])
            pass_on_frozen(self)

    def call(self, inputs, training=None):
        """Return logits (B, H, W, num_classes) of images (B, H, W, 3)."""
        *_, features = self.expand(inputs, training)
        return self.crop_to_image(self.head(features), inputs)

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "head_kernel_size": self.head_kernel_size}


def unet(
    num_classes=2,
    *,
    widths=(64, 128, 256, 512, 1024),
    normalization=None,
    dropout=0.5,
    padding: Literal["same", "valid"] = "same",
    dtype=None,
    **options,
):
    """Return the U-Net of the 2015 paper: 31.0M parameters.

    Args:
        num_classes: Number of classes, the background included.
        widths: Channels at each resolution, from the image's own down to the bottom.
        normalization: As in `ConvolutionBlock`; ``None`` as in the paper, ``"batch"`` trains faster.
        dropout: See `ContractingPath`.
        padding: ``"same"``, or ``"valid"`` as in the paper.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `UNet`.
    """
    backbone = ContractingPath(widths, normalization=normalization, dropout=dropout, padding=padding, dtype=dtype)
    options = {"decoder_filters": tuple(widths[-2::-1]), "name": "unet", **options}
    return UNet(backbone, num_classes, normalization=normalization, dtype=dtype, **options)


def unet_valid(
    num_classes=2, *, widths=(64, 128, 256, 512, 1024), normalization=None, dropout=0.5, dtype=None, **options
):
    """Return the U-Net of the 2015 paper as it was, without padding: 31.0M parameters; arguments as of `unet`."""
    options = {"name": "unet_valid", **options}
    return unet(
        num_classes,
        widths=widths,
        normalization=normalization,
        dropout=dropout,
        padding="valid",
        dtype=dtype,
        **options,
    )


def unet_batch_norm(
    num_classes=2, *, widths=(64, 128, 256, 512, 1024), bilinear=False, dropout=0.0, dtype=None, **options
):
    """Return a U-Net with batch normalisation, laid out as the widespread PyTorch one: 31.0M parameters.

    That is github.com/milesial/Pytorch-UNet; its weights load (`zoo.get("unet_batch_norm", weights="my.pth")`). For
    results equal to its at sizes that 16 does not divide, pass ``pad_to_multiple=False``.

    Args:
        num_classes: Number of classes, the background included.
        widths: Channels at each resolution, from the image's own down to the bottom.
        bilinear: Enlarge bilinearly in place of the learned up-convolution, with half as many channels at the bottom
            and after each step but the last: 17.3M parameters.
        dropout: See `ContractingPath`.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `UNet`.
    """
    decoder_filters = tuple(widths[-2::-1])
    if bilinear:
        widths = (*widths[:-1], widths[-1] // 2)
        decoder_filters = (*(filters // 2 for filters in decoder_filters[:-1]), decoder_filters[-1])
    backbone = ContractingPath(widths, normalization="batch", dropout=dropout, round_down=True, dtype=dtype)
    options = {
        "decoder_filters": decoder_filters,
        "upsampling": "bilinear" if bilinear else "transpose",
        "normalization": "batch",
        "name": "unet_batch_norm",
        **options,
    }
    return UNet(backbone, num_classes, dtype=dtype, **options)


def _unet_with_backbone(backbone, num_classes, **options):
    """Return a U-Net laid out as segmentation_models.pytorch's `Unet`."""
    options = {
        "decoder_filters": (256, 128, 64, 32, 16),
        "upsampling": "nearest",
        "normalization": "batch",
        "head_kernel_size": 3,
        **options,
    }
    return UNet(backbone, num_classes, **options)


def unet_resnet34(num_classes=21, *, frozen_stages=0, dtype=None, **options):
    """Return a U-Net whose contracting path is ResNet-34: 24.4M parameters.

    Args:
        num_classes: Number of classes, the background included where there is one.
        frozen_stages: Parts of the backbone that stay as they are; see `ResNet`.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `UNet`.
    """
    backbone = resnet34(frozen_stages=frozen_stages, dtype=dtype)
    return _unet_with_backbone(backbone, num_classes, **{"name": "unet_resnet34", "dtype": dtype, **options})


def unet_resnet50(num_classes=21, *, frozen_stages=0, dtype=None, **options):
    """Return a U-Net whose contracting path is ResNet-50: 32.5M parameters.

    Args:
        num_classes: Number of classes, the background included where there is one.
        frozen_stages: Parts of the backbone that stay as they are; see `ResNet`.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `UNet`.
    """
    backbone = resnet50(frozen_stages=frozen_stages, dtype=dtype)
    return _unet_with_backbone(backbone, num_classes, **{"name": "unet_resnet50", "dtype": dtype, **options})


def unet_mobilenet_v2(num_classes=21, *, frozen_stages=0, dtype=None, **options):
    """Return a U-Net whose contracting path is MobileNetV2: 6.7M parameters.

    Args:
        num_classes: Number of classes, the background included where there is one.
        frozen_stages: Parts of the backbone that stay as they are; see `InvertedResidualNetwork`.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `UNet`.
    """
    backbone = mobilenet_v2(frozen_stages=frozen_stages, dtype=dtype)
    return _unet_with_backbone(backbone, num_classes, **{"name": "unet_mobilenet_v2", "dtype": dtype, **options})


def unet_resnet10(num_classes=21, *, dtype=None, **options):
    """Return a small U-Net that trains on a CPU: a half-width ResNet-10 and a narrow expanding path.

    Args:
        num_classes: Number of classes, the background included where there is one.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `UNet`.
    """
    options = {
        "decoder_filters": (128, 64, 32, 16, 8),
        "resize_rule": ResizeRule("letterbox", size_hw=(256, 384)),
        "recipe": SMALL_SEGMENTER.replace(
            source="this project, zoo/recipes/streets.py: random weights, 2000 scenes, 4 epochs and then 4 more",
        ),
        "name": "unet_resnet10",
        **options,
    }
    return _unet_with_backbone(resnet10(dtype=dtype), num_classes, dtype=dtype, **options)

"""Attention U-Net: learning where to look for the pancreas (Oktay et al. 2018, https://arxiv.org/abs/1804.03999).

```
image -> contracting path -> skip -> gate -> + double convolution -> 1x1 -> logits
                      |               ^      |
                      |               |      | up x2
                      +-- coarser features --+
```

U-Net whose skip connections are weighed pixel by pixel by what the coarser level knows; all but the finest, whose
features say too little about a pixel to compare (section 3).

Differs from the paper: two dimensions instead of three, no deep supervision, learned enlarging instead of
interpolation. Convolutions are padded and normalised as in the authors' network.
"""

from typing import Any

import keras

from kerasvision.backbones.contracting_path import ContractingPath
from kerasvision.backbones.resnet import resnet10
from kerasvision.layers import AttentionGate, ConvolutionBlock
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.models.encoder_decoder import EncoderDecoder
from kerasvision.models.recipe import SMALL_SEGMENTER
from kerasvision.ops.resizing import ResizeRule


@keras.saving.register_keras_serializable("kerasvision")
class AttentionUNet(EncoderDecoder):
    """U-Net with an attention gate on every skip connection but the finest.

    Args:
        backbone: See `EncoderDecoder`.
        num_classes: Number of classes, the background included where there is one.
        attention_filters: Channels in which a gate compares the skip connection with the coarser features; default:
            as many as the skip connection has.
        head_kernel_size: Side of the last convolution's kernel.
        normalization: See `EncoderDecoder`.
        **kwargs: As there.
    """

    def __init__(
        self,
        backbone,
        num_classes,
        *,
        attention_filters=None,
        head_kernel_size=1,
        normalization="batch",
        name="attention_unet",
        **kwargs,
    ):
        super().__init__(backbone, num_classes, normalization=normalization, name=name, **kwargs)
        self.attention_filters = attention_filters
        self.head_kernel_size = head_kernel_size
        self.gates = [
            AttentionGate(attention_filters, name=f"gate{index}", dtype=self.dtype_policy)
            for index in range(len(backbone.outputs) - 2)
        ]
        self.head = ConvolutionBlock(num_classes, head_kernel_size, name="head", dtype=self.dtype_policy)
        self.build()

    def build(self, input_shape=None):
        """Create the weights of the expanding path, the gates and the head."""
        if not self.built:
            *skips, bottom = (feature.shape for feature in self.backbone.outputs)
            shapes = self.build_decoder()
            for gate, skip, coarser in zip(self.gates, skips[:0:-1], [bottom, *shapes], strict=False):
                gate.build(skip, coarser)
            self.head.build(shapes[-1])
            pass_on_frozen(self)

    def skip_connection(self, step, skip, features, training):
        """Return a skip connection weighed by its gate, or as it is for the finest."""
        if step == len(self.gates):
            return skip
        gate: Any = self.gates[step]
        return gate(skip, features)

    def call(self, inputs, training=None):
        """Return logits (B, H, W, num_classes) of images (B, H, W, 3)."""
        *_, features = self.expand(inputs, training)
        return self.crop_to_image(self.head(features), inputs)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "attention_filters": self.attention_filters,
            "head_kernel_size": self.head_kernel_size,
        }


def attention_unet(num_classes=2, *, widths=(64, 128, 256, 512, 1024), dropout=0.0, dtype=None, **options):
    """Return an attention U-Net with U-Net's own contracting path: 33.1M parameters.

    Args:
        num_classes: Number of classes, the background included.
        widths: Channels at each resolution, from the image's own down to the bottom.
        dropout: See `ContractingPath`.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `AttentionUNet`.
    """
    backbone = ContractingPath(widths, normalization="batch", dropout=dropout, dtype=dtype)
    options = {"decoder_filters": tuple(widths[-2::-1]), "name": "attention_unet", **options}
    return AttentionUNet(backbone, num_classes, dtype=dtype, **options)


def attention_unet_resnet10(num_classes=21, *, dtype=None, **options):
    """Return a small attention U-Net that trains on a CPU: a half-width ResNet-10 and a narrow expanding path.

    Args:
        num_classes: Number of classes, the background included where there is one.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `AttentionUNet`.
    """
    options = {
        "decoder_filters": (128, 64, 32, 16, 8),
        "upsampling": "nearest",
        "head_kernel_size": 3,
        "resize_rule": ResizeRule("letterbox", size_hw=(256, 384)),
        "recipe": SMALL_SEGMENTER,
        "name": "attention_unet_resnet10",
        **options,
    }
    return AttentionUNet(resnet10(dtype=dtype), num_classes, dtype=dtype, **options)

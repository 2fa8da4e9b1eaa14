"""UNet-S5-D16 of mmsegmentation: U-Net with batch normalisation, an FCN head and an auxiliary one.

```
image -> 5 double convolutions, 64 to 1024 channels, pooling between -> 4 steps up -> 3x3, 64 -> 1x1 -> logits
                                                                         | 128 channels, stride 2
                                                                         +-> auxiliary head: 3x3, 64 -> 1x1
```

A step up enlarges bilinearly and halves the channels by a 1x1 convolution. U-Net is of Ronneberger et al. 2015
(https://arxiv.org/abs/1505.04597), this network of mmsegmentation's configs/_base_/models/fcn_unet_s5-d16.py.
"""

import keras
from keras import ops

from kerasvision.backbones.contracting_path import ContractingPath
from kerasvision.layers import FCNHead
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.layers.unet_blocks import Upsampling
from kerasvision.models.auxiliary import attach_auxiliary
from kerasvision.models.encoder_decoder import EncoderDecoder
from kerasvision.models.recipe import Recipe
from kerasvision.ops.interpolation import resize_bilinear


@keras.saving.register_keras_serializable("kerasvision")
class UNetS5D16(EncoderDecoder):
    """U-Net with an FCN head on its last features and, for the losses, one on those of half the resolution.

    Args:
        backbone: See `EncoderDecoder`.
        num_classes: Number of classes.
        head_filters: Channels between the two convolutions of each head.
        dropout: Share of the heads' activations dropped in training.
        auxiliary: Whether there is an auxiliary head.
        upsampling: See `EncoderDecoder`.
        normalization: See there.
        **kwargs: As there.
    """

    loss_names = ("cross_entropy",)
    auxiliary_weight = 0.4
    default_recipe = Recipe(
        optimizer="sgd",
        learning_rate=0.01,
        batch_size=16,
        weight_decay=5e-4,
        warmup_steps=0,
        decay="polynomial",
        epochs=860,
        source="mmsegmentation, schedule_160k: SGD 0.01, 4 GPUs of 4 crops of 512x1024, 160k steps, power 0.9",
    )

    def __init__(
        self,
        backbone,
        num_classes,
        *,
        head_filters=64,
        dropout=0.1,
        auxiliary=False,
        upsampling: Upsampling = "bilinear_convolution",
        normalization="batch",
        name="unet_s5_d16",
        **kwargs,
    ):
        if auxiliary:
            self.loss_names = (*self.loss_names, "auxiliary_cross_entropy")
        super().__init__(
            backbone,
            num_classes,
            upsampling=upsampling,
            normalization=normalization,
            name=name,
            **kwargs,
        )
        self.head_filters = head_filters
        self.dropout = dropout
        self.auxiliary = auxiliary
        heads = ("head", "auxiliary_head") if auxiliary else ("head",)
        self.head, *others = (
            FCNHead(
                num_classes,
                filters=head_filters,
                dropout=dropout,
                normalization=normalization,
                name=head,
                dtype=self.dtype_policy,
            )
            for head in heads
        )
        self.auxiliary_head = others[0] if others else None
        self.build()

    def build(self, input_shape=None):
        """Create the weights of the expanding path and the heads."""
        if not self.built:
            *_, half, full = self.build_decoder()
            self.head.build(full)
            if self.auxiliary_head is not None:
                self.auxiliary_head.build(half)
            pass_on_frozen(self)

    def call(self, inputs, training=None):
        """Return logits (B, H, W, num_classes) of images (B, H, W, 3)."""
        *_, half, full = self.expand(inputs, training)
        logits = self.head(full, training=training)
        outputs = self.crop_to_image(logits, inputs)
        head = self.auxiliary_head
        if head is None:
            return outputs

        def auxiliary():
            coarse = head(half, training=training)  # (B, H' / 2, W' / 2, num_classes)
            return [self.crop_to_image(resize_bilinear(coarse, tuple(ops.shape(full)[1:3])), inputs)]

        return attach_auxiliary(outputs, auxiliary)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "head_filters": self.head_filters,
            "dropout": self.dropout,
            "auxiliary": self.auxiliary,
        }


def unet_s5_d16(num_classes=19, *, widths=(64, 128, 256, 512, 1024), dtype=None, **options):
    """Return mmsegmentation's `fcn_unet_s5-d16`: 29.1M parameters, of which 0.07M are the auxiliary head's.

    Args:
        num_classes: Number of classes.
        widths: Channels at each resolution, from the image's own down to the bottom.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `UNetS5D16`.
    """
    backbone = ContractingPath(widths, normalization="batch", dropout=0.0, round_down=True, dtype=dtype)
    options = {"decoder_filters": tuple(widths[-2::-1]), "auxiliary": True, "name": "unet_s5_d16", **options}
    return UNetS5D16(backbone, num_classes, dtype=dtype, **options)

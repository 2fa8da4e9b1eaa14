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

Differs from the paper: convolutions are padded ("same"), so that logits have the image's size and skip connections
need no cropping. With a backbone (`unet_resnet50`), the contracting path is a pre-trained classifier and
the expanding path follows segmentation_models.pytorch: five steps, the last without a skip connection.
"""

from typing import Literal

import keras
from keras import ops

from kerasvision.backbones.resnet import resnet10, resnet34, resnet50
from kerasvision.layers import ConvolutionBlock, UNetDecoderBlock, UNetDoubleConvolution, UNetEncoderBlock
from kerasvision.layers.trainability import constructor_arguments, pass_on_frozen, restore_trainable, trainable_config
from kerasvision.models.base import Segmenter, split_inputs
from kerasvision.models.recipe import Recipe
from kerasvision.ops.resizing import ResizeRule


@keras.saving.register_keras_serializable("kerasvision")
class ContractingPath(keras.Model):
    """The left half of U-Net: double convolutions, each followed by 2x2 max pooling.

    Args:
        widths: Channels at each resolution, from the image's own down to the bottom.
        normalization: As in `ConvolutionBlock`; ``None`` as in the paper.
        dropout: Share of activations dropped at the two lowest resolutions, in training ("drop-out layers at the end
            of the contracting path", section 3.1; the authors' released network uses 0.5).
        dtype: Dtype policy of every layer; default: Keras's global one.

    Call: (B, H, W, 3), H and W divisible by 2 to the power of `len(widths) - 1`; returns one (B, H / 2^i, W / 2^i,
    widths[i]) for each i.
    """

    def __init__(
        self,
        widths=(64, 128, 256, 512, 1024),
        *,
        normalization=None,
        dropout=0.5,
        dtype=None,
        name="contracting_path",
        **kwargs,
    ):
        self._widths = tuple(widths)
        self._normalization = normalization
        self._dropout = dropout
        dtype = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        inputs = x = keras.Input((None, None, 3), name="images")
        features = []
        for level, width in enumerate(self._widths):
            block = UNetEncoderBlock if level else UNetDoubleConvolution
            x = block(width, normalization=normalization, name=f"level{level}", dtype=dtype)(x)
            if dropout and level >= len(self._widths) - 2:
                x = keras.layers.Dropout(dropout, name=f"dropout{level}", dtype=dtype)(x)
            features.append(x)
        super().__init__(inputs, features, name=name, **kwargs)
        self.dtype_policy = dtype  # Keras's functional models take none
        pass_on_frozen(self)

    def get_config(self):
        """Return the constructor's arguments, and which layers are trained."""
        return {
            "widths": self._widths,
            "normalization": self._normalization,
            "dropout": self._dropout,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "name": self.name,
            **trainable_config(self),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Build the path from what `get_config` returned."""
        return restore_trainable(cls(**constructor_arguments(config)), config)


@keras.saving.register_keras_serializable("kerasvision")
class UNet(Segmenter):
    """U-Net on any backbone that halves the resolution from feature to feature.

    Args:
        backbone: A model that maps normalised images to a list of features, from fine to coarse, each half as large
            as the one before: `ContractingPath` (from stride 1) or `ResNet` (from stride 2).
        num_classes: Number of classes, the background included where there is one.
        decoder_filters: Channels after each step of the expanding path, from coarse to fine: one step a feature above
            the bottom, and one more without a skip connection if the finest feature has stride 2.
        upsampling: ``"transpose"`` or ``"nearest"``; see `UNetDecoderBlock`.
        normalization: Of the expanding path; see `ConvolutionBlock`.
        head_kernel_size: Side of the last convolution's kernel.
        **kwargs: As in `VisionModel`.
    """

    default_recipe = Recipe(
        optimizer="adamw",
        learning_rate=1e-3,
        batch_size=8,
        weight_decay=1e-4,
        warmup_steps=100,
        epochs=50,
        clip_norm=1.0,
        source="this project; the paper's SGD with momentum 0.99 at batch size 1 suits its 572x572 tiles only",
    )

    def __init__(
        self,
        backbone,
        num_classes,
        *,
        decoder_filters=(512, 256, 128, 64),
        upsampling: Literal["transpose", "nearest"] = "transpose",
        normalization=None,
        head_kernel_size=1,
        name="unet",
        **kwargs,
    ):
        super().__init__(num_classes, name=name, **kwargs)
        features = len(backbone.outputs)
        if len(decoder_filters) not in (features - 1, features):
            raise ValueError(
                f"`decoder_filters` {tuple(decoder_filters)!r} has {len(decoder_filters)} steps, but the backbone "
                f"gives {features} features; give {features - 1} steps if the first has stride 1, {features} if 2"
            )
        self.backbone = backbone
        self.decoder_filters = tuple(decoder_filters)
        self.upsampling = upsampling
        self.normalization = normalization
        self.head_kernel_size = head_kernel_size
        self.size_divisor = 2 ** len(self.decoder_filters)
        self.decoder = [
            UNetDecoderBlock(
                filters,
                upsampling=upsampling,
                normalization=normalization,
                name=f"decoder{index}",
                dtype=self.dtype_policy,
            )
            for index, filters in enumerate(self.decoder_filters)
        ]
        self.head = ConvolutionBlock(num_classes, head_kernel_size, name="head", dtype=self.dtype_policy)
        self.build()

    def build(self, input_shape=None):
        """Create the weights of the expanding path and the head."""
        if not self.built:
            *skips, shape = (feature.shape for feature in self.backbone.outputs)
            for block in self.decoder:
                block.build(shape, skips.pop() if skips else None)
                shape = block.compute_output_shape(shape)
            self.head.build(shape)
            pass_on_frozen(self)

    def call(self, inputs, training=None):
        """Return logits (B, H, W, num_classes) of images (B, H, W, 3)."""
        images, _ = split_inputs(inputs)
        height, width = ops.shape(images)[1:3]
        *skips, features = self.backbone(self.prepare(inputs), training=training)
        for block in self.decoder:
            features = block(features, skips.pop() if skips else None, training=training)
        return self.head(features)[:, :height, :width]

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "decoder_filters": self.decoder_filters,
            "upsampling": self.upsampling,
            "normalization": self.normalization,
            "head_kernel_size": self.head_kernel_size,
        }


def unet(num_classes=2, *, widths=(64, 128, 256, 512, 1024), normalization=None, dropout=0.5, dtype=None, **options):
    """Return the U-Net of the 2015 paper: 31.0M parameters.

    Args:
        num_classes: Number of classes, the background included.
        widths: Channels at each resolution, from the image's own down to the bottom.
        normalization: As in `ConvolutionBlock`; ``None`` as in the paper, ``"batch"`` trains faster.
        dropout: See `ContractingPath`.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `UNet`.
    """
    backbone = ContractingPath(widths, normalization=normalization, dropout=dropout, dtype=dtype)
    options = {"decoder_filters": tuple(widths[-2::-1]), "name": "unet", **options}
    return UNet(backbone, num_classes, normalization=normalization, dtype=dtype, **options)


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
        "recipe": Recipe(
            learning_rate=2e-3,
            batch_size=8,
            weight_decay=1e-4,
            warmup_steps=100,
            epochs=8,
            clip_norm=1.0,
            source="this project, zoo/recipes/streets.py: random weights, 2000 scenes, 4 epochs and then 4 more",
        ),
        "name": "unet_resnet10",
        **options,
    }
    return _unet_with_backbone(resnet10(dtype=dtype), num_classes, dtype=dtype, **options)

"""DeepLabV3+: encoder-decoder with atrous separable convolution (Chen et al. 2018, https://arxiv.org/abs/1802.02611).

```
image -> backbone -> last features (stride 16 or 8) -> ASPP -> enlarged --+
             |                                                            +- joined -> 3x3 -> 1x1 -> logits, enlarged
             +-----> features of stride 4 ----------> 1x1, 48 channels ---+
```

Differs from the paper: by default the decoder has one 3x3 convolution before and one after joining, both separable, as
segmentation_models.pytorch has them; `before=0, after=2` is the paper's.
"""

import keras

from kerasvision.backbones.mobilenet_v2 import mobilenet_v2
from kerasvision.backbones.resnet import resnet10, resnet50, resnet101
from kerasvision.backbones.xception import xception65
from kerasvision.layers import ConvolutionBlock, DeepLabV3PlusDecoder
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.models.dilated import DilatedSegmenter
from kerasvision.models.recipe import SMALL_SEGMENTER, Recipe
from kerasvision.ops.resizing import ResizeRule


@keras.saving.register_keras_serializable("kerasvision")
class DeepLabV3PlusHead(keras.layers.Layer):
    """The decoder and a 1x1 convolution to classes.

    Args:
        num_classes: Number of classes.
        decoder: A `DeepLabV3PlusDecoder`, or its configuration.

    Call: a list of features of stride 4 (B, H, W, F) and the last ones (B, h, w, C); returns logits
    (B, H, W, num_classes).
    """

    def __init__(self, num_classes, decoder, **kwargs):
        super().__init__(**kwargs)
        if isinstance(decoder, dict):
            decoder = keras.saving.deserialize_keras_object(decoder)
        self.num_classes = num_classes
        self.decoder = decoder
        self.score = ConvolutionBlock(num_classes, 1, name="score", dtype=self.dtype_policy)

    def build(self, input_shapes):
        """Build the decoder and the convolution."""
        self.decoder.build(input_shapes)
        self.score.build(self.decoder.compute_output_shape(input_shapes))
        pass_on_frozen(self)

    def call(self, features, training=None):
        """Classify each cell of the finer features."""
        return self.score(self.decoder(features, training=training))

    def compute_output_shape(self, input_shapes):
        """Return (B, H, W, num_classes)."""
        return (*input_shapes[0][:-1], self.num_classes)

    def get_config(self):
        """Return the constructor's arguments."""
        decoder = keras.saving.serialize_keras_object(self.decoder)
        return {**super().get_config(), "num_classes": self.num_classes, "decoder": decoder}


@keras.saving.register_keras_serializable("kerasvision")
class DeepLabV3Plus(DilatedSegmenter):
    """DeepLabV3+ on any backbone with features of stride 4.

    Args:
        backbone: See `DilatedSegmenter`; with the property `strides`.
        num_classes: Number of classes, the background included where there is one.
        filters: See `DeepLabV3PlusDecoder`.
        rates: See there; the paper has (6, 12, 18) at an output stride of 16, segmentation_models.pytorch (12, 24, 36).
        low_level_filters: See there.
        before: See there.
        after: See there.
        separable: See there.
        dropout: See there.
        epsilon: See there.
        align_corners: How features and logits are enlarged: aligned in segmentation_models.pytorch and TensorFlow.
        **kwargs: As in `DilatedSegmenter`.

    Raises:
        ValueError: A backbone without features of stride 4.
    """

    default_recipe = Recipe(
        optimizer="sgd",
        learning_rate=0.007,
        batch_size=16,
        weight_decay=4e-5,
        warmup_steps=0,
        decay="polynomial",
        epochs=46,
        source="DeepLabV3's section 4.1: SGD 0.007, batch 16, 30,000 steps (46 epochs of 10,582), poly 0.9",
    )

    def __init__(
        self,
        backbone,
        num_classes,
        *,
        filters=256,
        rates=(12, 24, 36),
        low_level_filters=48,
        before=1,
        after=1,
        separable=True,
        dropout=0.5,
        epsilon=1e-5,
        align_corners=True,
        name="deeplabv3plus",
        dtype=None,
        **kwargs,
    ):
        if 4 not in backbone.strides:
            raise ValueError(f"`backbone` has features of strides {backbone.strides}, but the decoder needs one of 4")
        decoder = DeepLabV3PlusDecoder(
            filters,
            rates,
            low_level_filters=low_level_filters,
            before=before,
            after=after,
            separable=separable,
            dropout=dropout,
            align_corners=align_corners,
            epsilon=epsilon,
            name="decoder",
            dtype=dtype,
        )
        head = DeepLabV3PlusHead(num_classes, decoder, name="head", dtype=dtype)
        super().__init__(backbone, head, num_classes, align_corners=align_corners, name=name, dtype=dtype, **kwargs)

    def head_features(self, features):
        """Return the features of stride 4 and the last ones, or their shapes."""
        return [features[self.backbone.strides.index(4)], features[-1]]

    def get_config(self):
        """Return the constructor's arguments."""
        decoder = self.head.decoder.get_config()
        names = ("filters", "rates", "low_level_filters", "before", "after", "separable", "dropout", "epsilon")
        return {**super().get_config(), **{name: decoder[name] for name in names}}


def deeplabv3plus_resnet50(num_classes=21, *, output_stride=16, frozen_stages=0, dtype=None, **options):
    """Return DeepLabV3+ on ResNet-50, as segmentation_models.pytorch's: 26.7M parameters.

    Args:
        num_classes: Number of classes, the background included where there is one.
        output_stride: Pixels a cell of the last features: 8, 16 or 32.
        frozen_stages: Parts of the backbone that stay as they are; see `ResNet`.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `DeepLabV3Plus`.
    """
    backbone = resnet50(output_stride=output_stride, dilate_first_blocks=True, frozen_stages=frozen_stages, dtype=dtype)
    return DeepLabV3Plus(backbone, num_classes, dtype=dtype, **{"name": "deeplabv3plus_resnet50", **options})


def deeplabv3plus_resnet101(num_classes=21, *, output_stride=16, frozen_stages=0, dtype=None, **options):
    """Return DeepLabV3+ on ResNet-101, as segmentation_models.pytorch's; see `deeplabv3plus_resnet50`."""
    backbone = resnet101(
        output_stride=output_stride, dilate_first_blocks=True, frozen_stages=frozen_stages, dtype=dtype
    )
    return DeepLabV3Plus(backbone, num_classes, dtype=dtype, **{"name": "deeplabv3plus_resnet101", **options})


def deeplabv3plus_mobilenet_v2(num_classes=21, *, output_stride=16, frozen_stages=0, dtype=None, **options):
    """Return DeepLabV3+ on MobileNetV2, as segmentation_models.pytorch's; see `deeplabv3plus_resnet50`."""
    backbone = mobilenet_v2(output_stride=output_stride, frozen_stages=frozen_stages, dtype=dtype)
    return DeepLabV3Plus(backbone, num_classes, dtype=dtype, **{"name": "deeplabv3plus_mobilenet_v2", **options})


def deeplabv3plus_xception65(num_classes=21, *, output_stride=16, frozen_stages=0, dtype=None, **options):
    """Return DeepLabV3+ on the modified Xception-65, with the paper's decoder; see `deeplabv3plus_resnet50`."""
    backbone = xception65(output_stride=output_stride, frozen_stages=frozen_stages, dtype=dtype)
    options = {
        "rates": (12, 24, 36) if output_stride == 8 else (6, 12, 18),
        "before": 0,
        "after": 2,
        "image_mean": (127.5, 127.5, 127.5),
        "image_std": (127.5, 127.5, 127.5),
        "name": "deeplabv3plus_xception65",
        **options,
    }
    return DeepLabV3Plus(backbone, num_classes, dtype=dtype, **options)


def deeplabv3plus_resnet10(num_classes=21, *, output_stride=16, dtype=None, **options):
    """Return a small DeepLabV3+ that trains on a CPU: a half-width ResNet-10, 64 channels in the decoder."""
    options = {
        "filters": 64,
        "rates": (4, 8, 12),
        "low_level_filters": 24,
        "resize_rule": ResizeRule("letterbox", size_hw=(256, 384)),
        "recipe": SMALL_SEGMENTER,
        "name": "deeplabv3plus_resnet10",
        **options,
    }
    return DeepLabV3Plus(resnet10(output_stride=output_stride, dtype=dtype), num_classes, dtype=dtype, **options)

"""DeepLabV3: rethinking atrous convolution for semantic image segmentation (Chen et al. 2017,
https://arxiv.org/abs/1706.05587), as torchvision has it.

```
image -> ResNet, stages 3 and 4 dilated by 2 and 4 -> C5 (stride 8) -> ASPP -> 3x3, 256 -> 1x1 -> logits, enlarged
                        | C4 (stride 8)
                        +--> auxiliary head: 3x3, 256 -> 1x1
```

Differs from the paper, as torchvision does: no multi-grid dilations within the last stage, a 3x3 convolution after
ASPP, rates 12, 24, 36 whatever the output stride, and an auxiliary head.
"""

import keras

from kerasvision.backbones.mobilenet_v3 import mobilenet_v3_large
from kerasvision.backbones.resnet import resnet10, resnet50, resnet101
from kerasvision.layers import ASPP, ConvolutionBlock
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.models.dilated import DilatedSegmenter
from kerasvision.models.recipe import SMALL_SEGMENTER, Recipe
from kerasvision.ops.resizing import ResizeRule

# What torchvision's weights expect: references/segmentation/presets.py, SegmentationPresetEval.
RESIZE_RULE = ResizeRule("shortest_side", shortest=520, antialias=True)


@keras.saving.register_keras_serializable("kerasvision")
class DeepLabV3Head(keras.layers.Layer):
    """Atrous spatial pyramid pooling, a 3x3 convolution and a 1x1 convolution to classes.

    Args:
        num_classes: Number of classes.
        rates: Dilations of `ASPP`.
        filters: Channels of all but the last convolution.
        dropout: See `ASPP`.

    Call: features (B, H, W, C); returns logits (B, H, W, num_classes).

    Source: torchvision/models/segmentation/deeplabv3.py, `DeepLabHead`.
    """

    def __init__(self, num_classes, *, rates=(12, 24, 36), filters=256, dropout=0.5, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.filters = filters
        self.dropout = dropout
        self.pyramid = ASPP(filters, rates, dropout=dropout, name="pyramid", dtype=self.dtype_policy)
        self.rates = self.pyramid.rates
        self.convolution = ConvolutionBlock(
            filters, 3, normalization="batch", activation="relu", name="convolution", dtype=self.dtype_policy
        )
        self.score = ConvolutionBlock(num_classes, 1, name="score", dtype=self.dtype_policy)

    def build(self, input_shape):
        """Build the pyramid and the convolutions."""
        self.pyramid.build(input_shape)
        shape = (*input_shape[:-1], self.filters)
        self.convolution.build(shape)
        self.score.build(shape)
        pass_on_frozen(self)

    def call(self, inputs, training=None):
        """Classify each cell."""
        outputs = self.pyramid(inputs, training=training)
        return self.score(self.convolution(outputs, training=training))

    def compute_output_shape(self, input_shape):
        """Return (B, H, W, num_classes)."""
        return (*input_shape[:-1], self.num_classes)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "rates": self.rates,
            "filters": self.filters,
            "dropout": self.dropout,
        }


@keras.saving.register_keras_serializable("kerasvision")
class DeepLabV3(DilatedSegmenter):
    """DeepLabV3 on any backbone.

    Args:
        backbone: See `DilatedSegmenter`.
        num_classes: Number of classes, the background included where there is one.
        rates: Dilations of `ASPP`; the paper halves them at an output stride of 16, torchvision does not.
        filters: Channels of the head.
        dropout: Share of the pyramid's result dropped in training.
        **kwargs: As in `DilatedSegmenter`.
    """

    default_recipe = Recipe(
        optimizer="sgd",
        learning_rate=0.02,
        batch_size=32,
        weight_decay=1e-4,
        warmup_steps=0,
        decay="polynomial",
        epochs=30,
        rate_factors=(("auxiliary_head", 10.0),),
        source="torchvision references/segmentation: SGD 0.02, batch 32, 30 epochs, power 0.9, auxiliary rate x10",
    )

    def __init__(
        self,
        backbone,
        num_classes,
        *,
        rates=(12, 24, 36),
        filters=256,
        dropout=0.5,
        name="deeplabv3",
        dtype=None,
        **kwargs,
    ):
        head = DeepLabV3Head(num_classes, rates=rates, filters=filters, dropout=dropout, name="head", dtype=dtype)
        super().__init__(backbone, head, num_classes, name=name, dtype=dtype, **kwargs)

    def get_config(self):
        """Return the constructor's arguments."""
        head = self.head
        return {**super().get_config(), "rates": head.rates, "filters": head.filters, "dropout": head.dropout}


def _deeplabv3(backbone, num_classes, **options):
    return DeepLabV3(backbone, num_classes, **{"auxiliary": True, "resize_rule": RESIZE_RULE, **options})


def deeplabv3_resnet50(num_classes=21, *, output_stride=8, frozen_stages=0, dtype=None, **options):
    """Return torchvision's `deeplabv3_resnet50`: 42.0M parameters.

    Args:
        num_classes: Number of classes, the background included where there is one.
        output_stride: Pixels a cell of the last features: 8, 16 or 32.
        frozen_stages: Parts of the backbone that stay as they are; see `ResNet`.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `DeepLabV3`.
    """
    backbone = resnet50(output_stride=output_stride, frozen_stages=frozen_stages, dtype=dtype)
    return _deeplabv3(backbone, num_classes, dtype=dtype, **{"name": "deeplabv3_resnet50", **options})


def deeplabv3_resnet101(num_classes=21, *, output_stride=8, frozen_stages=0, dtype=None, **options):
    """Return torchvision's `deeplabv3_resnet101`: 61.0M parameters; see `deeplabv3_resnet50`."""
    backbone = resnet101(output_stride=output_stride, frozen_stages=frozen_stages, dtype=dtype)
    return _deeplabv3(backbone, num_classes, dtype=dtype, **{"name": "deeplabv3_resnet101", **options})


def deeplabv3_mobilenet_v3_large(num_classes=21, *, output_stride=16, frozen_stages=0, dtype=None, **options):
    """Return torchvision's `deeplabv3_mobilenet_v3_large`: 11.0M parameters; see `deeplabv3_resnet50`.

    `frozen_stages` are those of `MobileNetV3`. The auxiliary head reads the first block of stride 8.
    """
    backbone = mobilenet_v3_large(
        output_stride=output_stride, feature_indices=(4, 16), frozen_stages=frozen_stages, dtype=dtype
    )
    return _deeplabv3(backbone, num_classes, dtype=dtype, **{"name": "deeplabv3_mobilenet_v3_large", **options})


def deeplabv3_resnet10(num_classes=21, *, output_stride=8, dtype=None, **options):
    """Return a small DeepLabV3 that trains on a CPU: a half-width ResNet-10 and 64 channels in the head."""
    options = {
        "filters": 64,
        "rates": (4, 8, 12),
        "resize_rule": ResizeRule("letterbox", size_hw=(256, 384)),
        "recipe": SMALL_SEGMENTER,
        "name": "deeplabv3_resnet10",
        **options,
    }
    return _deeplabv3(resnet10(output_stride=output_stride, dtype=dtype), num_classes, dtype=dtype, **options)

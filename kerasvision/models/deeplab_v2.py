"""DeepLabV2: atrous convolution, atrous spatial pyramid pooling, several scales (Chen et al. 2016,
https://arxiv.org/abs/1606.00915).

```
image ---------> ResNet-101, stages 3 and 4 dilated -> 3x3 of dilations 6, 12, 18, 24, added up --+
      -- x 0.75 -> the same --------------------------------------------------------- enlarged ---+- maximum -> logits,
      -- x 0.5 --> the same --------------------------------------------------------- enlarged ---+            enlarged
```

The dense CRF of the paper (section 4.3) is the last step of `kerasvision.inference.Predictor`.

Differs from the authors' Caffe models: images and logits are resized by their pixels' areas, not with aligned corners,
and in training all scales' logits are enlarged to the masks, which the authors shrink to the logits; as in the PyTorch
weights that the zoo reads (https://github.com/kazuto1011/deeplab-pytorch).
"""

from fractions import Fraction

import keras
from keras import ops

from kerasvision.backbones.resnet import resnet10, resnet101
from kerasvision.layers import AtrousPyramidClassifier
from kerasvision.models.auxiliary import attach_auxiliary
from kerasvision.models.dilated import DilatedSegmenter
from kerasvision.models.recipe import SMALL_SEGMENTER, Recipe
from kerasvision.ops.interpolation import resize_bilinear
from kerasvision.ops.resizing import ResizeRule

# Of the authors' Caffe models, RGB.
_IMAGE_MEAN = (122.675, 116.669, 104.008)


@keras.saving.register_keras_serializable("kerasvision")
class DeepLabV2(DilatedSegmenter):
    """DeepLabV2 on any backbone.

    Args:
        backbone: See `DilatedSegmenter`.
        num_classes: Number of classes, the background included where there is one.
        rates: Dilations of the classifier; see `AtrousPyramidClassifier`.
        scales: Factors of the image's size at which the network looks at it besides 1, each in (0, 1); the logits are
            the maximum over all scales. Each scale alone is trained too, as auxiliary logits with the same weight.
        **kwargs: As in `DilatedSegmenter`, without auxiliary head.

    Raises:
        ValueError: A scale that is not in (0, 1).
    """

    auxiliary_weight = 1.0
    default_recipe = Recipe(
        optimizer="sgd",
        learning_rate=2.5e-4,
        batch_size=10,
        weight_decay=5e-4,
        warmup_steps=0,
        decay="polynomial",
        epochs=19,
        rate_factors=(("head", 10.0),),
        source="section 4.1.2: SGD 2.5e-4, batch 10, 20,000 steps (19 epochs of 10,582), poly 0.9, last layer x10",
    )

    def __init__(
        self,
        backbone,
        num_classes,
        *,
        rates=(6, 12, 18, 24),
        scales=(0.5, 0.75),
        name="deeplabv2",
        dtype=None,
        **kwargs,
    ):
        if not all(0 < scale < 1 for scale in scales):
            raise ValueError(f"`scales` {scales!r} must be factors between 0 and 1; the image itself is always seen")
        head = AtrousPyramidClassifier(num_classes, rates, name="head", dtype=dtype)
        self.scales = tuple(scales)
        if self.scales:  # each is a loss of its own
            self.loss_names = (*self.loss_names, "auxiliary_cross_entropy")
        super().__init__(backbone, head, num_classes, auxiliary=False, name=name, dtype=dtype, **kwargs)

    def call(self, inputs, training=None):
        """Return logits (B, H, W, num_classes) of images (B, H, W, 3)."""
        pixels = self.prepare(inputs)
        parts = [self.one_scale(pixels, training)]
        size_hw = tuple(ops.shape(parts[0])[1:3])
        parts += [self.one_scale(_shrunk(pixels, scale), training) for scale in self.scales]
        logits = parts[0]
        for part in parts[1:]:
            logits = ops.maximum(logits, resize_bilinear(part, size_hw))
        logits = self.enlarge(logits, inputs)
        if not self.scales:
            return logits
        return attach_auxiliary(logits, lambda: [self.enlarge(part, inputs) for part in parts])

    def one_scale(self, pixels, training=None):
        """Return the logits (B, h, w, num_classes) of normalised images of one scale."""
        return self.head(self.backbone(pixels, training=training)[-1])

    def get_config(self):
        """Return the constructor's arguments."""
        config = super().get_config()
        del config["auxiliary"], config["auxiliary_feature"]
        return {**config, "rates": self.head.rates, "scales": self.scales}


def _shrunk(pixels, scale):
    """Return images of floor(scale H) x floor(scale W) pixels, at least 1, sampled every 1 / scale pixels."""
    # Sizes that the factor divides, so that the distance of the samples is exactly 1 / scale: the last row and column
    # are repeated up to there, and what they add is cut.
    fraction = Fraction(scale).limit_denominator(100)
    wanted = []
    for axis in (1, 2):
        size = ops.shape(pixels)[axis]
        wanted.append(_at_least_one(size * fraction.numerator // fraction.denominator))
        padded = -(-size // fraction.denominator) * fraction.denominator
        pixels = ops.take(pixels, ops.minimum(ops.arange(padded), size - 1), axis=axis)
    sizes = [side * fraction.numerator // fraction.denominator for side in ops.shape(pixels)[1:3]]
    return resize_bilinear(pixels, tuple(sizes))[:, : wanted[0], : wanted[1]]


def _at_least_one(size):
    return max(size, 1) if isinstance(size, int) else ops.maximum(size, 1)


def deeplabv2_resnet101(num_classes=21, *, output_stride=8, frozen_stages=0, dtype=None, **options):
    """Return DeepLabV2 on ResNet-101 with three scales: 44.0M parameters.

    Args:
        num_classes: Number of classes, the background included where there is one.
        output_stride: Pixels a cell of the last features: 8, as in the paper, 16 or 32.
        frozen_stages: Parts of the backbone that stay as they are; see `ResNet`.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `DeepLabV2`.
    """
    backbone = resnet101(
        output_stride=output_stride,
        dilate_first_blocks=True,
        strided_convolution="1x1",
        ceil_mode=True,
        momentum=0.999,
        frozen_stages=frozen_stages,
        dtype=dtype,
    )
    options = {"image_mean": _IMAGE_MEAN, "image_std": (1.0, 1.0, 1.0), "name": "deeplabv2_resnet101", **options}
    return DeepLabV2(backbone, num_classes, dtype=dtype, **options)


def deeplabv2_resnet10(num_classes=21, *, output_stride=8, dtype=None, **options):
    """Return a small DeepLabV2 that trains on a CPU: a half-width ResNet-10, and one scale besides 1."""
    options = {
        "scales": (0.5,),
        "resize_rule": ResizeRule("letterbox", size_hw=(256, 384)),
        "recipe": SMALL_SEGMENTER,
        "name": "deeplabv2_resnet10",
        **options,
    }
    backbone = resnet10(output_stride=output_stride, dilate_first_blocks=True, dtype=dtype)
    return DeepLabV2(backbone, num_classes, dtype=dtype, **options)

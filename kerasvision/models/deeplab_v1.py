"""DeepLab v1: semantic image segmentation with deep convolutional nets and fully connected CRFs (Chen et al. 2015,
https://arxiv.org/abs/1412.7062), as DeepLab-LargeFOV was released.

```
image -> VGG-16: pool1 to pool3 /2, pool4 and pool5 without a stride, convolutions between those dilated by 2 (stride 8)
      -> 3x3 mean -> fc6 3x3, dilated by 12 -> fc7 1x1 -> 1x1 -> logits, enlarged 8 times -> dense CRF, if wanted
```

The CRF is no part of the network: it is a step of the `Predictor` after it.

Differs from the released training: the loss is taken of the enlarged logits at the masks' own size, where that shrank
the masks to the logits' size.
"""

import keras
from keras import ops

from kerasvision.backbones.vgg import vgg8, vgg16
from kerasvision.layers import ConvolutionBlock
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.models.base import Segmenter, split_inputs
from kerasvision.models.recipe import SMALL_SEGMENTER, Recipe
from kerasvision.ops.interpolation import resize_bilinear
from kerasvision.ops.resizing import ResizeRule


@keras.saving.register_keras_serializable("kerasvision")
class DeepLabV1(Segmenter):
    """DeepLab-LargeFOV and its relatives.

    Logits are enlarged as by Caffe's `Interp` layer with a `zoom_factor`: cell i of the last features lies on pixel
    `stride` * i, as their windows do (corners are aligned), and what reaches beyond the image is cut. Images of
    8 k + 1 pixels, which the authors cropped or padded all others to, need no cut.

    Args:
        backbone: A model that maps normalised images to a list of features, of which the last is used: `VGG` with
            `pooled=True`, `pool_size=3` and `output_stride=8`, or another whose cells lie so and cover the image.
        num_classes: Number of classes, the background included where there is one.
        fc_kernel_size: Side of fc6's kernel.
        fc_filters: Channels of fc6 and fc7.
        fc_dilation: Pixels between the taps of fc6's kernel, in cells. Table 2 of the paper: LargeFOV has a kernel of 3
            with 1024 channels and 12; DeepLab-CRF-7x7 one of 7 with 4096 and 4.
        average: Whether the features are averaged over 3x3 cells before fc6, zeros around them, as in the release.
        dropout: Share of fc6's and fc7's activations dropped in training.
        **kwargs: As in `Segmenter`.
    """

    loss_names = ("cross_entropy",)
    default_recipe = Recipe(
        optimizer="sgd",
        learning_rate=1e-3,
        batch_size=20,
        weight_decay=5e-4,
        momentum=0.9,
        warmup_steps=0,
        decay="step",
        milestones=(1 / 3, 2 / 3),
        epochs=11,
        rate_factors=(("score", 10.0),),
        source="paper, section 4.1: minibatch 20, rate 0.001 and 0.01 for the last layer, divided by 10 every 2000 "
        "steps, momentum 0.9, weight decay 5e-4; 6000 steps, as released, are 11 epochs of the 10,582 images of "
        "augmented VOC 2012, cropped to 321x321. Biases at twice the rate are left out",
    )

    def __init__(
        self,
        backbone,
        num_classes,
        *,
        fc_kernel_size=3,
        fc_filters=1024,
        fc_dilation=12,
        average=True,
        dropout=0.5,
        name="deeplab_v1",
        **kwargs,
    ):
        super().__init__(num_classes, name=name, **kwargs)
        centres = getattr(backbone, "centres", (None,))
        if centres[-1] != 0 or not backbone.ceil_mode:
            raise ValueError(
                f"`backbone` {backbone.name!r} must have the middle of its first cell on pixel 0, and cells up to the "
                "image's end; use VGG with pool_size=3 and ceil_mode=True"
            )
        if fc_dilation * (fc_kernel_size - 1) % 2:
            raise ValueError(
                f"`fc_kernel_size` {fc_kernel_size} has no middle with `fc_dilation` {fc_dilation}; make the first odd "
                "or the second even"
            )
        self.backbone = backbone
        self.fc_kernel_size = fc_kernel_size
        self.fc_filters = fc_filters
        self.fc_dilation = fc_dilation
        self.average = average
        self.dropout = dropout
        options = {"activation": "relu", "dtype": self.dtype_policy}
        self.fc6 = ConvolutionBlock(fc_filters, fc_kernel_size, dilation=fc_dilation, name="fc6", **options)
        self.fc7 = ConvolutionBlock(fc_filters, 1, name="fc7", **options)
        self.drop6, self.drop7 = (
            keras.layers.Dropout(dropout, name=name, dtype=self.dtype_policy) for name in ("drop6", "drop7")
        )
        # Released: a normal distribution of deviation 0.01.
        initializer = keras.initializers.RandomNormal(stddev=0.01)
        self.score = ConvolutionBlock(
            num_classes, 1, kernel_initializer=initializer, name="score", dtype=self.dtype_policy
        )
        self.build()

    def build(self, input_shape=None):
        """Create the weights of the last three layers."""
        if not self.built:
            shape = self.backbone.outputs[-1].shape
            self.fc6.build(shape)
            self.fc7.build((*shape[:-1], self.fc_filters))
            self.score.build((*shape[:-1], self.fc_filters))
            pass_on_frozen(self)

    def call(self, inputs, training=None):
        """Return logits (B, H, W, num_classes) of images (B, H, W, 3)."""
        features = self.backbone(self.prepare(inputs), training=training)[-1]
        if self.average:
            # By 9 everywhere: Caffe counts the zeros around the map, "same" padding would not.
            features = ops.pad(features, ((0, 0), (1, 1), (1, 1), (0, 0)))
            features = ops.average_pool(features, 3, 1, "valid", data_format="channels_last")
        for layer, drop in ((self.fc6, self.drop6), (self.fc7, self.drop7)):
            features = drop(layer(features, training=training), training=training)
        logits = self.score(features)
        images, _ = split_inputs(inputs)
        height, width = ops.shape(images)[1:3]
        stride = self.backbone.strides[-1]
        size_hw = [stride * (size - 1) + 1 for size in ops.shape(logits)[1:3]]
        return resize_bilinear(logits, size_hw, align_corners=True)[:, :height, :width]

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "fc_kernel_size": self.fc_kernel_size,
            "fc_filters": self.fc_filters,
            "fc_dilation": self.fc_dilation,
            "average": self.average,
            "dropout": self.dropout,
        }


def deeplab_v1_vgg16(
    num_classes=21,
    *,
    output_stride=8,
    widths=(64, 128, 256, 512, 512),
    normalization=None,
    frozen_stages=0,
    dtype=None,
    **options,
):
    """Return DeepLab-LargeFOV on VGG-16: 20.5M parameters.

    Args:
        num_classes: Number of classes, the background included where there is one.
        output_stride: Pixels a cell of the last features: 8, as in the paper, 16 or 32; `fc_dilation` is in cells.
        widths: Channels of the backbone; see `VGG`.
        normalization: Of the backbone; see `VGG`.
        frozen_stages: Blocks of the backbone that stay as they are; see `VGG`.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `DeepLabV1`.
    """
    backbone = vgg16(
        pooled=True,
        pool_size=3,
        output_stride=output_stride,
        widths=widths,
        normalization=normalization,
        frozen_stages=frozen_stages,
        dtype=dtype,
        name="vgg16",
    )
    return DeepLabV1(backbone, num_classes, dtype=dtype, **{"name": "deeplab_v1_vgg16", **options})


def deeplab_v1_vgg8(num_classes=21, *, output_stride=8, dtype=None, **options):
    """Return a small DeepLab v1 that trains on a CPU: a narrow VGG with batch normalisation, and 256 channels.

    Args:
        num_classes: Number of classes, the background included where there is one.
        output_stride: Pixels a cell of the last features: 8, 16 or 32.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `DeepLabV1`.
    """
    options = {
        "fc_filters": 256,
        "fc_dilation": 6,
        "dropout": 0.1,
        "resize_rule": ResizeRule("letterbox", size_hw=(256, 384)),
        "recipe": SMALL_SEGMENTER,
        "name": "deeplab_v1_vgg8",
        **options,
    }
    backbone = vgg8(pooled=True, pool_size=3, output_stride=output_stride, dtype=dtype, name="vgg8")
    return DeepLabV1(backbone, num_classes, dtype=dtype, **options)

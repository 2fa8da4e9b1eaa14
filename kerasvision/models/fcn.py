"""FCN: fully convolutional networks for semantic segmentation (Long et al. 2015, https://arxiv.org/abs/1411.4038), laid
out as in the authors' Caffe models (https://github.com/shelhamer/fcn.berkeleyvision.org).

```
image in a margin of zeros -> VGG-16 or AlexNet -> pool3 (stride 8), pool4 (16), pool5 (32)
pool5 -> fc6 7x7 -> fc7 1x1 -> 1x1 -> logits (32) --------------------> x32, cut -> FCN-32s
                                       | x2
pool4 -----------------------> 1x1 ----+-> logits (16) ---------------> x16, cut -> FCN-16s
                                            | x2
pool3 ----------------------------> 1x1 ----+-> logits (8) -----------> x8, cut --> FCN-8s
```

Where the cuts are follows from where the cells lie: 19, 27 and 31 pixels with VGG-16, 18 with AlexNet; 5 and 9 cells at
the skips.

Differs from the paper: enlarging is not learned unless asked for, as in the authors' models; the loss is the mean over
pixels, see `FCN.default_recipe`.
"""

import itertools
from typing import Literal

import keras
from keras import ops

from kerasvision.backbones.alexnet import TORCHVISION, alexnet
from kerasvision.backbones.vgg import vgg8, vgg16
from kerasvision.layers import BilinearUpsampling, ConvolutionBlock, FCNSkip
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.models.base import Segmenter, split_inputs
from kerasvision.models.recipe import SMALL_SEGMENTER, Recipe
from kerasvision.ops.resizing import ResizeRule


@keras.saving.register_keras_serializable("kerasvision")
class FCN(Segmenter):
    """FCN-32s, FCN-16s or FCN-8s on VGG or AlexNet.

    Args:
        backbone: A model that maps normalised images to a list of features after pooling, each half as large as the one
            before, sizes rounded up: `VGG` or `AlexNet` with `pooled=True`. It must say where its cells lie (`strides`,
            `centres`, `ceil_mode`).
        num_classes: Number of classes, the background included where there is one.
        stride: Pixels from one cell to the next of the logits that are enlarged to the image's size: that of one of the
            backbone's features, of which all from there on but the last are skips.
        margin: Zeros around the image on each side, so that fc6, which is not padded, sees the whole of it. The
            authors' 100 pixels are 99 here with VGG, whose first convolution adds one. ``None``: none, and a padded
            fc6, which takes less than half of the time for small images.
        fc_kernel_size: Side of fc6's kernel: that of the map which the classifier's first dense layer saw.
        fc_filters: Channels of fc6 and fc7.
        dropout: Share of fc6's and fc7's activations dropped in training.
        skip_scales: What each skip's features are multiplied by, from coarse to fine; default: 1. The authors' FCN-8s
            "at once" has (0.01, 0.0001).
        learned_upsampling: Whether the skips' enlarging is trained, as in the paper; the last is not either way.
        **kwargs: As in `Segmenter`.
    """

    loss_names = ("cross_entropy",)
    default_recipe = Recipe(
        optimizer="sgd",
        learning_rate=1e-4,
        batch_size=20,
        weight_decay=5e-4,
        momentum=0.9,
        warmup_steps=0,
        decay="constant",
        epochs=175,
        source="paper, section 4.3: minibatch 20, fixed rate 1e-4 for VGG-16 (1e-3 for AlexNet), momentum 0.9, weight "
        "decay 5e-4, 175 epochs or more, finer strides from the coarser net's weights. The released models were "
        "trained with batch 1, momentum 0.99 and 1e-10 for a loss summed over pixels, not averaged as here. Biases "
        "at twice the rate are left out",
    )

    def __init__(
        self,
        backbone,
        num_classes,
        *,
        stride=8,
        margin: int | None = 99,
        fc_kernel_size=7,
        fc_filters=4096,
        dropout=0.5,
        skip_scales=None,
        learned_upsampling=False,
        name="fcn",
        **kwargs,
    ):
        super().__init__(num_classes, name=name, **kwargs)
        self.backbone = backbone
        self.stride = stride
        self.margin = margin
        self.fc_kernel_size = fc_kernel_size
        self.fc_filters = fc_filters
        self.dropout = dropout
        self.learned_upsampling = learned_upsampling
        self._check_backbone()
        *finer, coarsest = zip(backbone.strides, backbone.centres, strict=True)
        finer = [feature for feature in finer if feature[0] >= stride][::-1]
        self.skip_scales = None if skip_scales is None else tuple(skip_scales)
        if self.skip_scales is not None and len(self.skip_scales) != len(finer):
            raise ValueError(
                f"`skip_scales` {self.skip_scales} must have a number for each of the {len(finer)} skips of a `stride` "
                f"of {stride}, from coarse to fine"
            )
        options = {"activation": "relu", "padding": None if margin is None else 0, "dtype": self.dtype_policy}
        self.fc6 = ConvolutionBlock(fc_filters, fc_kernel_size, name="fc6", **options)
        self.fc7 = ConvolutionBlock(fc_filters, 1, name="fc7", **options)
        self.drop6, self.drop7 = (
            keras.layers.Dropout(dropout, name=name, dtype=self.dtype_policy) for name in ("drop6", "drop7")
        )
        # "We zero-initialize the class scoring layer", section 4.3.
        self.score = ConvolutionBlock(num_classes, 1, kernel_initializer="zeros", name="score", dtype=self.dtype_policy)
        cell, centre = coarsest
        if margin is not None:
            centre += cell * (fc_kernel_size - 1) / 2
        self.skips = []
        for (fine_cell, fine_centre), scale in zip(finer, self.skip_scales or [1.0] * len(finer), strict=True):
            kernel_size, offset = _alignment(cell, centre, fine_cell, fine_centre)
            self.skips.append(
                FCNSkip(
                    num_classes,
                    learned=learned_upsampling,
                    offset=offset,
                    kernel_size=kernel_size,
                    scale=scale,
                    name=f"skip{fine_cell}",
                    dtype=self.dtype_policy,
                )
            )
            # Of two maps that are added, the result begins where the later one does.
            cell, centre = fine_cell, fine_centre + max(offset, 0) * fine_cell
        kernel_size, offset = _alignment(cell, centre, 1, margin or 0)
        self.offset = -offset
        self.enlarge = BilinearUpsampling(
            cell, learned=False, kernel_size=kernel_size, padding="valid", name="enlarge", dtype=self.dtype_policy
        )
        self.build()

    def _check_backbone(self):
        """Raise ValueError unless the backbone's features cover an image of any size, at the strides wanted."""
        backbone = self.backbone
        if not all(hasattr(backbone, name) for name in ("strides", "centres", "ceil_mode")) or not backbone.ceil_mode:
            raise ValueError(
                f"`backbone` {backbone.name!r} must say where its cells lie and round sizes up; use VGG or AlexNet "
                "with ceil_mode=True"
            )
        strides = tuple(backbone.strides)
        halved = all(coarse == 2 * fine for fine, coarse in itertools.pairwise(strides))
        if self.stride not in strides or not halved:
            raise ValueError(
                f"`stride` {self.stride!r} must be one of the backbone's {strides}, each of which must be twice the "
                "one before"
            )
        if self.margin is None:
            if self.fc_kernel_size % 2 == 0:
                raise ValueError(f"`fc_kernel_size` {self.fc_kernel_size} must be odd without a `margin`")
            margin, needed = 0, 1
        else:
            margin, needed = self.margin, self.fc_kernel_size
        try:
            cells = backbone.compute_output_shape((None, 1 + 2 * margin, 1 + 2 * margin, 3))[-1][1]
        except ValueError:  # a kernel without padding, larger than that
            cells = 0
        if cells < needed:
            raise ValueError(
                f"`margin` {self.margin} leaves {cells} cells of an image of one pixel, fewer than the {needed} that "
                "are needed; enlarge it: the authors have 100 with the first convolution's own padding"
            )

    def build(self, input_shape=None):
        """Create the weights of all that follows the backbone."""
        if not self.built:
            *finer, shape = (feature.shape for feature in self.backbone.outputs)
            self.fc6.build(shape)
            self.fc7.build((*shape[:-1], self.fc_filters))
            self.score.build((*shape[:-1], self.fc_filters))
            logits = (*shape[:-1], self.num_classes)
            for skip in self.skips:
                skip.build(logits, finer.pop())
            self.enlarge.build(logits)
            pass_on_frozen(self)

    def call(self, inputs, training=None):
        """Return logits (B, H, W, num_classes) of images (B, H, W, 3)."""
        images, _ = split_inputs(inputs)
        height, width = ops.shape(images)[1:3]
        pixels = self.prepare(inputs)
        if self.margin:
            margin = (self.margin, self.margin)
            pixels = ops.pad(pixels, ((0, 0), margin, margin, (0, 0)))
        *finer, features = self.backbone(pixels, training=training)
        for layer, drop in ((self.fc6, self.drop6), (self.fc7, self.drop7)):
            features = drop(layer(features, training=training), training=training)
        logits = self.score(features)
        for skip in self.skips:
            logits = skip(logits, finer.pop())
        return self.enlarge(logits)[:, self.offset : self.offset + height, self.offset : self.offset + width]

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "stride": self.stride,
            "margin": self.margin,
            "fc_kernel_size": self.fc_kernel_size,
            "fc_filters": self.fc_filters,
            "dropout": self.dropout,
            "skip_scales": self.skip_scales,
            "learned_upsampling": self.learned_upsampling,
        }


def _alignment(cell, centre, fine_cell, fine_centre):
    """Return how a map is enlarged so that its pixels fall on those of a finer one.

    Args:
        cell: Pixels of the image from one cell to the next.
        centre: Where the middle of the first cell lies, in pixels.
        fine_cell: As `cell`, of the finer map.
        fine_centre: As `centre`, of the finer map.

    Returns:
        Size of the kernel, and on which pixel of the finer map the first enlarged one falls.
    """
    factor = cell // fine_cell
    for kernel_size in (2 * factor - factor % 2, 2 * factor - 1):
        first = centre - fine_cell * (kernel_size - 1) / 2
        offset = (first - fine_centre) / fine_cell
        if offset == int(offset):
            return kernel_size, int(offset)
    raise ValueError(
        f"no kernel enlarges cells of {cell} pixels at {centre} onto those of {fine_cell} at {fine_centre}"
    )


def fcn8s_vgg16(
    num_classes=21,
    *,
    widths=(64, 128, 256, 512, 512),
    normalization=None,
    frozen_stages=0,
    dtype=None,
    **options,
):
    """Return FCN-8s on VGG-16, the authors' voc-fcn8s: 134.3M parameters.

    With `skip_scales=(0.01, 0.0001)` it is their voc-fcn8s-atonce, with `learned_upsampling=True` the paper's.

    Args:
        num_classes: Number of classes, the background included where there is one.
        widths: Channels of the backbone; see `VGG`.
        normalization: Of the backbone; see `VGG`.
        frozen_stages: Blocks of the backbone that stay as they are; see `VGG`.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `FCN`.
    """
    backbone = vgg16(
        pooled=True, widths=widths, normalization=normalization, frozen_stages=frozen_stages, dtype=dtype, name="vgg16"
    )
    return FCN(backbone, num_classes, dtype=dtype, **{"name": "fcn8s_vgg16", **options})


def fcn16s_vgg16(num_classes=21, *, widths=(64, 128, 256, 512, 512), **options):
    """Return FCN-16s on VGG-16, the authors' voc-fcn16s: 134.3M parameters; see `fcn8s_vgg16`."""
    return fcn8s_vgg16(num_classes, widths=widths, **{"stride": 16, "name": "fcn16s_vgg16", **options})


def fcn32s_vgg16(num_classes=21, *, widths=(64, 128, 256, 512, 512), **options):
    """Return FCN-32s on VGG-16, the authors' voc-fcn32s: 134.3M parameters; see `fcn8s_vgg16`."""
    return fcn8s_vgg16(num_classes, widths=widths, **{"stride": 32, "name": "fcn32s_vgg16", **options})


def fcn32s_alexnet(
    num_classes=21,
    *,
    layout: Literal["caffe", "torchvision"] = "caffe",
    widths=None,
    frozen_stages=0,
    dtype=None,
    **options,
):
    """Return FCN-32s on AlexNet, the authors' voc-fcn-alexnet: 57.0M parameters.

    Args:
        num_classes: Number of classes, the background included where there is one.
        layout: ``"caffe"``, or ``"torchvision"`` for torchvision's AlexNet, whose weights are in the zoo: fewer
            channels, neither groups nor normalisation.
        widths: Channels of the backbone; default: the layout's; see `AlexNet`.
        frozen_stages: Convolutions of the backbone that stay as they are; see `AlexNet`.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `FCN`.
    """
    if layout not in ("caffe", "torchvision"):
        raise ValueError(f"`layout` {layout!r} is unknown; use 'caffe' or 'torchvision'")
    arguments = TORCHVISION if layout == "torchvision" else {}
    if widths is not None:
        arguments = {**arguments, "widths": widths}
    backbone = alexnet(pooled=True, frozen_stages=frozen_stages, dtype=dtype, **arguments)
    options = {
        "stride": 32,
        "margin": 100 - arguments.get("first_padding", 0),
        "fc_kernel_size": 6,
        "recipe": FCN.default_recipe.replace(learning_rate=1e-3),
        "name": "fcn32s_alexnet",
        **options,
    }
    return FCN(backbone, num_classes, dtype=dtype, **options)


def fcn16s_alexnet(num_classes=21, *, layout: Literal["caffe", "torchvision"] = "caffe", widths=None, **options):
    """Return FCN-16s on AlexNet, which the authors have not published: 57.0M parameters; see `fcn32s_alexnet`."""
    options = {"stride": 16, "name": "fcn16s_alexnet", **options}
    return fcn32s_alexnet(num_classes, layout=layout, widths=widths, **options)


def fcn8s_alexnet(num_classes=21, *, layout: Literal["caffe", "torchvision"] = "caffe", widths=None, **options):
    """Return FCN-8s on AlexNet, which the authors have not published: 57.0M parameters; see `fcn32s_alexnet`."""
    options = {"stride": 8, "name": "fcn8s_alexnet", **options}
    return fcn32s_alexnet(num_classes, layout=layout, widths=widths, **options)


def fcn8s_vgg8(num_classes=21, *, dtype=None, **options):
    """Return a small FCN-8s that trains on a CPU: a narrow VGG with batch normalisation, no margin, a 3x3 fc6.

    Args:
        num_classes: Number of classes, the background included where there is one.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `FCN`.
    """
    options = {
        "margin": None,
        "fc_kernel_size": 3,
        "fc_filters": 256,
        "dropout": 0.1,
        "resize_rule": ResizeRule("letterbox", size_hw=(256, 384)),
        "recipe": SMALL_SEGMENTER,
        "name": "fcn8s_vgg8",
        **options,
    }
    return FCN(vgg8(pooled=True, dtype=dtype, name="vgg8"), num_classes, dtype=dtype, **options)

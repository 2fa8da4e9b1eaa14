"""Residual networks (He et al. 2015, https://arxiv.org/abs/1512.03385), laid out as in torchvision.

```
image -> stem: 7x7 /2 -> C1 (stride 2) -> max pool /2 -> stage 1 -> C2 (4) -> stage 2 -> C3 (8)
                                                      -> stage 3 -> C4 (16) -> stage 4 -> C5 (32)
```

Differs from the paper: the stride of a bottleneck sits in its 3x3 convolution, not in its first 1x1
("ResNet v1.5"), as in the weights that torchvision publishes; `strided_convolution="1x1"` is the paper's.
"""

from typing import Literal

import keras

from kerasvision.backbones.base import Backbone, check_output_stride
from kerasvision.layers.convolution import ConvolutionBlock
from kerasvision.layers.pooling import MaxPooling

_INITIALIZER = {"scale": 2.0, "mode": "fan_out", "distribution": "untruncated_normal"}
_EXPANSION = {"basic": 1, "bottleneck": 4}


@keras.saving.register_keras_serializable("kerasvision")
class ResNet(Backbone):
    """A residual network that returns the features of every stride.

    Args:
        block: ``"basic"`` (two 3x3 convolutions) or ``"bottleneck"`` (1x1, 3x3, 1x1).
        depths: Number of blocks in each of the four stages.
        widths: Channels of the 3x3 convolutions in each stage; a bottleneck puts out four times as many.
        stem_filters: Channels of the first convolution.
        normalization: ``"batch"`` or ``"frozen_batch"``, as in `ConvolutionBlock`.
        epsilon: Added to the variance by the normalisation.
        frozen_stages: How many parts are not trained, counting the stem as the first and then the stages.
        output_stride: Pixels from one cell of C5 to the next: 32, or 16 or 8 with dilations in place of the strides
            of the last stage or two.
        dilate_first_blocks: Whether the first block of such a stage has the stage's own dilation, as in
            segmentation_models.pytorch, or that of the stage before, as in torchvision.
        strided_convolution: Which convolution of a bottleneck has the stride: ``"3x3"`` (torchvision) or the first
            ``"1x1"`` (the paper, and the authors' Caffe models).
        ceil_mode: Whether the max pooling rounds its size up, as Caffe does.
        momentum: Share of the old moving average that batch normalisation keeps at each step.
        dtype: Dtype policy of every layer; default: Keras's global one.

    Call: normalised images (B, H, W, 3); returns the list C1 to C5 of (B, H / s, W / s, C_s), rounded up, s being
    `strides`: 2, 4, 8, 16, 32, none above `output_stride`.
    """

    def __init__(
        self,
        block: Literal["basic", "bottleneck"] = "bottleneck",
        depths=(3, 4, 6, 3),
        *,
        widths=(64, 128, 256, 512),
        stem_filters=64,
        normalization="batch",
        epsilon=1e-5,
        frozen_stages=0,
        output_stride=32,
        dilate_first_blocks=False,
        strided_convolution: Literal["3x3", "1x1"] = "3x3",
        ceil_mode=False,
        momentum=0.9,
        dtype=None,
        name="resnet",
        **kwargs,
    ):
        if block not in _EXPANSION:
            raise ValueError(f"`block` {block!r} is unknown; use 'basic' or 'bottleneck'")
        if not 0 <= frozen_stages <= 5:
            raise ValueError(f"`frozen_stages` {frozen_stages} must be 0 (train all) to 5 (stem and four stages)")
        if not len(depths) == len(widths) == 4:
            raise ValueError(f"`depths` {depths} and `widths` {widths} must both list four stages")
        check_output_stride(output_stride)
        if strided_convolution not in ("3x3", "1x1"):
            raise ValueError(f"`strided_convolution` {strided_convolution!r} must be '3x3' or '1x1'")
        self._block = block
        self._depths = tuple(depths)
        self._widths = tuple(widths)
        self._stem_filters = stem_filters
        self._normalization = normalization
        self._epsilon = epsilon
        self._frozen_stages = frozen_stages
        self._output_stride = output_stride
        self._dilate_first_blocks = dilate_first_blocks
        self._strided_convolution = strided_convolution
        self._ceil_mode = ceil_mode
        self._momentum = momentum
        self.use_dtype(dtype)

        inputs = keras.Input((None, None, 3), name="images")
        x = self._convolution(inputs, stem_filters, 7, "stem", strides=2, activation="relu")
        features = [x]
        x = MaxPooling(3, 2, padding=1, ceil_mode=ceil_mode, name="stem_pool", dtype=self._layer_dtype)(x)
        dilation = 1
        for stage, (depth, width) in enumerate(zip(self._depths, self._widths, strict=True), start=1):
            strides, first_dilation = (1 if stage == 1 else 2), dilation
            if 2 ** (stage + 1) > output_stride:  # of C2 to C5
                strides, dilation = 1, 2 * dilation
                first_dilation = dilation if dilate_first_blocks else first_dilation
            x = self._residual_block(x, width, strides, first_dilation, f"stage{stage}_block0")
            for index in range(1, depth):
                x = self._residual_block(x, width, 1, dilation, f"stage{stage}_block{index}")
            features.append(x)
        frozen_parts = ("stem", "stage1", "stage2", "stage3", "stage4")[:frozen_stages]
        super().__init__(inputs, features, is_frozen=lambda layer: layer.startswith(frozen_parts), name=name, **kwargs)

    @property
    def strides(self):
        """Pixels from one cell to the next, of each feature."""
        return tuple(min(2**level, self._output_stride) for level in range(1, 6))

    def _convolution(self, x, filters, kernel_size, name, *, strides=1, dilation=1, activation=None):
        return ConvolutionBlock(
            filters,
            kernel_size,
            strides=strides,
            dilation=dilation,
            normalization=self._normalization,
            epsilon=self._epsilon,
            momentum=self._momentum,
            activation=activation,
            kernel_initializer=keras.initializers.VarianceScaling(**_INITIALIZER),
            name=name,
            dtype=self._layer_dtype,
        )(x)

    def _residual_block(self, x, width, strides, dilation, name):
        filters = width * _EXPANSION[self._block]
        shortcut = x
        if strides > 1 or x.shape[-1] != filters:
            shortcut = self._convolution(x, filters, 1, f"{name}_downsample", strides=strides)
        if self._block == "bottleneck":
            first, second = (1, strides) if self._strided_convolution == "3x3" else (strides, 1)
            x = self._convolution(x, width, 1, f"{name}_conv1", strides=first, activation="relu")
            x = self._convolution(x, width, 3, f"{name}_conv2", strides=second, dilation=dilation, activation="relu")
            x = self._convolution(x, filters, 1, f"{name}_conv3")
        else:
            x = self._convolution(x, width, 3, f"{name}_conv1", strides=strides, dilation=dilation, activation="relu")
            x = self._convolution(x, width, 3, f"{name}_conv2", dilation=dilation)
        x = keras.layers.Add(name=f"{name}_add", dtype=self._layer_dtype)([x, shortcut])
        return keras.layers.ReLU(name=f"{name}_relu", dtype=self._layer_dtype)(x)

    def get_config(self):
        """Return the constructor's arguments, and which layers are trained."""
        return {
            "block": self._block,
            "depths": self._depths,
            "widths": self._widths,
            "stem_filters": self._stem_filters,
            "normalization": self._normalization,
            "epsilon": self._epsilon,
            "frozen_stages": self._frozen_stages,
            "output_stride": self._output_stride,
            "dilate_first_blocks": self._dilate_first_blocks,
            "strided_convolution": self._strided_convolution,
            "ceil_mode": self._ceil_mode,
            "momentum": self._momentum,
            **super().get_config(),
        }


def resnet10(**options):
    """Return a ResNet of one basic block a stage and half the usual width, for training on a CPU: 1.2M parameters."""
    return ResNet(
        **{"block": "basic", "depths": (1, 1, 1, 1), "widths": (32, 64, 128, 256), "stem_filters": 32, **options}
    )


def resnet18(**options):
    """Return ResNet-18: 11.2M parameters without the classifier."""
    return ResNet("basic", (2, 2, 2, 2), **options)


def resnet34(**options):
    """Return ResNet-34: 21.3M parameters without the classifier."""
    return ResNet("basic", (3, 4, 6, 3), **options)


def resnet50(**options):
    """Return ResNet-50: 23.5M parameters without the classifier."""
    return ResNet("bottleneck", (3, 4, 6, 3), **options)


def resnet101(**options):
    """Return ResNet-101: 42.5M parameters without the classifier."""
    return ResNet("bottleneck", (3, 4, 23, 3), **options)

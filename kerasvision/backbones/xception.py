"""The modified aligned Xception of DeepLabV3+ (Chen et al. 2018, section 3.3, https://arxiv.org/abs/1802.02611).

```
image -> stem: 3x3 /2, 3x3 -> entry flow: three strided blocks (strides 4, 8, 16)
      -> middle flow: 16 blocks -> exit flow: a strided block (32), a block without shortcut
```

A block is three separable convolutions, a stride in the last of them in place of Xception's pooling, and a shortcut.

Differs from the paper: figure 4 puts batch normalisation and ReLU after each depthwise convolution; the authors' code,
their weights and timm's `xception65` have the ReLU there in the last block only, and else before each separable
convolution. Features before a stride are taken after that ReLU, as in timm; the authors' decoder takes them before.
"""

import keras

from kerasvision.backbones.base import Backbone, check_output_stride
from kerasvision.layers.convolution import ConvolutionBlock
from kerasvision.layers.separable_convolution import SeparableConvolutionBlock


@keras.saving.register_keras_serializable("kerasvision")
class Xception(Backbone):
    """An aligned Xception that returns the features of every stride.

    Args:
        entry: (channels, strides) of each block of the entry flow; three of them have strides of 2.
        middle_blocks: Number of blocks in the middle flow, which have the channels of the last entry block.
        exit_filters: Channels of the exit flow: that of its first block, then of the first two and of the last
            separable convolution of its second.
        stem_filters: Channels of the two convolutions of the stem.
        normalization: ``"batch"`` or ``"frozen_batch"``, as in `ConvolutionBlock`.
        epsilon: Added to the variance by the normalisation.
        momentum: Share of the old moving average that batch normalisation keeps at each step.
        frozen_stages: How many of stem, entry flow, middle flow and exit flow are not trained, counted in this order.
        output_stride: Pixels from one cell of the last feature to the next: 32, or 16 or 8 with dilations in place of
            the last strides; a block that loses its stride has the dilation of the one before.
        dtype: Dtype policy of every layer; default: Keras's global one.

    Call: normalised images (B, H, W, 3); returns a list of five features (B, H / s, W / s, C_s), rounded up, s being
    `strides`: what the strided convolution of each strided block takes (128, 256, 728, 1024 channels), and the output
    (2048).
    """

    def __init__(
        self,
        entry=((128, 2), (256, 2), (728, 2)),
        middle_blocks=16,
        *,
        exit_filters=(1024, 1536, 2048),
        stem_filters=(32, 64),
        normalization="batch",
        epsilon=1e-3,
        momentum=0.9,
        frozen_stages=0,
        output_stride=32,
        dtype=None,
        name="xception",
        **kwargs,
    ):
        self._entry = tuple((filters, strides) for filters, strides in entry)
        self._middle_blocks = middle_blocks
        self._exit_filters = tuple(exit_filters)
        self._stem_filters = tuple(stem_filters)
        self._normalization = normalization
        self._epsilon = epsilon
        self._momentum = momentum
        self._frozen_stages = frozen_stages
        self._output_stride = output_stride
        self.use_dtype(dtype)
        self._check()

        inputs = keras.Input((None, None, 3), name="images")
        x = self._convolution(inputs, self._stem_filters[0], 3, "stem1", strides=2, activation="relu")
        x = self._convolution(x, self._stem_filters[1], 3, "stem2", activation="relu")
        middle, (first, *last) = self._entry[-1][0], self._exit_filters
        blocks = [(f"entry{index}", (filters,) * 3, strides) for index, (filters, strides) in enumerate(self._entry)]
        blocks += [(f"middle{index}", (middle,) * 3, 1) for index in range(middle_blocks)]
        blocks += [("exit0", (middle, first, first), 2)]
        features, stride, dilation = [], 2, 1
        for block, filters, strides in blocks:
            fits = stride * strides <= output_stride
            x, before_last = self._block(x, filters, strides if fits else 1, dilation, block)
            if strides == 2:
                features.append(before_last)
            if fits:
                stride *= strides
            else:
                dilation *= strides
        for index, filters in enumerate((last[0], last[0], last[1])):
            x = self._separable(x, filters, 1, dilation, f"exit1_separable{index}", "relu", depthwise_activation="relu")
        frozen_parts = ("stem", "entry", "middle", "exit")[:frozen_stages]
        super().__init__(
            inputs, [*features, x], is_frozen=lambda layer: layer.startswith(frozen_parts), name=name, **kwargs
        )

    @property
    def strides(self):
        """Pixels from one cell to the next, of each feature."""
        return tuple(min(2**level, self._output_stride) for level in range(1, 6))

    def _check(self):
        strides = [strides for _, strides in self._entry]
        if sorted(strides) != [1] * (len(strides) - 3) + [2, 2, 2]:
            raise ValueError(f"`entry` {self._entry} must have three blocks with strides of 2, and 1 in all others")
        if self._middle_blocks < 0:
            raise ValueError(f"`middle_blocks` {self._middle_blocks} must be 0 or more; Xception-65 has 16")
        if len(self._exit_filters) != 3 or len(self._stem_filters) != 2:
            raise ValueError(
                f"`exit_filters` {self._exit_filters} and `stem_filters` {self._stem_filters} must be three and two "
                "numbers of channels"
            )
        if not 0 <= self._frozen_stages <= 4:
            raise ValueError(f"`frozen_stages` {self._frozen_stages} must be 0 (train all) to 4 (stem and three flows)")
        check_output_stride(self._output_stride)

    def _convolution(self, x, filters, kernel_size, name, *, strides=1, activation=None):
        return ConvolutionBlock(
            filters, kernel_size, strides=strides, activation=activation, name=name, **self._normalization_options
        )(x)

    def _separable(self, x, filters, strides, dilation, name, activation, *, depthwise_activation=None):
        return SeparableConvolutionBlock(
            filters,
            3,
            strides=strides,
            dilation=dilation,
            depthwise_normalization=self._normalization,
            activation=activation,
            depthwise_activation=depthwise_activation,
            name=name,
            **self._normalization_options,
        )(x)

    def _block(self, x, filters, strides, dilation, name):
        """Return the block's output, and what goes into its last convolution."""
        shortcut = x
        if strides > 1 or x.shape[-1] != filters[-1]:
            shortcut = self._convolution(x, filters[-1], 1, f"{name}_shortcut", strides=strides)
        x = keras.layers.ReLU(name=f"{name}_relu", dtype=self._layer_dtype)(x)
        # The ReLU before a convolution is the end of the one before: one pass over memory.
        x = self._separable(x, filters[0], 1, dilation, f"{name}_separable0", "relu")
        x = self._separable(x, filters[1], 1, dilation, f"{name}_separable1", "relu")
        output = self._separable(x, filters[2], strides, dilation, f"{name}_separable2", None)
        return keras.layers.Add(name=f"{name}_add", dtype=self._layer_dtype)([output, shortcut]), x

    @property
    def _normalization_options(self):
        return {
            "normalization": self._normalization,
            "epsilon": self._epsilon,
            "momentum": self._momentum,
            "dtype": self._layer_dtype,
        }

    def get_config(self):
        """Return the constructor's arguments, and which layers are trained."""
        return {
            "entry": self._entry,
            "middle_blocks": self._middle_blocks,
            "exit_filters": self._exit_filters,
            "stem_filters": self._stem_filters,
            "normalization": self._normalization,
            "epsilon": self._epsilon,
            "momentum": self._momentum,
            "frozen_stages": self._frozen_stages,
            "output_stride": self._output_stride,
            **super().get_config(),
        }


def xception41(**options):
    """Return Xception-41: 24.9M parameters without the classifier."""
    return Xception(**{"middle_blocks": 8, **options})


def xception65(**options):
    """Return Xception-65: 37.9M parameters without the classifier."""
    return Xception(**options)


def xception71(**options):
    """Return Xception-71: 40.3M parameters without the classifier."""
    return Xception(**{"entry": ((128, 2), (256, 1), (256, 2), (728, 1), (728, 2)), **options})

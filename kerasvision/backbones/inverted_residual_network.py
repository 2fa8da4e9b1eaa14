"""What MobileNetV2 and MobileNetV3 have in common: a stem, inverted residuals, one last 1x1 convolution.

Layers are counted as torchvision counts them in `features`: 0 is the stem, then come the blocks, then the last
convolution.
"""

from dataclasses import dataclass

import keras

from kerasvision.backbones.base import Backbone, check_output_stride
from kerasvision.layers.convolution import ConvolutionBlock
from kerasvision.layers.inverted_residual import InvertedResidual

# As torchvision initialises its 1x1 convolutions.
_INITIALIZER = {"scale": 2.0, "mode": "fan_out", "distribution": "untruncated_normal"}


@dataclass(frozen=True)
class Block:
    """One inverted residual; see the layer's arguments.

    Args:
        filters: Number of output channels.
        expanded_filters: Channels of the depthwise convolution.
        kernel_size: Side of the depthwise kernels.
        strides: Of the depthwise convolution.
        squeeze_filters: Channels inside the squeeze-and-excitation, or ``None``.
        activation: Name of a Keras activation.
    """

    filters: int
    expanded_filters: int
    kernel_size: int = 3
    strides: int = 1
    squeeze_filters: int | None = None
    activation: str = "relu6"


def round_filters(filters: float, divisor: int = 8) -> int:
    """Round a number of channels to a multiple of `divisor`, losing at most a tenth of them.

    Source: `make_divisible` of the authors' code, the same in torchvision/models/_utils.py.
    """
    rounded = max(divisor, int(filters + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * filters else rounded


class InvertedResidualNetwork(Backbone):
    """A stem of stride 2, inverted residuals, and a last 1x1 convolution.

    Args:
        blocks: `Block` of each inverted residual, in order.
        stem_filters: Channels of the first convolution.
        last_filters: Channels of the last convolution.
        activation: Of the stem and of the last convolution.
        feature_indices: Which layers' outputs are the features, counted as above, ascending; what comes after the last
            of them is left out.
        expanded_features: Which of these are not the output of their block but what goes into its depthwise
            convolution, with the stride of the block's input.
        normalization: ``"batch"`` or ``"frozen_batch"``, as in `ConvolutionBlock`.
        epsilon: Added to the variance by the normalisation.
        momentum: Share of the old moving average that batch normalisation keeps at each step.
        frozen_stages: How many parts are not trained. The stem begins the first, each strided block one more, and the
            last convolution the sixth: torchvision's `trainable_layers` is 6 less this.
        output_stride: Pixels from one cell of the last feature to the next: 32, or 16 or 8 with dilations in place of
            the last strides.
        dilate_first_blocks: Whether a block that has a dilation in place of its stride has the new dilation already,
            as in torchvision and segmentation_models.pytorch, or that of the block before.
        dtype: Dtype policy of every layer; default: Keras's global one.

    Call: normalised images (B, H, W, 3); returns the list of the features (B, H / s, W / s, C_s), rounded up, s being
    `strides`.
    """

    def __init__(
        self,
        blocks,
        *,
        stem_filters,
        last_filters,
        activation,
        feature_indices,
        expanded_features,
        normalization,
        epsilon,
        momentum,
        frozen_stages,
        output_stride,
        dilate_first_blocks,
        dtype,
        **kwargs,
    ):
        self._feature_indices = tuple(feature_indices)
        self._expanded_features = tuple(expanded_features)
        self._normalization = normalization
        self._epsilon = epsilon
        self._momentum = momentum
        self._frozen_stages = frozen_stages
        self._output_stride = output_stride
        self._dilate_first_blocks = dilate_first_blocks
        self.use_dtype(dtype)
        self.last_index = len(blocks) + 1
        # Where torchvision's stages begin, and where the last of them ends, counted as in `feature_indices`.
        strided = (index for index, block in enumerate(blocks, 1) if block.strides > 1)
        stages = (0, *strided, self.last_index, self.last_index + 1)
        self._check(len(stages) - 1)

        inputs = keras.Input((None, None, 3), name="images")
        x = self._convolution(inputs, stem_filters, 3, activation, "stem", strides=2)
        # Of the output, and of what goes into the depthwise convolution.
        features = {0: (x, None)}
        strides = {0: (2, 2)}
        stride, dilation = 2, 1
        for index, block in enumerate(blocks[: self._feature_indices[-1]], 1):
            before, block_strides, block_dilation = stride, block.strides, dilation
            if stride * block.strides > output_stride:
                block_strides, dilation = 1, dilation * block.strides
                block_dilation = dilation if dilate_first_blocks else block_dilation
            stride *= block_strides
            expands = index in self._expanded_features
            if expands and block.expanded_filters == x.shape[-1]:
                raise ValueError(f"`expanded_features` has {index}, but that block does not expand its input")
            outputs = self._block(x, block, block_strides, block_dilation, index, expands)
            x, expanded = outputs if expands else (outputs, None)
            features[index], strides[index] = (x, expanded), (stride, before)
        if self._feature_indices[-1] == self.last_index:
            x = self._convolution(x, last_filters, 1, activation, "last")
            features[self.last_index], strides[self.last_index] = (x, None), (stride, stride)
        kinds = [(index, int(index in self._expanded_features)) for index in self._feature_indices]
        self._strides = tuple(strides[index][kind] for index, kind in kinds)
        names = ("stem", *(f"block{index}" for index in range(1, self.last_index)), "last")[: stages[frozen_stages]]
        outputs = [features[index][kind] for index, kind in kinds]
        super().__init__(inputs, outputs, is_frozen=lambda name: name in names, **kwargs)

    @property
    def strides(self):
        """Pixels from one cell to the next, of each feature."""
        return self._strides

    def _check(self, stages):
        indices, last = self._feature_indices, self.last_index
        if not indices or list(indices) != sorted(set(indices)) or indices[0] < 0 or indices[-1] > last:
            raise ValueError(f"`feature_indices` {indices} must ascend from 0 (the stem) or more to {last} at most")
        if not set(self._expanded_features) <= set(indices) - {0, last}:
            raise ValueError(
                f"`expanded_features` {self._expanded_features} must be some of `feature_indices` {indices}, neither "
                f"0 (the stem) nor {last} (the last convolution)"
            )
        if not 0 <= self._frozen_stages <= stages:
            raise ValueError(f"`frozen_stages` {self._frozen_stages} must be 0 (train all) to {stages} (all frozen)")
        check_output_stride(self._output_stride)

    def _convolution(self, x, filters, kernel_size, activation, name, *, strides=1):
        return ConvolutionBlock(
            filters,
            kernel_size,
            strides=strides,
            activation=activation,
            kernel_initializer=keras.initializers.VarianceScaling(**_INITIALIZER),
            name=name,
            **self._normalization_options,
        )(x)

    def _block(self, x, block, strides, dilation, index, return_expanded):
        return InvertedResidual(
            block.filters,
            block.expanded_filters,
            kernel_size=block.kernel_size,
            strides=strides,
            dilation=dilation,
            squeeze_filters=block.squeeze_filters,
            activation=block.activation,
            residual=block.strides == 1,  # a block that lost its stride does not gain a residual sum
            return_expanded=return_expanded,
            kernel_initializer=keras.initializers.VarianceScaling(**_INITIALIZER),
            name=f"block{index}",
            **self._normalization_options,
        )(x)

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
            "feature_indices": self._feature_indices,
            "expanded_features": self._expanded_features,
            "normalization": self._normalization,
            "epsilon": self._epsilon,
            "momentum": self._momentum,
            "frozen_stages": self._frozen_stages,
            "output_stride": self._output_stride,
            "dilate_first_blocks": self._dilate_first_blocks,
            **super().get_config(),
        }

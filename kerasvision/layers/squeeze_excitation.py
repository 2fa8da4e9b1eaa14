"""Squeeze and excitation: channels weighted by what the whole image holds."""

import keras
from keras import ops

from kerasvision.layers.convolution import ConvolutionBlock
from kerasvision.layers.trainability import pass_on_frozen


@keras.saving.register_keras_serializable("kerasvision")
class SqueezeExcitation(keras.layers.Layer):
    """Multiply each channel by a number that two small layers make of the means of all channels.

    Args:
        squeeze_filters: Channels between the two layers: C / 16 in the paper, C / 4 rounded to a multiple of 8 in
            MobileNetV3, a quarter of the block's input channels in EfficientNet.
        activation: After the first layer: name of a Keras activation; ``"silu"`` in EfficientNet.
        gate: After the second: ``"sigmoid"``, or ``"hard_sigmoid"``, clip(x / 6 + 1/2, 0, 1), in MobileNetV3.

    Call: (B, H, W, C); returns the same shape. NaN anywhere in an image makes all of it NaN.

    Source: Hu et al. 2018, https://arxiv.org/abs/1709.01507; torchvision/ops/misc.py, `SqueezeExcitation`.
    """

    def __init__(self, squeeze_filters, *, activation="relu", gate="sigmoid", **kwargs):
        super().__init__(**kwargs)
        if squeeze_filters < 1:
            raise ValueError(f"`squeeze_filters` {squeeze_filters} must be 1 or more")
        self.squeeze_filters = squeeze_filters
        self.activation = keras.activations.get(activation)
        self.gate = keras.activations.get(gate)
        self.reduce = ConvolutionBlock(
            squeeze_filters, 1, activation=self.activation, name="reduce", dtype=self.dtype_policy
        )

    def build(self, input_shape):
        """Create the two layers."""
        channels = input_shape[-1]
        self.expand = ConvolutionBlock(channels, 1, activation=self.gate, name="expand", dtype=self.dtype_policy)
        self.reduce.build((input_shape[0], 1, 1, channels))
        self.expand.build((input_shape[0], 1, 1, self.squeeze_filters))
        pass_on_frozen(self)

    def call(self, inputs):
        """Weight the channels of `inputs`."""
        # In float32: half precision would neither hold nor resolve the sum over a map.
        mean = ops.mean(ops.cast(inputs, "float32"), axis=(1, 2), keepdims=True)  # (B, 1, 1, C)
        return inputs * self.expand(self.reduce(ops.cast(mean, self.compute_dtype)))

    def compute_output_shape(self, input_shape):
        """Return `input_shape`."""
        return input_shape

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "squeeze_filters": self.squeeze_filters,
            "activation": keras.activations.serialize(self.activation),
            "gate": keras.activations.serialize(self.gate),
        }

"""Cross-stage partial block: half of the channels take the long way, half the short one."""

import keras
from keras import ops

from kerasvision.layers.convolution import ConvolutionBlock
from kerasvision.layers.separable_convolution import SeparableConvolutionBlock
from kerasvision.layers.trainability import pass_on_frozen


@keras.saving.register_keras_serializable("kerasvision")
class CSPBlock(keras.layers.Layer):
    """Bottlenecks over one projection of the input, joined with another projection (YOLOv5's C3, YOLOX's CSPLayer).

    ```
    input -- 1x1 -- bottleneck x repeats --+-- concatenate -- 1x1 -> output
          '- 1x1 --------------------------'
    bottleneck: 1x1 -- 3x3, plus its input if `shortcut`
    ```

    Args:
        filters: Number of output channels.
        repeats: Number of bottlenecks; 0 or more.
        shortcut: Whether each bottleneck adds its input.
        expansion: Channels of each way, as a share of `filters`, rounded down.
        depthwise: Whether the 3x3 convolutions are depthwise ones and 1x1, as in YOLOX-nano.
        activation: Name of a Keras activation, after every convolution.
        normalization: After every convolution, as in `ConvolutionBlock`.
        epsilon: Added to the variance by the normalisation; 1e-3 in YOLOv5 and YOLOX.
        momentum: Share of the old moving average that batch normalisation keeps; 0.97 in YOLOv5 and YOLOX.

    Call: (B, H, W, C); returns (B, H, W, filters).

    Raises:
        ValueError: `repeats` is below 0, or no channel is left for each way.

    Source: Wang et al. 2019, https://arxiv.org/abs/1911.11929; yolox/models/network_blocks.py, `CSPLayer`.
    """

    def __init__(
        self,
        filters,
        repeats=1,
        *,
        shortcut=True,
        expansion=0.5,
        depthwise=False,
        activation="silu",
        normalization="batch",
        epsilon=1e-3,
        momentum=0.97,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.repeats = repeats
        self.shortcut = shortcut
        self.expansion = expansion
        self.depthwise = depthwise
        self.activation = keras.activations.get(activation)
        self.normalization = normalization
        self.epsilon = epsilon
        self.momentum = momentum
        self._hidden = int(filters * expansion)
        if repeats < 0:
            raise ValueError(f"`repeats` {repeats!r} must be 0 or more")
        if self._hidden < 1:
            raise ValueError(f"`expansion` {expansion!r} of {filters} `filters` leaves no channel; use at least 1")
        self.long_way = self._convolution(self._hidden, 1, "long_way")
        self.short_way = self._convolution(self._hidden, 1, "short_way")
        self.output_convolution = self._convolution(filters, 1, "output_convolution")
        self.reductions = [self._convolution(self._hidden, 1, f"reduction_{i}") for i in range(repeats)]
        self.convolutions = [self._convolution(self._hidden, 3, f"convolution_{i}") for i in range(repeats)]

    def _convolution(self, filters, kernel_size, name):
        return convolution_unit(
            filters,
            kernel_size,
            depthwise=self.depthwise and kernel_size > 1,
            normalization=self.normalization,
            epsilon=self.epsilon,
            momentum=self.momentum,
            activation=self.activation,
            name=name,
            dtype=self.dtype_policy,
        )

    def build(self, input_shape):
        """Build all convolutions."""
        hidden = (*input_shape[:-1], self._hidden)
        self.long_way.build(input_shape)
        self.short_way.build(input_shape)
        for block in (*self.reductions, *self.convolutions):
            block.build(hidden)
        self.output_convolution.build((*input_shape[:-1], 2 * self._hidden))
        pass_on_frozen(self)

    def call(self, inputs, training=None):
        """Convolve both ways and join them."""
        features = self.long_way(inputs, training=training)
        for reduction, convolution in zip(self.reductions, self.convolutions, strict=True):
            outputs = convolution(reduction(features, training=training), training=training)
            features = features + outputs if self.shortcut else outputs
        joined = ops.concatenate([features, self.short_way(inputs, training=training)], axis=-1)
        return self.output_convolution(joined, training=training)

    def compute_output_shape(self, input_shape):
        """Return (B, H, W, filters)."""
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "repeats": self.repeats,
            "shortcut": self.shortcut,
            "expansion": self.expansion,
            "depthwise": self.depthwise,
            "activation": keras.activations.serialize(self.activation),
            "normalization": self.normalization,
            "epsilon": self.epsilon,
            "momentum": self.momentum,
        }


def convolution_unit(filters, kernel_size, *, depthwise, normalization, activation, **options):
    """Return a `ConvolutionBlock`, or a depthwise and a 1x1 one, each with its normalisation and activation."""
    options |= {"normalization": normalization, "activation": activation}
    if not depthwise:
        return ConvolutionBlock(filters, kernel_size, **options)
    return SeparableConvolutionBlock(
        filters, kernel_size, depthwise_normalization=normalization, depthwise_activation=activation, **options
    )

"""Depthwise and 1x1 convolution as one layer."""

import keras

from kerasvision.layers.convolution import ConvolutionBlock, DepthwiseConvolutionBlock, Padding
from kerasvision.layers.trainability import pass_on_frozen


@keras.saving.register_keras_serializable("kerasvision")
class SeparableConvolutionBlock(keras.layers.Layer):
    """A depthwise convolution, then a 1x1 convolution; with `dilation`, the atrous separable convolution.

    Args:
        filters: Number of output channels.
        kernel_size: Side of the depthwise kernels.
        strides: Of the depthwise convolution; above 1 only with a dilation of 1.
        dilation: Pixels between the taps of the depthwise kernels.
        padding: Of the depthwise convolution, as in `ConvolutionBlock`.
        normalization: After the 1x1 convolution, as in `ConvolutionBlock`.
        depthwise_normalization: Between the two: ``None`` in EfficientDet and segmentation_models.pytorch, ``"batch"``
            in MobileNet, SSDlite and DeepLabV3+ in TensorFlow.
        epsilon: Added to the variance by both normalisations.
        momentum: Share of the old moving average that batch normalisation keeps at each step.
        activation: After the 1x1 convolution: name of a Keras activation, or ``None``.
        depthwise_activation: Between the two.
        use_bias: Whether the 1x1 convolution has a bias; default: only without normalisation. EfficientDet has both.
        kernel_initializer: Of the 1x1 convolution.
        bias_initializer: Of the 1x1 convolution.

    Call: (B, H, W, C); returns (B, ceil(H / strides), ceil(W / strides), filters) for odd kernels and the default
    padding. The depthwise convolution never has a bias of its own: `depthwise`, then `pointwise`.

    Raises:
        ValueError: As in `ConvolutionBlock`.

    Source: Chollet 2017, https://arxiv.org/abs/1610.02357; atrous: Chen et al. 2018, section 3.1,
    https://arxiv.org/abs/1802.02611.
    """

    def __init__(
        self,
        filters,
        kernel_size=3,
        *,
        strides=1,
        dilation=1,
        padding: Padding = None,
        normalization=None,
        depthwise_normalization=None,
        epsilon=1e-5,
        momentum=0.9,
        activation=None,
        depthwise_activation=None,
        use_bias=None,
        kernel_initializer: str | keras.Initializer = "he_normal",
        bias_initializer: str | keras.Initializer = "zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.dilation = dilation
        self.padding = padding
        self.normalization = normalization
        self.depthwise_normalization = depthwise_normalization
        self.epsilon = epsilon
        self.momentum = momentum
        self.activation = keras.activations.get(activation)
        self.depthwise_activation = keras.activations.get(depthwise_activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        common = {"epsilon": epsilon, "momentum": momentum, "dtype": self.dtype_policy}
        self.depthwise = DepthwiseConvolutionBlock(
            kernel_size,
            strides=strides,
            dilation=dilation,
            padding=padding,
            normalization=depthwise_normalization,
            activation=depthwise_activation,
            use_bias=False,
            name="depthwise",
            **common,
        )
        self.pointwise = ConvolutionBlock(
            filters,
            1,
            normalization=normalization,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=self.kernel_initializer,
            bias_initializer=self.bias_initializer,
            name="pointwise",
            **common,
        )

    def build(self, input_shape):
        """Build both convolutions."""
        self.depthwise.build(input_shape)
        self.pointwise.build(self.depthwise.compute_output_shape(input_shape))
        pass_on_frozen(self)

    def call(self, inputs, training=None):
        """Convolve channel by channel, then pixel by pixel."""
        return self.pointwise(self.depthwise(inputs, training=training), training=training)

    def compute_output_shape(self, input_shape):
        """Return (B, H', W', filters)."""
        return self.pointwise.compute_output_shape(self.depthwise.compute_output_shape(input_shape))

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "dilation": self.dilation,
            "padding": self.padding,
            "normalization": self.normalization,
            "depthwise_normalization": self.depthwise_normalization,
            "epsilon": self.epsilon,
            "momentum": self.momentum,
            "activation": keras.activations.serialize(self.activation),
            "depthwise_activation": keras.activations.serialize(self.depthwise_activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }

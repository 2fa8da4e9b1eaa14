"""Inverted residuals: expand, filter channel by channel, reduce."""

import keras

from kerasvision.layers.convolution import ConvolutionBlock, DepthwiseConvolutionBlock
from kerasvision.layers.squeeze_excitation import SqueezeExcitation
from kerasvision.layers.trainability import pass_on_frozen


@keras.saving.register_keras_serializable("kerasvision")
class InvertedResidual(keras.layers.Layer):
    """The block of MobileNetV2 and V3: narrow at its ends, wide where each channel is filtered alone.

    ```
    x -- 1x1, wider -- depthwise k x k -- squeeze and excite -- 1x1, narrower -- (+ x) ->
    ```

    Args:
        filters: Number of output channels.
        expanded_filters: Channels of the depthwise convolution; the first 1x1 convolution is left out where the input
            has as many.
        kernel_size: Side of the depthwise kernels.
        strides: Of the depthwise convolution; above 1 only with a dilation of 1.
        dilation: Of the depthwise convolution.
        squeeze_filters: Channels inside the squeeze-and-excitation; ``None``, as in MobileNetV2, for none.
        activation: After the first two convolutions: name of a Keras activation, ``"relu6"`` in MobileNetV2.
        residual: Whether to add the input where nothing prevents it: strides of 1, and as many channels as `filters`.
        return_expanded: Whether to return what goes into the depthwise convolution as well.
        normalization: After every convolution, as in `ConvolutionBlock`.
        epsilon: Added to the variance by the normalisation.
        momentum: Share of the old moving average that batch normalisation keeps at each step.
        kernel_initializer: Of the 1x1 convolutions.

    Call: (B, H, W, C); returns (B, ceil(H / strides), ceil(W / strides), filters) for odd kernels; with
    `return_expanded` a list of that and (B, H, W, expanded_filters).

    Raises:
        ValueError: Strides and dilation both above 1, an unknown normalisation.

    Source: Sandler et al. 2018, figure 4d, https://arxiv.org/abs/1801.04381; with squeeze-and-excitation: Howard et
    al. 2019, figure 4, https://arxiv.org/abs/1905.02244. Reference: torchvision/models/mobilenetv2.py and
    mobilenetv3.py, `InvertedResidual`.
    """

    def __init__(
        self,
        filters,
        expanded_filters,
        *,
        kernel_size=3,
        strides=1,
        dilation=1,
        squeeze_filters=None,
        activation="relu6",
        residual=True,
        return_expanded=False,
        normalization="batch",
        epsilon=1e-5,
        momentum=0.9,
        kernel_initializer: str | keras.Initializer = "he_normal",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.expanded_filters = expanded_filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.dilation = dilation
        self.squeeze_filters = squeeze_filters
        self.activation = keras.activations.get(activation)
        self.residual = residual
        self.return_expanded = return_expanded
        self.normalization = normalization
        self.epsilon = epsilon
        self.momentum = momentum
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self._common = {
            "normalization": normalization,
            "epsilon": epsilon,
            "momentum": momentum,
            "use_bias": False,
            "dtype": self.dtype_policy,
        }
        self.depthwise = DepthwiseConvolutionBlock(
            kernel_size,
            strides=strides,
            dilation=dilation,
            activation=self.activation,
            name="depthwise",
            **self._common,
        )
        self.squeeze = None
        if squeeze_filters is not None:
            self.squeeze = SqueezeExcitation(
                squeeze_filters, gate="hard_sigmoid", name="squeeze", dtype=self.dtype_policy
            )
        self.project = self._pointwise(filters, None, "project")

    def _pointwise(self, filters, activation, name):
        initializer = self.kernel_initializer.clone()  # one that is used twice would draw the same numbers
        return ConvolutionBlock(
            filters, 1, activation=activation, kernel_initializer=initializer, name=name, **self._common
        )

    def build(self, input_shape):
        """Build all that is needed for so many channels."""
        channels = input_shape[-1]
        self.expand = None
        if channels != self.expanded_filters:
            self.expand = self._pointwise(self.expanded_filters, self.activation, "expand")
            self.expand.build(input_shape)
        self.adds = self.residual and self.strides == 1 and channels == self.filters
        expanded = (*input_shape[:-1], self.expanded_filters)
        self.depthwise.build(expanded)
        filtered = self.depthwise.compute_output_shape(expanded)
        if self.squeeze is not None:
            self.squeeze.build(filtered)
        self.project.build(filtered)
        pass_on_frozen(self)

    def call(self, inputs, training=None):
        """Expand, filter and reduce `inputs`."""
        expanded = inputs if self.expand is None else self.expand(inputs, training=training)
        outputs = self.depthwise(expanded, training=training)
        if self.squeeze is not None:
            outputs = self.squeeze(outputs)
        outputs = self.project(outputs, training=training)
        if self.adds:
            outputs = outputs + inputs
        return [outputs, expanded] if self.return_expanded else outputs

    def compute_output_shape(self, input_shape):
        """Return (B, H', W', filters), and (B, H, W, expanded_filters) with `return_expanded`."""
        expanded = (*input_shape[:-1], self.expanded_filters)
        shape = (*self.depthwise.compute_output_shape(expanded)[:-1], self.filters)
        return [shape, expanded] if self.return_expanded else shape

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "expanded_filters": self.expanded_filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "dilation": self.dilation,
            "squeeze_filters": self.squeeze_filters,
            "activation": keras.activations.serialize(self.activation),
            "residual": self.residual,
            "return_expanded": self.return_expanded,
            "normalization": self.normalization,
            "epsilon": self.epsilon,
            "momentum": self.momentum,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }

"""Convolution, normalisation and activation as one layer, padded as PyTorch pads."""

from typing import Any, Literal

import keras
from keras import ops

from kerasvision.layers.normalization import FrozenBatchNormalization, inference_affine, make_normalization
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.ops.atrous import atrous_convolution, depthwise_convolution
from kerasvision.ops.bias import add_bias

Padding = int | Literal["same"] | None


class _NormalizedConvolution(keras.layers.Layer):
    """What dense and depthwise convolution blocks have in common: all but the kernel's shape."""

    def __init__(
        self,
        kernel_size,
        *,
        strides,
        dilation,
        padding: Padding,
        normalization,
        epsilon,
        momentum,
        activation,
        use_bias,
        kernel_initializer,
        bias_initializer,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if strides > 1 and dilation > 1:
            raise ValueError(
                f"`strides` {strides} and `dilation` {dilation} cannot both be above 1; set one of them to 1"
            )
        if padding not in (None, "same") and (not isinstance(padding, int) or padding < 0):
            raise ValueError(
                f"`padding` {padding!r} must be a number of pixels, 0 or more, 'same', or None for the default"
            )
        self.kernel_size = kernel_size
        self.strides = strides
        self.dilation = dilation
        self.padding = padding
        self.normalization_kind = normalization
        self.epsilon = epsilon
        self.momentum = momentum
        self.activation = keras.activations.get(activation)
        self.use_bias = normalization is None if use_bias is None else use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.normalization = make_normalization(
            normalization, epsilon=epsilon, momentum=momentum, dtype=self.dtype_policy
        )

    def _build(self, input_shape, kernel_channels, filters):
        """Create the kernel (k, k, *kernel_channels), the bias (filters,) and the normalisation's vectors."""
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.kernel_size, self.kernel_size, *kernel_channels),
            initializer=self.kernel_initializer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(filters,), initializer=self.bias_initializer)
        if self.normalization is not None:
            self.normalization.build((*input_shape[:-1], filters))
        pass_on_frozen(self)

    def call(self, inputs, training=None):
        """Convolve, normalise and activate `inputs`."""
        kernel, shift = self.kernel, self.bias
        normalization: Any = self.normalization
        folds = isinstance(normalization, FrozenBatchNormalization) or (
            isinstance(normalization, keras.layers.BatchNormalization) and (not training or not normalization.trainable)
        )
        if folds:
            scale, norm_shift = inference_affine(normalization)
            kernel = self._scaled(kernel, ops.cast(scale, kernel.dtype))
            shift = norm_shift if shift is None else norm_shift + shift * scale
            normalization = None  # it is done with the convolution

        def finish(outputs):
            if shift is not None:
                outputs = add_bias(outputs, shift)
            return self.activation(outputs) if normalization is None else outputs

        outputs = self._pad_and_convolve(inputs, kernel, finish, training)
        if normalization is None:
            return outputs
        return self.activation(normalization(outputs, training=training))

    def _scaled(self, kernel, scale):
        """Return the kernel whose outputs are `scale` (filters,) times as large."""
        raise NotImplementedError

    def _pad_and_convolve(self, inputs, kernel, finish, training):
        """Return what `finish` makes of the outputs: it looks at each pixel by itself."""
        raise NotImplementedError

    @property
    def _margin(self):
        """Pixels of zeros on each side; what ``"same"`` adds depends on the input."""
        return self.dilation * (self.kernel_size - 1) // 2 if self.padding is None else self.padding

    def _output_shape(self, input_shape, filters):
        reach = self.dilation * (self.kernel_size - 1)

        def output_size(size):
            if size is None:
                return None
            if self.padding == "same":
                return -(-size // self.strides)
            return (size + 2 * self._margin - reach - 1) // self.strides + 1

        return (input_shape[0], *map(output_size, input_shape[1:3]), filters)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "dilation": self.dilation,
            "padding": self.padding,
            "normalization": self.normalization_kind,
            "epsilon": self.epsilon,
            "momentum": self.momentum,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


@keras.saving.register_keras_serializable("kerasvision")
class ConvolutionBlock(_NormalizedConvolution):
    """2D convolution, then optional normalisation and activation.

    Pads every side alike, as the reference implementations in PyTorch do; Keras's "same" differs from that where the
    stride is above 1. Batch normalisation that works with fixed statistics (at inference, or frozen) is folded into
    the kernel on the fly: the feature map is touched once instead of twice. With `dilation`, this is the atrous
    convolution of DeepLab (Chen et al. 2017, https://arxiv.org/abs/1606.00915).

    Args:
        filters: Number of output channels.
        kernel_size: Side of the square kernel.
        strides: Pixels from one output to the next; above 1 only with a dilation of 1.
        dilation: Pixels between the kernel's taps; above 1 only with strides of 1.
        padding: Pixels of zeros on each side; default: `dilation * (kernel_size - 1) // 2`. ``"same"`` as in Keras
            and in weights from TensorFlow: what is odd goes to the bottom and right.
        normalization: ``"batch"``, ``"sync_batch"``, ``"frozen_batch"``, ``"group"`` or ``None``.
        epsilon: Added to the variance by the normalisation.
        momentum: Share of the old moving average that batch normalisation keeps at each step.
        activation: Name of a Keras activation, or ``None``.
        use_bias: Whether the convolution has a bias; default: only without normalisation.
        kernel_initializer: Keras initialiser of the kernel.
        bias_initializer: Keras initialiser of the bias.

    Call: (B, H, W, C); returns (B, ceil(H / strides), ceil(W / strides), filters) for odd kernels and the default
    padding.

    Raises:
        ValueError: Strides and dilation both above 1, a negative padding, an unknown normalisation.
    """

    def __init__(
        self,
        filters,
        kernel_size,
        *,
        strides=1,
        dilation=1,
        padding: Padding = None,
        normalization=None,
        epsilon=1e-5,
        momentum=0.9,
        activation=None,
        use_bias=None,
        kernel_initializer: str | keras.Initializer = "he_normal",
        bias_initializer: str | keras.Initializer = "zeros",
        **kwargs,
    ):
        super().__init__(
            kernel_size,
            strides=strides,
            dilation=dilation,
            padding=padding,
            normalization=normalization,
            epsilon=epsilon,
            momentum=momentum,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            **kwargs,
        )
        self.filters = filters

    def build(self, input_shape):
        """Create the kernel (k, k, C, filters), the bias (filters,) and the normalisation's vectors."""
        self._build(input_shape, (input_shape[-1], self.filters), self.filters)

    def _scaled(self, kernel, scale):
        return kernel * scale

    def _pad_and_convolve(self, inputs, kernel, finish, training):
        margin = 0 if self.padding == "same" else self._margin
        same = self.padding == "same" or (self.strides == 1 and 2 * margin == self.dilation * (self.kernel_size - 1))
        if same and self.dilation > 1 and self.kernel_size % 2:
            return finish(atrous_convolution(inputs, kernel, self.dilation))
        if margin and not same:
            inputs = ops.pad(inputs, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
        outputs = ops.conv(
            inputs,
            kernel,
            strides=self.strides,
            padding="same" if same else "valid",
            data_format="channels_last",
            dilation_rate=self.dilation,
        )
        return finish(outputs)

    def compute_output_shape(self, input_shape):
        """Return (B, H', W', filters)."""
        return self._output_shape(input_shape, self.filters)

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable("kerasvision")
class DepthwiseConvolutionBlock(_NormalizedConvolution):
    """2D convolution of each channel with its own kernel, then optional normalisation and activation.

    The middle of MobileNet's and EfficientNet's inverted residuals. Pads, and folds batch normalisation, as
    `ConvolutionBlock` does.

    Args:
        kernel_size: Side of the square kernels.
        strides: As in `ConvolutionBlock`, and so are all the others.
        dilation: See there.
        padding: See there.
        normalization: See there.
        epsilon: See there.
        momentum: See there.
        activation: See there.
        use_bias: See there.
        kernel_initializer: Of the kernels (k, k, C, 1). The default has the variance 2 / k^2, as `he_normal` would
            have it if it knew that each output sees one channel only.
        bias_initializer: See there.

    Call: (B, H, W, C); returns (B, ceil(H / strides), ceil(W / strides), C) for odd kernels and the default padding.

    Raises:
        ValueError: As in `ConvolutionBlock`.
    """

    def __init__(
        self,
        kernel_size,
        *,
        strides=1,
        dilation=1,
        padding: Padding = None,
        normalization=None,
        epsilon=1e-5,
        momentum=0.9,
        activation=None,
        use_bias=None,
        kernel_initializer: str | keras.Initializer | None = None,
        bias_initializer: str | keras.Initializer = "zeros",
        **kwargs,
    ):
        if kernel_initializer is None:
            kernel_initializer = keras.initializers.RandomNormal(stddev=(2 / kernel_size**2) ** 0.5)
        super().__init__(
            kernel_size,
            strides=strides,
            dilation=dilation,
            padding=padding,
            normalization=normalization,
            epsilon=epsilon,
            momentum=momentum,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            **kwargs,
        )

    def build(self, input_shape):
        """Create the kernels (k, k, C, 1), the bias (C,) and the normalisation's vectors."""
        self._build(input_shape, (input_shape[-1], 1), input_shape[-1])

    def _scaled(self, kernel, scale):
        return kernel * ops.expand_dims(scale, -1)

    def _pad_and_convolve(self, inputs, kernel, finish, training):
        return depthwise_convolution(
            inputs,
            kernel,
            strides=self.strides,
            padding="same" if self.padding == "same" else self._margin,
            dilation=self.dilation,
            finish=finish,
            training=bool(training),
        )

    def compute_output_shape(self, input_shape):
        """Return (B, H', W', C)."""
        return self._output_shape(input_shape, input_shape[-1])

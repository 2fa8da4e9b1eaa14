"""Convolution, normalisation and activation as one layer, padded as PyTorch pads."""

from typing import Any

import keras
from keras import ops

from kerasvision.layers.normalization import FrozenBatchNormalization, inference_affine, make_normalization
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.ops.bias import add_bias


@keras.saving.register_keras_serializable("kerasvision")
class ConvolutionBlock(keras.layers.Layer):
    """2D convolution, then optional normalisation and activation.

    Pads every side alike, as the reference implementations in PyTorch do; Keras's "same" differs from that where the
    stride is above 1. Batch normalisation that works with
    fixed statistics (at inference, or frozen) is folded into the kernel on the fly: the feature map is
    touched once instead of twice.

    Args:
        filters: Number of output channels.
        kernel_size: Side of the square kernel.
        strides: Pixels from one output to the next; above 1 only with a dilation of 1.
        dilation: Pixels between the kernel's taps; above 1 only with strides of 1.
        padding: Pixels of zeros on each side; default: `dilation * (kernel_size - 1) // 2`.
        normalization: ``"batch"``, ``"sync_batch"``, ``"frozen_batch"``, ``"group"`` or ``None``.
        epsilon: Added to the variance by the normalisation.
        momentum: Share of the old moving average that batch normalisation keeps at each step.
        activation: Name of a Keras activation, or ``None``.
        use_bias: Whether the convolution has a bias; default: only without normalisation.
        kernel_initializer: Keras initialiser of the kernel.
        bias_initializer: Keras initialiser of the bias.

    Call: (B, H, W, C); returns (B, ceil(H / strides), ceil(W / strides), filters) for odd kernels and the default
    padding.
    """

    def __init__(
        self,
        filters,
        kernel_size,
        *,
        strides=1,
        dilation=1,
        padding=None,
        normalization=None,
        epsilon=1e-5,
        momentum=0.9,
        activation=None,
        use_bias=None,
        kernel_initializer: str | keras.Initializer = "he_normal",
        bias_initializer: str | keras.Initializer = "zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if strides > 1 and dilation > 1:
            raise ValueError(
                f"`strides` {strides} and `dilation` {dilation} cannot both be above 1; set one of them to 1"
            )
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.dilation = dilation
        if padding is not None and (not isinstance(padding, int) or padding < 0):
            raise ValueError(f"`padding` {padding!r} must be a number of pixels, 0 or more, or None for the default")
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

    def build(self, input_shape):
        """Create the kernel (k, k, C, filters), the bias (filters,) and the normalisation's vectors."""
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.kernel_size, self.kernel_size, input_shape[-1], self.filters),
            initializer=self.kernel_initializer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer=self.bias_initializer)
        if self.normalization is not None:
            self.normalization.build((*input_shape[:-1], self.filters))
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
            kernel = kernel * ops.cast(scale, kernel.dtype)
            shift = norm_shift if shift is None else norm_shift + shift * scale
        outputs = self._convolve(inputs, kernel)
        if shift is not None:
            outputs = add_bias(outputs, shift)
        if normalization is not None and not folds:
            outputs = normalization(outputs, training=training)
        return self.activation(outputs)

    @property
    def _margin(self):
        """Pixels of zeros on each side."""
        return self.dilation * (self.kernel_size - 1) // 2 if self.padding is None else self.padding

    def _convolve(self, inputs, kernel):
        margin = self._margin
        keeps_size = 2 * margin == self.dilation * (self.kernel_size - 1) and self.strides == 1
        padding = "same" if keeps_size else "valid"
        if margin and padding == "valid":
            inputs = ops.pad(inputs, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
        return ops.conv(inputs, kernel, strides=self.strides, padding=padding, dilation_rate=self.dilation)

    def compute_output_shape(self, input_shape):
        """Return (B, H', W', filters)."""
        reach = self.dilation * (self.kernel_size - 1)
        height, width = (
            None if size is None else (size + 2 * self._margin - reach - 1) // self.strides + 1
            for size in input_shape[1:3]
        )
        return (input_shape[0], height, width, self.filters)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
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

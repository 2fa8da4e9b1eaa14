"""The building blocks of U-Net: the double convolution, the step down and the step up."""

from typing import Literal

import keras
from keras import ops

from kerasvision.layers.convolution import ConvolutionBlock
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.ops.nearest import crop_like, double_nearest, halved, resize_nearest_like


@keras.saving.register_keras_serializable("kerasvision")
class UNetDoubleConvolution(keras.layers.Layer):
    """Two 3x3 convolutions of the same width, each followed by normalisation (if any) and ReLU.

    Args:
        filters: Number of output channels of both convolutions.
        normalization: As in `ConvolutionBlock`; ``None`` as in the 2015 paper.

    Call: (B, H, W, C); returns (B, H, W, filters).
    """

    def __init__(self, filters, *, normalization=None, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.normalization = normalization
        self.first, self.second = (
            ConvolutionBlock(
                filters, 3, normalization=normalization, activation="relu", name=name, dtype=self.dtype_policy
            )
            for name in ("first", "second")
        )

    def build(self, input_shape):
        """Build both convolutions."""
        self.first.build(input_shape)
        self.second.build((*input_shape[:-1], self.filters))
        pass_on_frozen(self)

    def call(self, inputs, training=None):
        """Convolve twice."""
        return self.second(self.first(inputs, training=training), training=training)

    def compute_output_shape(self, input_shape):
        """Return (B, H, W, filters)."""
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "filters": self.filters, "normalization": self.normalization}


@keras.saving.register_keras_serializable("kerasvision")
class UNetEncoderBlock(keras.layers.Layer):
    """One step of the contracting path: 2x2 max pooling, then two convolutions.

    Args:
        filters: Number of output channels.
        normalization: As in `ConvolutionBlock`; ``None`` as in the 2015 paper.

    Call: (B, H, W, C); returns (B, ceil(H / 2), ceil(W / 2), filters).

    Source: Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597, figure 1.
    """

    def __init__(self, filters, *, normalization=None, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.normalization = normalization
        self.convolutions = UNetDoubleConvolution(
            filters, normalization=normalization, name="convolutions", dtype=self.dtype_policy
        )

    def build(self, input_shape):
        """Build the double convolution."""
        self.convolutions.build(input_shape)
        pass_on_frozen(self)

    def call(self, inputs, training=None):
        """Step down."""
        pooled = ops.max_pool(inputs, 2, strides=2, padding="same", data_format="channels_last")
        return self.convolutions(pooled, training=training)

    def compute_output_shape(self, input_shape):
        """Return (B, ceil(H / 2), ceil(W / 2), filters)."""
        return (input_shape[0], *map(halved, input_shape[1:3]), self.filters)

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "filters": self.filters, "normalization": self.normalization}


@keras.saving.register_keras_serializable("kerasvision")
class UNetDecoderBlock(keras.layers.Layer):
    """One step of the expanding path: double the resolution, join the skip connection, convolve twice.

    Args:
        filters: Number of output channels.
        upsampling: ``"transpose"``, a learned 2x2 up-convolution to `filters` channels as in the 2015 paper, or
            ``"nearest"``, repeating pixels, as in segmentation_models.pytorch.
        normalization: As in `ConvolutionBlock`.

    Call: features (B, H, W, C) and optionally a skip connection (B, H', W', S), H' being 2H, or 2H - 1 where an odd
    size was halved and rounded up, and W' likewise; returns (B, H', W', filters), without a skip (B, 2H, 2W, filters).

    Raises:
        ValueError: An unknown `upsampling`; a skip connection larger than twice the features.
    """

    def __init__(
        self, filters, *, upsampling: Literal["transpose", "nearest"] = "nearest", normalization=None, **kwargs
    ):
        super().__init__(**kwargs)
        if upsampling not in ("transpose", "nearest"):
            raise ValueError(f"`upsampling` {upsampling!r} is unknown; use 'transpose' or 'nearest'")
        self.filters = filters
        self.upsampling = upsampling
        self.normalization = normalization
        self.up = None
        if upsampling == "transpose":
            self.up = keras.layers.Conv2DTranspose(
                filters,
                2,
                strides=2,
                kernel_initializer="he_normal",
                name="up",
                dtype=self.dtype_policy,
                data_format="channels_last",
            )
        self.convolutions = UNetDoubleConvolution(
            filters, normalization=normalization, name="convolutions", dtype=self.dtype_policy
        )

    def build(self, inputs_shape, skip_shape=None):
        """Build the up-convolution and the double convolution.

        Keras matches these arguments with those of `call` by name: `inputs` and `inputs_shape`.
        """
        channels = inputs_shape[-1]
        if self.up is not None:
            self.up.build(inputs_shape)
            channels = self.filters
        skip_channels = 0 if skip_shape is None else skip_shape[-1]
        self.convolutions.build((*inputs_shape[:-1], channels + skip_channels))
        pass_on_frozen(self)

    def call(self, inputs, skip=None, training=None):
        """Step up."""
        if skip is None:
            outputs = double_nearest(inputs) if self.up is None else self.up(inputs)
            return self.convolutions(outputs, training=training)
        self._check_sizes(inputs, skip)
        outputs = resize_nearest_like(inputs, skip) if self.up is None else crop_like(self.up(inputs), skip)
        return self.convolutions(ops.concatenate([outputs, skip], axis=-1), training=training)

    def _check_sizes(self, inputs, skip):
        for coarse, fine in zip(inputs.shape[1:3], skip.shape[1:3], strict=True):
            if coarse is not None and fine is not None and fine not in (2 * coarse, 2 * coarse - 1):
                raise ValueError(
                    f"`skip` of {tuple(skip.shape[1:3])} pixels does not fit features of {tuple(inputs.shape[1:3])}; "
                    "it must be twice as large, or one less where a size was halved and rounded up"
                )

    def compute_output_shape(self, inputs_shape, skip_shape=None):
        """Return (B, H', W', filters)."""
        if skip_shape is not None:
            return (*skip_shape[:-1], self.filters)
        sizes = (None if size is None else 2 * size for size in inputs_shape[1:3])
        return (inputs_shape[0], *sizes, self.filters)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "upsampling": self.upsampling,
            "normalization": self.normalization,
        }

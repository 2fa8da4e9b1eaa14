"""The building blocks of U-Net: the double convolution, the step down and the step up."""

from typing import Any, Literal

import keras
from keras import ops

from kerasvision.layers.convolution import ConvolutionBlock
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.ops.interpolation import resize_bilinear
from kerasvision.ops.nearest import crop_centre_like, double_nearest, fit_to, halved, resize_nearest_like

Padding = Literal["same", "valid"]
Upsampling = Literal["transpose", "nearest", "bilinear", "bilinear_convolution"]
_UPSAMPLING = ("transpose", "nearest", "bilinear", "bilinear_convolution")


def _check_padding(padding):
    if padding not in ("same", "valid"):
        raise ValueError(f"`padding` {padding!r} is unknown; use 'same' or 'valid'")


@keras.saving.register_keras_serializable("kerasvision")
class UNetDoubleConvolution(keras.layers.Layer):
    """Two 3x3 convolutions, each followed by normalisation (if any) and ReLU.

    Args:
        filters: Number of output channels.
        mid_filters: Channels between the two convolutions; default: `filters`.
        normalization: As in `ConvolutionBlock`; ``None`` as in the 2015 paper.
        padding: ``"same"``: zeros around keep the size; ``"valid"``, as in the 2015 paper: none.

    Call: (B, H, W, C); returns (B, H, W, filters), with ``"valid"`` (B, H - 4, W - 4, filters).

    Raises:
        ValueError: An unknown `padding`.
    """

    def __init__(self, filters, *, mid_filters=None, normalization=None, padding: Padding = "same", **kwargs):
        super().__init__(**kwargs)
        _check_padding(padding)
        self.filters = filters
        self.mid_filters = mid_filters
        self.normalization = normalization
        self.padding = padding
        self.first, self.second = (
            ConvolutionBlock(
                width,
                3,
                padding=0 if padding == "valid" else None,
                normalization=normalization,
                activation="relu",
                name=name,
                dtype=self.dtype_policy,
            )
            for name, width in (("first", mid_filters or filters), ("second", filters))
        )

    def build(self, input_shape):
        """Build both convolutions."""
        self.first.build(input_shape)
        self.second.build(self.first.compute_output_shape(input_shape))
        pass_on_frozen(self)

    def call(self, inputs, training=None):
        """Convolve twice."""
        return self.second(self.first(inputs, training=training), training=training)

    def compute_output_shape(self, input_shape):
        """Return (B, H, W, filters), 4 pixels less without padding."""
        return self.second.compute_output_shape(self.first.compute_output_shape(input_shape))

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "mid_filters": self.mid_filters,
            "normalization": self.normalization,
            "padding": self.padding,
        }


@keras.saving.register_keras_serializable("kerasvision")
class UNetEncoderBlock(keras.layers.Layer):
    """One step of the contracting path: 2x2 max pooling, then two convolutions.

    Args:
        filters: Number of output channels.
        normalization: As in `ConvolutionBlock`; ``None`` as in the 2015 paper.
        padding: Of the convolutions; as in `UNetDoubleConvolution`.
        round_down: Whether pooling drops the last row or column of an odd size, as PyTorch's does, instead of pooling
            it alone.

    Call: (B, H, W, C); returns (B, ceil(H / 2), ceil(W / 2), filters), floor for ceil if rounding down, and 4 pixels
    less without padding.

    Raises:
        ValueError: As `UNetDoubleConvolution`.

    Source: Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597, figure 1.
    """

    def __init__(self, filters, *, normalization=None, padding: Padding = "same", round_down=False, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.normalization = normalization
        self.padding = padding
        self.round_down = round_down
        self.convolutions = UNetDoubleConvolution(
            filters, normalization=normalization, padding=padding, name="convolutions", dtype=self.dtype_policy
        )

    def build(self, input_shape):
        """Build the double convolution."""
        self.convolutions.build(input_shape)
        pass_on_frozen(self)

    def call(self, inputs, training=None):
        """Step down."""
        rounding = "valid" if self.round_down else "same"
        pooled = ops.max_pool(inputs, 2, strides=2, padding=rounding, data_format="channels_last")
        return self.convolutions(pooled, training=training)

    def compute_output_shape(self, input_shape):
        """Return (B, ceil(H / 2), ceil(W / 2), filters); see the class."""
        height, width = input_shape[1:3]
        if self.round_down:
            sizes = (None if size is None else size // 2 for size in (height, width))
        else:
            sizes = map(halved, (height, width))
        return self.convolutions.compute_output_shape((input_shape[0], *sizes, input_shape[-1]))

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "normalization": self.normalization,
            "padding": self.padding,
            "round_down": self.round_down,
        }


@keras.saving.register_keras_serializable("kerasvision")
class UNetDecoderBlock(keras.layers.Layer):
    """One step of the expanding path: double the resolution, join the skip connection, convolve twice.

    Args:
        filters: Number of output channels.
        mid_filters: Channels between the two convolutions; default: `filters`.
        upsampling: ``"transpose"``, a learned 2x2 up-convolution to `filters` channels as in the 2015 paper;
            ``"nearest"``, repeating pixels, as in segmentation_models.pytorch; ``"bilinear"`` with aligned corners;
            or ``"bilinear_convolution"``, bilinear with corners that are not aligned, then a 1x1 convolution to
            `filters` channels with normalisation and ReLU, as in mmsegmentation.
        normalization: As in `ConvolutionBlock`.
        padding: Of the convolutions; as in `UNetDoubleConvolution`. With ``"valid"`` the middle of the skip connection
            is cut out.

    Call: features (B, H, W, C) and optionally a skip connection (B, H', W', S); returns (B, H', W', filters). H' is
    2H, or 1 less or more where an odd size was halved; what is missing is filled with zeros at the bottom and on the
    right, nearest pixels with their like. Without a skip connection H' is 2H, or what `size_hw` says. Without padding
    H' is at least 2H, and the result is (B, 2H - 4, 2W - 4, filters).

    Raises:
        ValueError: An unknown `upsampling` or `padding`; a skip connection that does not fit the features.
    """

    def __init__(
        self,
        filters,
        *,
        mid_filters=None,
        upsampling: Upsampling = "nearest",
        normalization=None,
        padding: Padding = "same",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if upsampling not in _UPSAMPLING:
            raise ValueError(f"`upsampling` {upsampling!r} is unknown; use one of {', '.join(map(repr, _UPSAMPLING))}")
        self.filters = filters
        self.mid_filters = mid_filters
        self.upsampling = upsampling
        self.normalization = normalization
        self.padding = padding
        self.up: Any = self._make_up()
        self.convolutions = UNetDoubleConvolution(
            filters,
            mid_filters=mid_filters,
            normalization=normalization,
            padding=padding,
            name="convolutions",
            dtype=self.dtype_policy,
        )

    def _make_up(self):
        """Return the layer that learns to enlarge, or to reduce what was enlarged, if there is one."""
        if self.upsampling == "transpose":
            return keras.layers.Conv2DTranspose(
                self.filters,
                2,
                strides=2,
                kernel_initializer="he_normal",
                name="up",
                dtype=self.dtype_policy,
                data_format="channels_last",
            )
        if self.upsampling == "bilinear_convolution":
            return ConvolutionBlock(
                self.filters,
                1,
                normalization=self.normalization,
                activation="relu",
                name="up",
                dtype=self.dtype_policy,
            )
        return None

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

    def call(self, inputs, skip=None, size_hw=None, training=None):
        """Step up."""
        if skip is None:
            outputs = self._enlarge(inputs, training)
            outputs = outputs if size_hw is None else fit_to(outputs, size_hw)
            return self.convolutions(outputs, training=training)
        self._check_sizes(inputs, skip)
        if self.padding == "valid":
            outputs = self._enlarge(inputs, training)
            skip = crop_centre_like(skip, outputs)
        elif self.upsampling == "nearest":
            outputs = resize_nearest_like(inputs, skip)
        else:
            outputs = fit_to(self._enlarge(inputs, training), ops.shape(skip)[1:3])
        return self.convolutions(ops.concatenate([outputs, skip], axis=-1), training=training)

    def _enlarge(self, inputs, training):
        """Return features of twice the height and width."""
        if self.upsampling == "nearest":
            return double_nearest(inputs)
        if self.upsampling == "transpose":
            return self.up(inputs)
        size_hw = tuple(2 * size for size in ops.shape(inputs)[1:3])
        if self.upsampling == "bilinear":
            return resize_bilinear(inputs, size_hw, align_corners=True)
        return self.up(resize_bilinear(inputs, size_hw), training=training)

    def _check_sizes(self, inputs, skip):
        for coarse, fine in zip(inputs.shape[1:3], skip.shape[1:3], strict=True):
            if coarse is None or fine is None:
                continue
            if self.padding == "valid":
                fits, expected = fine >= 2 * coarse, "it must be at least twice as large, its middle being cut out"
            else:
                fits = abs(fine - 2 * coarse) <= 1
                expected = "it must be twice as large, or one less or more where an odd size was halved"
            if not fits:
                raise ValueError(
                    f"`skip` of {tuple(skip.shape[1:3])} pixels does not fit features of {tuple(inputs.shape[1:3])}; "
                    f"{expected}"
                )

    def compute_output_shape(self, inputs_shape, skip_shape=None):
        """Return (B, H', W', filters)."""
        sizes = (None if size is None else 2 * size for size in inputs_shape[1:3])
        if skip_shape is not None and self.padding == "same":
            sizes = skip_shape[1:3]
        return self.convolutions.compute_output_shape((inputs_shape[0], *sizes, self.filters))

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "mid_filters": self.mid_filters,
            "upsampling": self.upsampling,
            "normalization": self.normalization,
            "padding": self.padding,
        }

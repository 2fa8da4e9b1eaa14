"""What SSD puts on top of its backbone."""

import keras
from keras import ops

from kerasvision.layers.convolution import ConvolutionBlock
from kerasvision.layers.separable_convolution import SeparableConvolutionBlock
from kerasvision.layers.trainability import pass_on_frozen

# (filters, side of the kernel, strides, padding) of conv8_2, conv9_2 and so on. SSD300: figure 2 of the paper.
SSD300_BLOCKS = ((512, 3, 2, 1), (256, 3, 2, 1), (256, 3, 1, 0), (256, 3, 1, 0))
# Footnote 5 and the authors' ssd_pascal_512.py: maps of 16, 8, 4, 2 and 1 for an image of 512.
SSD512_BLOCKS = ((512, 3, 2, 1), (256, 3, 2, 1), (256, 3, 2, 1), (256, 3, 2, 1), (256, 4, 1, 1))


@keras.saving.register_keras_serializable("kerasvision")
class SSDExtraLayers(keras.layers.Layer):
    """The layers of SSD after conv5_3 of VGG-16 (Liu et al. 2016).

    ```
    conv5_3 -- max 3x3 -- conv6 3x3, dilation 6 -- conv7 1x1 -> 1st output -- 1x1 -- 3x3, stride 2 -> 2nd -- ...
    ```

    Every convolution has a bias and a ReLU; conv6 and conv7 are VGG's fully connected layers, subsampled.

    Args:
        blocks: (filters, kernel size, strides, padding) of the second convolution of each further output; the first is
            1x1 with half as many filters. `SSD300_BLOCKS`, by default, or `SSD512_BLOCKS`. torchvision's high
            resolution variant has those of SSD300 and (256, 4, 1, 0).
        filters: Channels of conv6 and conv7.

    Call: (B, H, W, C), 19x19x512 for an image of 300, 32x32x512 for one of 512; returns the list of conv7 (B, H, W,
    filters) and (B, H_l, W_l, filters_l) of each block: 19, 10, 5, 3, 1 and 32, 16, 8, 4, 2, 1. With conv4_3,
    normalised by `L2Normalization`, SSD300 has six levels and SSD512 seven.

    Raises:
        ValueError: A map too small for one of the blocks, or a block that is not four numbers.

    Source: https://arxiv.org/abs/1512.02325. Reference: torchvision/models/detection/ssd.py, `extra` of
    `SSDFeatureExtractorVGG` from the modified maxpool5 on.
    """

    def __init__(self, blocks=SSD300_BLOCKS, *, filters=1024, **kwargs):
        super().__init__(**kwargs)
        self.blocks = tuple(tuple(block) for block in blocks)
        for block in self.blocks:
            if len(block) != 4:
                raise ValueError(f"`blocks` has {block!r}; each must be (filters, kernel size, strides, padding)")
        self.filters = filters
        self.conv6 = self._convolution(filters, 3, "conv6", dilation=6)
        self.conv7 = self._convolution(filters, 1, "conv7")
        self.firsts, self.seconds = [], []
        for number, (count, kernel_size, strides, padding) in enumerate(self.blocks, 8):
            self.firsts.append(self._convolution(count // 2, 1, f"conv{number}_1"))
            options = {"strides": strides, "padding": padding}
            self.seconds.append(self._convolution(count, kernel_size, f"conv{number}_2", **options))

    def _convolution(self, filters, kernel_size, name, **options):
        return ConvolutionBlock(
            filters,
            kernel_size,
            **options,
            activation="relu",
            kernel_initializer="glorot_uniform",
            name=name,
            dtype=self.dtype_policy,
        )

    def build(self, input_shape):
        """Build all convolutions."""
        self.conv6.build(input_shape)
        shape = self.conv6.compute_output_shape(input_shape)
        self.conv7.build(shape)
        for first, second, output in zip(
            self.firsts, self.seconds, self.compute_output_shape(input_shape)[1:], strict=True
        ):
            first.build(shape)
            second.build((*shape[:-1], first.filters))
            shape = output
        pass_on_frozen(self)

    def call(self, inputs):
        """Return the maps of all outputs, fine to coarse."""
        pooled = ops.max_pool(inputs, 3, strides=1, padding="same", data_format="channels_last")
        levels = [self.conv7(self.conv6(pooled))]
        for first, second in zip(self.firsts, self.seconds, strict=True):
            levels.append(second(first(levels[-1])))
        return levels

    def compute_output_shape(self, input_shape):
        """Return the shapes of all outputs."""
        shapes = [(*input_shape[:-1], self.filters)]
        for second in self.seconds:
            shapes.append(second.compute_output_shape(shapes[-1]))
            if any(size is not None and size < 1 for size in shapes[-1][1:3]):
                raise ValueError(
                    f"the input of {input_shape[1]}x{input_shape[2]} leaves nothing after `{second.name}`; use a "
                    "larger image (SSD300's input here is 19x19, SSD512's 32x32) or fewer `blocks`"
                )
        return shapes

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "blocks": self.blocks, "filters": self.filters}


@keras.saving.register_keras_serializable("kerasvision")
class SSDLiteExtraLayers(keras.layers.Layer):
    """The layers of SSDlite after MobileNet (Sandler et al. 2018): each output is half the size of the one before.

    Each is made by a 1x1 convolution to half of its channels, a 3x3 depthwise convolution with stride 2 and a 1x1
    convolution, all without bias, with normalisation and activation.

    Args:
        filters: Channels of each output; torchvision multiplies 512, 256, 256, 128 by MobileNet's width.
        normalization: As in `ConvolutionBlock`.
        epsilon: Added to the variance by the normalisation.
        momentum: Share of the old moving average that batch normalisation keeps at each step.
        activation: Name of a Keras activation.

    Call: (B, H, W, C), the last map of the backbone; returns the list of (B, ceil(H / 2), ceil(W / 2), filters[0]),
    (B, ceil(H / 4), ceil(W / 4), filters[1]) and so on.

    Source: https://arxiv.org/abs/1801.04381, section 6.2. Reference: torchvision/models/detection/ssdlite.py, `extra`
    of `SSDLiteFeatureExtractorMobileNet`.
    """

    def __init__(
        self,
        filters=(512, 256, 256, 128),
        *,
        normalization="batch",
        epsilon=1e-3,
        momentum=0.97,
        activation="relu6",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = tuple(filters)
        self.normalization = normalization
        self.epsilon = epsilon
        self.momentum = momentum
        self.activation = keras.activations.get(activation)
        options = {
            "normalization": normalization,
            "epsilon": epsilon,
            "momentum": momentum,
            "activation": self.activation,
            "use_bias": False,
            "dtype": self.dtype_policy,
        }
        self.firsts, self.seconds = [], []
        for index, count in enumerate(self.filters):
            # torchvision's `_normal_init`.
            initializers = [keras.initializers.RandomNormal(stddev=0.03) for _ in range(2)]
            self.firsts.append(
                ConvolutionBlock(
                    count // 2, 1, kernel_initializer=initializers[0], name=f"reduction_{index}", **options
                )
            )
            self.seconds.append(
                SeparableConvolutionBlock(
                    count,
                    3,
                    strides=2,
                    depthwise_normalization=normalization,
                    depthwise_activation=self.activation,
                    kernel_initializer=initializers[1],
                    name=f"output_{index}",
                    **options,
                )
            )

    def build(self, input_shape):
        """Build all convolutions."""
        shape = input_shape
        for first, second in zip(self.firsts, self.seconds, strict=True):
            first.build(shape)
            shape = first.compute_output_shape(shape)
            second.build(shape)
            shape = second.compute_output_shape(shape)
        pass_on_frozen(self)

    def call(self, inputs, training=None):
        """Return the maps of all outputs, fine to coarse."""
        levels = []
        for first, second in zip(self.firsts, self.seconds, strict=True):
            inputs = second(first(inputs, training=training), training=training)
            levels.append(inputs)
        return levels

    def compute_output_shape(self, input_shape):
        """Return the shapes of all outputs."""
        shapes = [input_shape]
        for second in self.seconds:
            shapes.append(second.compute_output_shape(shapes[-1]))
        return shapes[1:]

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "normalization": self.normalization,
            "epsilon": self.epsilon,
            "momentum": self.momentum,
            "activation": keras.activations.serialize(self.activation),
        }

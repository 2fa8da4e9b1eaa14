"""What SSD puts on top of its backbone."""

import keras
from keras import ops

from kerasvision.layers.convolution import ConvolutionBlock
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
        pooled = ops.max_pool(inputs, 3, strides=1, padding="same")
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

"""Path aggregation: after the way down a pyramid, a way up again, so that fine detail reaches the coarse levels."""

from typing import Literal

import keras
from keras import ops

from kerasvision.layers.convolution import ConvolutionBlock
from kerasvision.layers.csp_block import CSPBlock, convolution_unit
from kerasvision.layers.normalization import check_normalization
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.ops.nearest import crop_like, resize_nearest_like


@keras.saving.register_keras_serializable("kerasvision")
class PathAggregation(keras.layers.Layer):
    """The bottom-up path of PANet over a finished pyramid, such as `FeaturePyramid` makes (Liu et al. 2018).

    ```
    P4 ------------------------ + -- 3x3 -> N4
                                | 3x3, stride 2
    P3 ---------- + -- 3x3 -> N3 '
                  | 3x3, stride 2
    P2 --------> N2
    ```

    Args:
        filters: Channels of every level, in and out.
        downsample: What goes up to the next level: ``"output"``, N_i, as in the paper, or ``"sum"``, what N_i is made
            of by its 3x3 convolution, as in mmdet.
        activation: Name of a Keras activation after every convolution, or ``None`` as in mmdet.
        normalization: After every convolution, as in `ConvolutionBlock`; the paper's is ``"sync_batch"`` or ``None``.
        epsilon: Added to the variance by the normalisation.
        momentum: Share of the old moving average that batch normalisation keeps at each step.

    Call: list of (B, H_l, W_l, filters) from fine to coarse, each half the size of the one before, rounded up or
    down; returns a list of the same shapes.

    Raises:
        ValueError: `downsample` or `normalization` is unknown, or a level has another number of channels.

    Source: https://arxiv.org/abs/1803.01534, section 3.1. Reference: mmdet/models/necks/pafpn.py, part 2.
    """

    def __init__(
        self,
        filters=256,
        *,
        downsample: Literal["output", "sum"] = "output",
        activation="relu",
        normalization=None,
        epsilon=1e-5,
        momentum=0.9,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if downsample not in ("output", "sum"):
            raise ValueError(f"`downsample` {downsample!r} is unknown; use 'output' or 'sum'")
        check_normalization(normalization)
        self.filters = filters
        self.downsample = downsample
        self.activation = keras.activations.get(activation)
        self.normalization = normalization
        self.epsilon = epsilon
        self.momentum = momentum

    def build(self, input_shapes):
        """Create two 3x3 convolutions for each level but the finest."""
        for level, shape in enumerate(input_shapes):
            if shape[-1] != self.filters:
                raise ValueError(
                    f"level {level} has {shape[-1]} channels, `filters` is {self.filters}; "
                    "bring all levels to one number of channels, as `FeaturePyramid` does"
                )
        self.downs = [self._convolution(f"down_{i}", strides=2) for i in range(len(input_shapes) - 1)]
        self.outputs = [self._convolution(f"output_{i}") for i in range(1, len(input_shapes))]
        for block in (*self.downs, *self.outputs):
            block.build(input_shapes[0])
        pass_on_frozen(self)

    def _convolution(self, name, strides=1):
        return ConvolutionBlock(
            self.filters,
            3,
            strides=strides,
            normalization=self.normalization,
            epsilon=self.epsilon,
            momentum=self.momentum,
            activation=self.activation,
            kernel_initializer="glorot_uniform",
            name=name,
            dtype=self.dtype_policy,
        )

    def call(self, features, training=None):
        """Go up through `features`."""
        pyramid, carried = [features[0]], features[0]
        for feature, down, output in zip(features[1:], self.downs, self.outputs, strict=True):
            carried = feature + crop_like(down(carried, training=training), feature)
            pyramid.append(output(carried, training=training))
            if self.downsample == "output":
                carried = pyramid[-1]
        return pyramid

    def compute_output_shape(self, input_shapes):
        """Return `input_shapes`."""
        return list(input_shapes)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "downsample": self.downsample,
            "activation": keras.activations.serialize(self.activation),
            "normalization": self.normalization,
            "epsilon": self.epsilon,
            "momentum": self.momentum,
        }


@keras.saving.register_keras_serializable("kerasvision")
class CSPPathAggregation(keras.layers.Layer):
    """The whole neck of YOLOv5 and YOLOX: down and up a pyramid, levels concatenated, a `CSPBlock` after each.

    ```
    C5 -- 1x1 ---+------------------------------- concatenate -- CSP -> N5
                 | x2                             | 3x3, stride 2
    C4 -- concatenate -- CSP -- 1x1 ---+--- concatenate -- CSP -> N4
                                       | x2       | 3x3, stride 2
    C3 ------------------------ concatenate -- CSP -> N3
    ```

    Args:
        filters: Channels of each output level, fine to coarse; those of the input levels in YOLO.
        repeats: Bottlenecks in each `CSPBlock`.
        depthwise: Whether the 3x3 convolutions are depthwise ones and 1x1, as in YOLOX-nano.
        activation: Name of a Keras activation, after every convolution.
        normalization: After every convolution, as in `ConvolutionBlock`.
        epsilon: Added to the variance by the normalisation; 1e-3 in YOLOv5 and YOLOX.
        momentum: Share of the old moving average that batch normalisation keeps; 0.97 in YOLOv5 and YOLOX.

    Call: list of (B, H_l, W_l, C_l) from fine to coarse, one for each of `filters`, each half the size of the one
    before, rounded up or down; returns the list of (B, H_l, W_l, filters[l]).

    Raises:
        ValueError: Fewer than two levels, or another number of them in the call than in `filters`.

    Reference: yolox/models/yolo_pafpn.py, `YOLOPAFPN`, without its backbone.
    """

    def __init__(
        self,
        filters=(256, 512, 1024),
        *,
        repeats=3,
        depthwise=False,
        activation="silu",
        normalization="batch",
        epsilon=1e-3,
        momentum=0.97,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = tuple(filters)
        if len(self.filters) < 2:
            raise ValueError(f"`filters` {self.filters!r} must have one number for each of two levels or more")
        self.repeats = repeats
        self.depthwise = depthwise
        self.activation = keras.activations.get(activation)
        self.normalization = normalization
        self.epsilon = epsilon
        self.momentum = momentum
        self._options = {
            "activation": self.activation,
            "normalization": normalization,
            "epsilon": epsilon,
            "momentum": momentum,
            "dtype": self.dtype_policy,
        }
        finer, last = self.filters[:-1], len(self.filters) - 1
        self.reductions = [ConvolutionBlock(f, 1, name=f"reduce_{i}", **self._options) for i, f in enumerate(finer)]
        self.downs = [
            convolution_unit(f, 3, strides=2, depthwise=depthwise, name=f"down_{i}", **self._options)
            for i, f in enumerate(finer)
        ]
        self.top_down_blocks = [self._csp(f, f"top_down_{i}") for i, f in enumerate(finer)]
        self.bottom_up_blocks = [self._csp(self.filters[i], f"bottom_up_{i}") for i in range(1, last + 1)]

    def _csp(self, filters, name):
        return CSPBlock(filters, self.repeats, shortcut=False, depthwise=self.depthwise, name=name, **self._options)

    def build(self, input_shapes):
        """Build the blocks of every level."""
        if len(input_shapes) != len(self.filters):
            raise ValueError(
                f"got {len(input_shapes)} levels, but `filters` {self.filters!r} describes {len(self.filters)}"
            )
        channels = input_shapes[-1][-1]
        for level in range(len(self.filters) - 2, -1, -1):
            shape, filters = input_shapes[level], self.filters[level]
            self.reductions[level].build((*input_shapes[level + 1][:-1], channels))
            self.top_down_blocks[level].build((*shape[:-1], filters + shape[-1]))
            self.downs[level].build((*shape[:-1], filters))
            self.bottom_up_blocks[level].build((*input_shapes[level + 1][:-1], 2 * filters))
            channels = filters
        pass_on_frozen(self)

    def call(self, features, training=None):
        """Go down and up through `features`."""
        top, reduced = features[-1], []
        for level in range(len(features) - 2, -1, -1):
            reduced.insert(0, self.reductions[level](top, training=training))
            joined = ops.concatenate([resize_nearest_like(reduced[0], features[level]), features[level]], axis=-1)
            top = self.top_down_blocks[level](joined, training=training)
        pyramid = [top]
        for lateral, down, block in zip(reduced, self.downs, self.bottom_up_blocks, strict=True):
            carried = crop_like(down(pyramid[-1], training=training), lateral)
            pyramid.append(block(ops.concatenate([carried, lateral], axis=-1), training=training))
        return pyramid

    def compute_output_shape(self, input_shapes):
        """Return the shapes of all levels."""
        return [(*shape[:-1], filters) for shape, filters in zip(input_shapes, self.filters, strict=True)]

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "repeats": self.repeats,
            "depthwise": self.depthwise,
            "activation": keras.activations.serialize(self.activation),
            "normalization": self.normalization,
            "epsilon": self.epsilon,
            "momentum": self.momentum,
        }

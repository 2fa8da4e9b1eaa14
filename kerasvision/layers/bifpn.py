"""The weighted bidirectional feature pyramid network of EfficientDet."""

from typing import Literal

import keras
from keras import ops

from kerasvision.layers.convolution import ConvolutionBlock
from kerasvision.layers.normalization import check_normalization
from kerasvision.layers.separable_convolution import SeparableConvolutionBlock
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.layers.weighted_fusion import Fusion, WeightedFusion
from kerasvision.ops.nearest import crop_like, halved, resize_nearest_like


@keras.saving.register_keras_serializable("kerasvision")
class BiFPN(keras.layers.Layer):
    """Levels above the backbone's, then cells that go down and up the pyramid (EfficientDet, Tan et al. 2020).

    ```
    P7 ---------------------------+--- o -> P7       o  WeightedFusion of all that comes in, activation,
                                  |    |                separable convolution, normalisation
    P6 --+----------------- o --------- o -> P6      |  down: to the size of the finer level, pixels repeated
         |                  |     |    |             '  up: 3x3 maximum with stride 2
         '------------------------+
    P3 ---------------------------- o -> P3
    ```

    In each cell, every level is fused with the one above on the way down; then, from the second finest to the
    coarsest, the level, its result on the way down, and the finer level's output are fused on the way up. A level with
    another number of channels than `filters` goes through a 1x1 convolution and normalisation first, one of its own
    for each place where it is used. Levels above the backbone's are made of the last one by such a convolution, if
    need be, and the maximum.

    Args:
        filters: Channels of every output level: 64 in EfficientDet-D0.
        repeats: Number of cells: 3 in EfficientDet-D0.
        levels: Number of output levels: 5, P3 to P7.
        fusion: As `WeightedFusion`: ``"fast"``; ``"sum"`` in EfficientDet-D6 and D7.
        padding: Of the maximum: ``"same"`` as in TensorFlow (effdet's models that begin with ``tf_``), where what is
            odd goes to the bottom and right, or ``"symmetric"``, one pixel on each side.
        activation: Name of a Keras activation.
        normalization: As in `ConvolutionBlock`.
        epsilon: Added to the variance by the normalisation.
        momentum: Share of the old moving average that batch normalisation keeps at each step.
        use_bias: Whether 1x1 convolutions have a bias beside their normalisation, as in automl's models; effdet's own
            have none.

    Call: list of at most `levels` (B, H_l, W_l, C_l) from fine to coarse, each half the size of the one before,
    rounded up or down; returns the list of (B, H_l, W_l, filters) of all levels, further ones halved and rounded up.

    Raises:
        ValueError: `fusion`, `padding` or `normalization` is unknown, `repeats` below 1, fewer than two levels, or more
            levels in the call than `levels`.

    Reference: https://arxiv.org/abs/1911.09070, figure 3; google/automl, efficientdet/tf2/efficientdet_keras.py;
    effdet/efficientdet.py, `BiFpn`.
    """

    def __init__(
        self,
        filters=64,
        repeats=3,
        *,
        levels=5,
        fusion: Fusion = "fast",
        padding: Literal["same", "symmetric"] = "same",
        activation="silu",
        normalization="batch",
        epsilon=1e-3,
        momentum=0.99,
        use_bias=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if fusion not in ("fast", "softmax", "sum"):
            raise ValueError(f"`fusion` {fusion!r} is unknown; use 'fast', 'softmax' or 'sum'")
        if padding not in ("same", "symmetric"):
            raise ValueError(f"`padding` {padding!r} is unknown; use 'same' or 'symmetric'")
        if repeats < 1 or levels < 2:
            raise ValueError(f"`repeats` {repeats!r} must be 1 or more, and `levels` {levels!r} 2 or more")
        check_normalization(normalization)
        self.filters = filters
        self.repeats = repeats
        self.levels = levels
        self.fusion = fusion
        self.padding = padding
        self.activation = keras.activations.get(activation)
        self.normalization = normalization
        self.epsilon = epsilon
        self.momentum = momentum
        self.use_bias = use_bias

    def _convolution_options(self):
        return {
            "normalization": self.normalization,
            "epsilon": self.epsilon,
            "momentum": self.momentum,
            "use_bias": self.use_bias,
            "kernel_initializer": "glorot_uniform",
            "dtype": self.dtype_policy,
        }

    def build(self, input_shapes):
        """Create the convolution of the first further level, if it needs one, and the cells."""
        if len(input_shapes) > self.levels:
            raise ValueError(f"got {len(input_shapes)} levels, more than `levels` {self.levels}; raise that")
        self.projection = None
        channels = [shape[-1] for shape in input_shapes]
        if len(channels) < self.levels and channels[-1] != self.filters:
            self.projection = ConvolutionBlock(self.filters, 1, name="projection", **self._convolution_options())
            self.projection.build(input_shapes[-1])
        channels += [self.filters] * (self.levels - len(channels))
        self.cells = []
        for index in range(self.repeats):
            cell = _Cell(self.filters, self.fusion, self.padding, self.activation, self._convolution_options(), index)
            cell.build([(None, None, None, count) for count in channels])
            channels = [self.filters] * self.levels
            self.cells.append(cell)
        pass_on_frozen(self)

    def call(self, features, training=None):
        """Build the pyramid over `features`."""
        features = list(features)
        while len(features) < self.levels:
            last = features[-1]
            if self.projection is not None and last.shape[-1] != self.filters:
                last = self.projection(last, training=training)
            features.append(_halve(last, self.padding))
        for cell in self.cells:
            features = cell(features, training=training)
        return features

    def compute_output_shape(self, input_shapes):
        """Return the shapes of all levels."""
        shapes = [(*shape[:-1], self.filters) for shape in input_shapes]
        while len(shapes) < self.levels:
            batch, *sizes, filters = shapes[-1]
            shapes.append((batch, *map(halved, sizes), filters))
        return shapes

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "repeats": self.repeats,
            "levels": self.levels,
            "fusion": self.fusion,
            "padding": self.padding,
            "activation": keras.activations.serialize(self.activation),
            "normalization": self.normalization,
            "epsilon": self.epsilon,
            "momentum": self.momentum,
            "use_bias": self.use_bias,
        }


class _Cell(keras.layers.Layer):
    """Once down and once up the pyramid; `BiFPN` makes it and keeps its configuration."""

    def __init__(self, filters, fusion, padding, activation, convolution_options, index):
        super().__init__(name=f"cell_{index}", dtype=convolution_options["dtype"])
        self.filters = filters
        self.fusion = fusion
        self.padding = padding
        self.activation = activation
        self.convolution_options = convolution_options

    def build(self, input_shapes):
        """Create the projections, fusions and convolutions of both ways; lists go from fine to coarse."""
        last = len(input_shapes) - 1
        node = (None, None, None, self.filters)
        # The coarsest level has no node on the way down, but goes into the one below it.
        self.down_projections = [self._projection(shape, f"down_{i}") for i, shape in enumerate(input_shapes)]
        self.up_projections = [self._projection(s, f"up_{i}") for i, s in enumerate(input_shapes[1:], 1)]
        self.down_fusions = [self._fusion(2, f"down_fusion_{i}") for i in range(last)]
        self.up_fusions = [self._fusion(3 if i < last else 2, f"up_fusion_{i}") for i in range(1, last + 1)]
        self.down_convolutions = [self._convolution(f"down_convolution_{i}") for i in range(last)]
        self.up_convolutions = [self._convolution(f"up_convolution_{i}") for i in range(1, last + 1)]
        for convolution in (*self.down_convolutions, *self.up_convolutions):
            convolution.build(node)

    def _projection(self, shape, name):
        if shape[-1] == self.filters:
            return None
        block = ConvolutionBlock(self.filters, 1, name=f"{name}_projection", **self.convolution_options)
        block.build(shape)
        return block

    def _fusion(self, count, name):
        fusion = WeightedFusion(self.fusion, name=name, dtype=self.dtype_policy)
        fusion.build([(None, None, None, self.filters)] * count)
        return fusion

    def _convolution(self, name):
        return SeparableConvolutionBlock(self.filters, 3, name=name, **self.convolution_options)

    def call(self, features, training=None):
        """Go down and up."""

        def project(feature, projection):
            return feature if projection is None else projection(feature, training=training)

        def fuse(parts, fusion, convolution):
            return convolution(self.activation(fusion(parts)), training=training)

        last = len(features) - 1
        down = [project(features[-1], self.down_projections[-1])]  # from here on, fine to coarse
        for level in range(last - 1, -1, -1):
            own = project(features[level], self.down_projections[level])
            parts = [own, resize_nearest_like(down[0], own)]
            down.insert(0, fuse(parts, self.down_fusions[level], self.down_convolutions[level]))
        pyramid = [down[0]]
        for level in range(1, last + 1):
            parts = [project(features[level], self.up_projections[level - 1])]
            if level < last:
                parts.append(down[level])
            parts.append(crop_like(_halve(pyramid[-1], self.padding), parts[0]))
            pyramid.append(fuse(parts, self.up_fusions[level - 1], self.up_convolutions[level - 1]))
        return pyramid

    def compute_output_shape(self, input_shapes):
        """Return the shapes of all levels."""
        return [(*shape[:-1], self.filters) for shape in input_shapes]


def _halve(features, padding):
    """Return the maxima of 3x3 windows with stride 2, (B, ceil(H / 2), ceil(W / 2), C)."""
    if padding == "symmetric":
        margins = ((0, 0), (1, 1), (1, 1), (0, 0))
        features = ops.pad(features, margins, constant_values=-float("inf"))
        return ops.max_pool(features, 3, strides=2, padding="valid", data_format="channels_last")
    return ops.max_pool(features, 3, strides=2, padding="same", data_format="channels_last")

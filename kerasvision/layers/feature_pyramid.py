"""Feature pyramid network: semantically strong features at every scale."""

from typing import Literal

import keras
from keras import ops

from kerasvision.layers.convolution import ConvolutionBlock
from kerasvision.layers.trainability import pass_on_frozen

CoarseLevels = Literal["p6p7_from_p5", "p6p7_from_c5", "pool"] | None

# PyTorch's kaiming_uniform_(a=1): uniform within sqrt(3 / fan_in).
_INITIALIZER = {"scale": 1.0, "mode": "fan_in", "distribution": "uniform"}


@keras.saving.register_keras_serializable("kerasvision")
class FeaturePyramid(keras.layers.Layer):
    """Feature pyramid network (Lin et al. 2017, https://arxiv.org/abs/1612.03144).

    ```
    C5 -- 1x1 ----------------- 3x3 -> P5 -- (stride 2) -> P6 -- (ReLU, stride 2) -> P7
                   | x2
    C4 -- 1x1 ---- + ---------- 3x3 -> P4
                   | x2
    C3 -- 1x1 ---- + ---------- 3x3 -> P3
    ```

    Args:
        filters: Channels of every output level.
        coarse_levels: How levels above the last input are made: ``"p6p7_from_p5"`` and ``"p6p7_from_c5"``
            by stride-2 convolutions of the last output or the last input (RetinaNet, and its v2),
            ``"pool"`` by subsampling the last output once (Faster R-CNN), ``None`` not at all.

    Call: list of (B, H_l, W_l, C_l) from fine to coarse, each level twice as large as the next;
    returns the list of (B, H_l, W_l, filters), with the coarse levels appended.

    Reference: torchvision/ops/feature_pyramid_network.py.
    """

    def __init__(
        self,
        filters=256,
        *,
        coarse_levels: CoarseLevels = "p6p7_from_p5",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if coarse_levels not in ("p6p7_from_p5", "p6p7_from_c5", "pool", None):
            raise ValueError(
                f"`coarse_levels` {coarse_levels!r} is unknown; use 'p6p7_from_p5', 'p6p7_from_c5', 'pool' or None"
            )
        self.filters = filters
        self.coarse_levels = coarse_levels

    def build(self, input_shapes):
        """Create a lateral and an output convolution for each level, and those of the coarse levels."""
        self.laterals = [self._convolution(1, f"lateral_{i}") for i in range(len(input_shapes))]
        self.outputs = [self._convolution(3, f"output_{i}") for i in range(len(input_shapes))]
        for lateral, output, shape in zip(self.laterals, self.outputs, input_shapes, strict=True):
            lateral.build(shape)
            output.build((*shape[:-1], self.filters))
        if self.coarse_levels in ("p6p7_from_p5", "p6p7_from_c5"):
            self.p6 = self._convolution(3, "p6", strides=2)
            self.p7 = self._convolution(3, "p7", strides=2)
            channels = self.filters if self.coarse_levels == "p6p7_from_p5" else input_shapes[-1][-1]
            self.p6.build((*input_shapes[-1][:-1], channels))
            self.p7.build((*input_shapes[-1][:-1], self.filters))
        pass_on_frozen(self)

    def _convolution(self, kernel_size, name, strides=1):
        return ConvolutionBlock(
            self.filters,
            kernel_size,
            strides=strides,
            kernel_initializer=keras.initializers.VarianceScaling(**_INITIALIZER),
            name=name,
            dtype=self.dtype_policy,
        )

    def call(self, features):
        """Build the pyramid over `features`."""
        merged = [lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)]
        for level in range(len(merged) - 1, 0, -1):
            merged[level - 1] = merged[level - 1] + double_nearest(merged[level])
        pyramid = [output(feature) for output, feature in zip(self.outputs, merged, strict=True)]
        if self.coarse_levels == "pool":
            pyramid.append(pyramid[-1][:, ::2, ::2])
        elif self.coarse_levels is not None:
            p6 = self.p6(pyramid[-1] if self.coarse_levels == "p6p7_from_p5" else features[-1])
            pyramid += [p6, self.p7(ops.relu(p6))]
        return pyramid

    def compute_output_shape(self, input_shapes):
        """Return the shapes of all levels."""
        shapes = [(*shape[:-1], self.filters) for shape in input_shapes]
        for _ in range({"pool": 1, None: 0}.get(self.coarse_levels, 2)):
            batch, *sizes, filters = shapes[-1]
            shapes.append((batch, *(None if size is None else -(-size // 2) for size in sizes), filters))
        return shapes

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "filters": self.filters, "coarse_levels": self.coarse_levels}


def double_nearest(features):
    """Double the height and width of (B, H, W, C) features by repeating each pixel."""
    return ops.repeat(ops.repeat(features, 2, axis=1), 2, axis=2)  # (B, 2H, 2W, C)

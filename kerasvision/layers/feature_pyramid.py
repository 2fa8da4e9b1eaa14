"""Feature pyramid network: semantically strong features at every scale."""

from typing import Literal

import keras
from keras import ops

from kerasvision.layers.convolution import ConvolutionBlock
from kerasvision.layers.normalization import check_normalization
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.ops.nearest import halved, resize_nearest_like

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
        normalization: After every 1x1 and 3x3 convolution, which have no bias then, as in `ConvolutionBlock`;
            ``"batch"`` in torchvision's second Faster R-CNN. The convolutions of the coarse levels have none.
        epsilon: Added to the variance by the normalisation.
        momentum: Share of the old moving average that batch normalisation keeps at each step.

    Call: list of (B, H_l, W_l, C_l) from fine to coarse; returns the list of (B, H_l, W_l, filters), with the coarse
    levels appended, whose sizes are halved and rounded up. Each level is usually half the one before, rounded
    up or down: it is resized to that by repeating pixels, see `kerasvision.ops.nearest.resize_nearest_like`.

    Raises:
        ValueError: `coarse_levels` or `normalization` is unknown.

    Reference: torchvision/ops/feature_pyramid_network.py.
    """

    def __init__(
        self,
        filters=256,
        *,
        coarse_levels: CoarseLevels = "p6p7_from_p5",
        normalization=None,
        epsilon=1e-5,
        momentum=0.9,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if coarse_levels not in ("p6p7_from_p5", "p6p7_from_c5", "pool", None):
            raise ValueError(
                f"`coarse_levels` {coarse_levels!r} is unknown; use 'p6p7_from_p5', 'p6p7_from_c5', 'pool' or None"
            )
        self.filters = filters
        self.coarse_levels = coarse_levels
        check_normalization(normalization)
        self.normalization = normalization
        self.epsilon = epsilon
        self.momentum = momentum

    def build(self, input_shapes):
        """Create a lateral and an output convolution for each level, and those of the coarse levels."""
        norm = {"normalization": self.normalization, "epsilon": self.epsilon, "momentum": self.momentum}
        self.laterals = [self._convolution(1, f"lateral_{i}", **norm) for i in range(len(input_shapes))]
        self.outputs = [self._convolution(3, f"output_{i}", **norm) for i in range(len(input_shapes))]
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

    def _convolution(self, kernel_size, name, **options):
        return ConvolutionBlock(
            self.filters,
            kernel_size,
            **options,
            kernel_initializer=keras.initializers.VarianceScaling(**_INITIALIZER),
            name=name,
            dtype=self.dtype_policy,
        )

    def call(self, features, training=None):
        """Build the pyramid over `features`."""
        merged = [lateral(feature, training=training) for lateral, feature in zip(self.laterals, features, strict=True)]
        for level in range(len(merged) - 1, 0, -1):
            merged[level - 1] = merged[level - 1] + resize_nearest_like(merged[level], merged[level - 1])
        pyramid = [output(feature, training=training) for output, feature in zip(self.outputs, merged, strict=True)]
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
            shapes.append((batch, *map(halved, sizes), filters))
        return shapes

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "coarse_levels": self.coarse_levels,
            "normalization": self.normalization,
            "epsilon": self.epsilon,
            "momentum": self.momentum,
        }

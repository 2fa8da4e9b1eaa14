"""MobileNetV3 (Howard et al. 2019, https://arxiv.org/abs/1905.02244), laid out as in torchvision.

```
image -> stem 3x3 /2 -> 15 (large) or 11 (small) inverted residuals -> 1x1
```
"""

from typing import Literal

import keras

from kerasvision.backbones.inverted_residual_network import Block, InvertedResidualNetwork, round_filters

# Tables 1 and 2: kernel size, expanded channels, output channels, squeeze-and-excitation, hard-swish, strides.
_BLOCKS = {
    "large": (
        (3, 16, 16, False, False, 1),
        (3, 64, 24, False, False, 2),
        (3, 72, 24, False, False, 1),
        (5, 72, 40, True, False, 2),
        (5, 120, 40, True, False, 1),
        (5, 120, 40, True, False, 1),
        (3, 240, 80, False, True, 2),
        (3, 200, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 480, 112, True, True, 1),
        (3, 672, 112, True, True, 1),
        (5, 672, 160, True, True, 2),
        (5, 960, 160, True, True, 1),
        (5, 960, 160, True, True, 1),
    ),
    "small": (
        (3, 16, 16, True, False, 2),
        (3, 72, 24, False, False, 2),
        (3, 88, 24, False, False, 1),
        (5, 96, 40, True, True, 2),
        (5, 240, 40, True, True, 1),
        (5, 240, 40, True, True, 1),
        (5, 120, 48, True, True, 1),
        (5, 144, 48, True, True, 1),
        (5, 288, 96, True, True, 2),
        (5, 576, 96, True, True, 1),
        (5, 576, 96, True, True, 1),
    ),
}
# The last of each resolution, and the last convolution.
_FEATURES = {"large": (1, 3, 6, 12, 16), "small": (0, 1, 3, 8, 12)}


@keras.saving.register_keras_serializable("kerasvision")
class MobileNetV3(InvertedResidualNetwork):
    """MobileNetV3 without its classifier.

    Args:
        size: ``"large"`` or ``"small"``.
        width_multiplier: Factor on all numbers of channels, which are rounded to multiples of 8.
        reduced_tail: Halve the channels of the last stage and of the last convolution, as SSDlite does.
        feature_indices: As in `InvertedResidualNetwork`; by default the last of each resolution and the last
            convolution: 1, 3, 6, 12, 16 of the large network, 0, 1, 3, 8, 12 of the small one. torchvision takes the
            *first* of a resolution instead: 4 and 16 in DeepLabV3 and LR-ASPP, 13 and 16 in Faster R-CNN's pyramid and
            in SSDlite.
        expanded_features: As there, and so are all the others. SSDlite: (13,).
        normalization: See there.
        epsilon: See there.
        momentum: See there.
        frozen_stages: See there: 0 to 6.
        output_stride: See there. 16 is torchvision's `dilated`.
        dilate_first_blocks: See there.
        dtype: See there.

    Call: see there; by default the strides are 2, 4, 8, 16 and 32.
    """

    def __init__(
        self,
        size: Literal["large", "small"] = "large",
        *,
        width_multiplier=1.0,
        reduced_tail=False,
        feature_indices=None,
        expanded_features=(),
        normalization="batch",
        epsilon=1e-3,
        momentum=0.99,
        frozen_stages=0,
        output_stride=32,
        dilate_first_blocks=True,
        dtype=None,
        name="mobilenet_v3",
        **kwargs,
    ):
        if size not in _BLOCKS:
            raise ValueError(f"`size` {size!r} is unknown; use 'large' or 'small'")
        if width_multiplier <= 0:
            raise ValueError(f"`width_multiplier` {width_multiplier!r} must be positive; 1.0 is the paper's network")
        self._size = size
        self._width_multiplier = width_multiplier
        self._reduced_tail = reduced_tail
        blocks = _blocks(_BLOCKS[size], width_multiplier, 2 if reduced_tail else 1)
        super().__init__(
            blocks,
            stem_filters=round_filters(16 * width_multiplier),
            last_filters=6 * blocks[-1].filters,
            activation="hard_silu",
            feature_indices=_FEATURES[size] if feature_indices is None else feature_indices,
            expanded_features=expanded_features,
            normalization=normalization,
            epsilon=epsilon,
            momentum=momentum,
            frozen_stages=frozen_stages,
            output_stride=output_stride,
            dilate_first_blocks=dilate_first_blocks,
            dtype=dtype,
            name=name,
            **kwargs,
        )

    def get_config(self):
        """Return the constructor's arguments, and which layers are trained."""
        return {
            "size": self._size,
            "width_multiplier": self._width_multiplier,
            "reduced_tail": self._reduced_tail,
            **super().get_config(),
        }


def _blocks(table, width_multiplier, tail_divisor):
    """Return the `Block` of each row; those of the last stage have `tail_divisor` times fewer channels."""
    last_stage = max(index for index, row in enumerate(table) if row[-1] == 2)
    blocks = []
    for index, (kernel_size, expanded, filters, squeezes, hard_swish, strides) in enumerate(table):
        if index >= last_stage:
            filters //= tail_divisor
        if index > last_stage:  # the first block of the stage expands what comes before
            expanded //= tail_divisor
        expanded = round_filters(expanded * width_multiplier)
        blocks.append(
            Block(
                round_filters(filters * width_multiplier),
                expanded,
                kernel_size=kernel_size,
                strides=strides,
                squeeze_filters=round_filters(expanded // 4) if squeezes else None,
                activation="hard_silu" if hard_swish else "relu",
            )
        )
    return blocks


def mobilenet_v3_large(**options):
    """Return MobileNetV3-Large: 3.0M parameters without the classifier."""
    return MobileNetV3("large", **options)


def mobilenet_v3_small(**options):
    """Return MobileNetV3-Small: 0.9M parameters without the classifier."""
    return MobileNetV3("small", **options)

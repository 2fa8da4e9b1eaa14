"""MobileNetV2 (Sandler et al. 2018, https://arxiv.org/abs/1801.04381), laid out as in torchvision.

```
image -> stem 3x3 /2 -> blocks of 16 (stride 2), 24 (4), 32 (8), 64, 96 (16), 160, 320 (32) channels -> 1x1, 1280
```
"""

import keras

from kerasvision.backbones.inverted_residual_network import Block, InvertedResidualNetwork, round_filters

# Table 2: expansion, channels, blocks, strides of the first of them.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


@keras.saving.register_keras_serializable("kerasvision")
class MobileNetV2(InvertedResidualNetwork):
    """MobileNetV2 without its classifier.

    Args:
        width_multiplier: Factor on all numbers of channels, which are rounded to multiples of 8; the last convolution
            has 1280 or more.
        feature_indices: As in `InvertedResidualNetwork`. By default those of segmentation_models.pytorch, the last of
            each resolution: 16, 24, 32, 96 channels and the last convolution's 1280; 17 in place of 18 gives the last
            block's 320 and no last convolution.
        expanded_features: As there, and so are all the others.
        normalization: See there.
        epsilon: See there.
        momentum: See there.
        frozen_stages: See there: 0 to 6.
        output_stride: See there. segmentation_models.pytorch does the same.
        dilate_first_blocks: See there; ``False`` as in the authors' DeepLabV3+.
        dtype: See there.

    Call: see there; by default the strides are 2, 4, 8, 16 and 32.
    """

    def __init__(
        self,
        width_multiplier=1.0,
        *,
        feature_indices=(1, 3, 6, 13, 18),
        expanded_features=(),
        normalization="batch",
        epsilon=1e-5,
        momentum=0.9,
        frozen_stages=0,
        output_stride=32,
        dilate_first_blocks=True,
        dtype=None,
        name="mobilenet_v2",
        **kwargs,
    ):
        if width_multiplier <= 0:
            raise ValueError(f"`width_multiplier` {width_multiplier!r} must be positive; 1.0 is the paper's network")
        self._width_multiplier = width_multiplier
        stem_filters = channels = round_filters(32 * width_multiplier)
        blocks = []
        for expansion, filters, count, strides in _STAGES:
            for index in range(count):
                filters_here = round_filters(filters * width_multiplier)
                blocks.append(Block(filters_here, channels * expansion, strides=strides if index == 0 else 1))
                channels = filters_here
        super().__init__(
            blocks,
            stem_filters=stem_filters,
            last_filters=round_filters(1280 * max(1.0, width_multiplier)),
            activation="relu6",
            feature_indices=feature_indices,
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
        return {"width_multiplier": self._width_multiplier, **super().get_config()}


def mobilenet_v2(**options):
    """Return MobileNetV2: 2.2M parameters without the classifier."""
    return MobileNetV2(**options)


def mobilenet_v2_035(**options):
    """Return MobileNetV2 of width 0.35 without the last convolution, for training on a CPU: 0.3M parameters."""
    return MobileNetV2(**{"width_multiplier": 0.35, "feature_indices": (1, 3, 6, 13, 17), **options})

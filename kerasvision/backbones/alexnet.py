"""AlexNet (Krizhevsky et al. 2012, ImageNet classification with deep convolutional neural networks), without its dense
layers.

```
image -> 11x11 /4 -> C1 (stride 4) -> pool (8) -> 5x5 -> C2 (8) -> pool (16) -> 3x3, 3x3, 3x3 -> C5 (16) -> pool (32)
```
"""

import keras
from keras import ops

from kerasvision.backbones.base import Backbone
from kerasvision.layers.convolution import ConvolutionBlock
from kerasvision.layers.local_response_normalization import LocalResponseNormalization
from kerasvision.layers.pooling import MaxPooling

_KERNEL_SIZES = (11, 5, 3, 3, 3)
_POOLED = (1, 2, 5)  # the convolutions that a pooling follows


@keras.saving.register_keras_serializable("kerasvision")
class AlexNet(Backbone):
    """AlexNet's five convolutions, as in CaffeNet and the paper, or with other arguments as in torchvision.

    Args:
        widths: Channels of the five convolutions; torchvision: (64, 192, 384, 256, 256).
        groups: Parts into which the channels of convolutions 2, 4 and 5 are divided, each of which sees one part of
            the map before: 2, the paper's two GPUs; torchvision: 1.
        response_normalization: Normalise across channels after the first two poolings, see
            `LocalResponseNormalization`; torchvision does not.
        first_padding: Pixels of zeros around the image, on each side, before the first convolution; torchvision: 2.
        pooled: Return the features after each pooling (FCN) instead of before (Fast R-CNN).
        ceil_mode: Round sizes up where they are halved, as Caffe does; torchvision rounds down.
        frozen_stages: How many convolutions are not trained, from the first.
        dtype: Dtype policy of every layer; default: Keras's global one.

    Call: normalised images (B, H, W, 3); returns the list C1, C2, C5 of strides 4, 8, 16; if `pooled`, of strides 8,
    16, 32, not response-normalised. The cells are those whose windows fit: an image of 227x227 gives 55, 27 and 13, and
    27, 13 and 6, cells across. H and W must be at least 23, if `pooled` 39; as in torchvision 31, if `pooled` 63.

    Differs from the paper: pooled first and then normalised, as in CaffeNet; see also `LocalResponseNormalization`.
    """

    def __init__(
        self,
        widths=(96, 256, 384, 384, 256),
        *,
        groups=2,
        response_normalization=True,
        first_padding=0,
        pooled=False,
        ceil_mode=True,
        frozen_stages=0,
        dtype=None,
        name="alexnet",
        **kwargs,
    ):
        if len(widths) != 5:
            raise ValueError(f"`widths` {widths} must list five convolutions")
        if groups < 1 or any(width % groups for width in widths):
            raise ValueError(f"`groups` {groups} must divide all of `widths` {widths}; 1 always does")
        if not 0 <= frozen_stages <= 5:
            raise ValueError(f"`frozen_stages` {frozen_stages} must be 0 (train all) to 5 (all convolutions)")
        self._widths = tuple(widths)
        self._groups = groups
        self._response_normalization = response_normalization
        self._first_padding = first_padding
        self._pooled = pooled
        self._ceil_mode = ceil_mode
        self._frozen_stages = frozen_stages
        self.use_dtype(dtype)

        inputs = x = keras.Input((None, None, 3), name="images")
        convolved, after_pooling = [], []
        for number in range(1, 6):
            x = self._convolution(x, number)
            if number not in _POOLED:
                continue
            convolved.append(x)
            if number == 5 and not pooled:
                break
            x = MaxPooling(3, 2, ceil_mode=ceil_mode, name=f"pool{number}", dtype=self._layer_dtype)(x)
            after_pooling.append(x)
            if response_normalization and number < 5:
                x = LocalResponseNormalization(name=f"norm{number}", dtype=self._layer_dtype)(x)
        frozen_parts = tuple(f"conv{number}" for number in range(1, frozen_stages + 1))
        super().__init__(
            inputs,
            after_pooling if pooled else convolved,
            is_frozen=lambda layer: layer.startswith(frozen_parts),
            name=name,
            **kwargs,
        )

    @property
    def strides(self):
        """Pixels from one cell to the next, of each feature."""
        return (8, 16, 32) if self._pooled else (4, 8, 16)

    @property
    def centres(self):
        """Where the middle of the first cell's window lies, of each feature: row and column in pixels, from 0."""
        first = 5 - self._first_padding  # of 11 pixels; each pooling of 3 cells moves it by a cell, of 4, 8, 16 pixels
        return tuple(first + shift for shift in ((4, 12, 28) if self._pooled else (0, 4, 12)))

    @property
    def ceil_mode(self):
        """Whether sizes are rounded up where they are halved."""
        return self._ceil_mode

    def _convolution(self, x, number):
        """Return convolution `number`, from 1, of `x`, group by group."""
        name, groups = f"conv{number}", self._groups if number in (2, 4, 5) else 1

        def convolved(part, name):
            return ConvolutionBlock(
                self._widths[number - 1] // groups,
                _KERNEL_SIZES[number - 1],
                strides=4 if number == 1 else 1,
                padding=self._first_padding if number == 1 else None,
                activation="relu",
                kernel_initializer="he_normal",
                name=name,
                dtype=self._layer_dtype,
            )(part)

        if groups == 1:
            return convolved(x, name)
        parts = [convolved(part, f"{name}_group{i}") for i, part in enumerate(ops.split(x, groups, axis=-1))]
        return keras.layers.Concatenate(name=f"{name}_groups", dtype=self._layer_dtype)(parts)

    def get_config(self):
        """Return the constructor's arguments, and which layers are trained."""
        return {
            "widths": self._widths,
            "groups": self._groups,
            "response_normalization": self._response_normalization,
            "first_padding": self._first_padding,
            "pooled": self._pooled,
            "ceil_mode": self._ceil_mode,
            "frozen_stages": self._frozen_stages,
            **super().get_config(),
        }


# What `AlexNet` must be given to be torchvision's `alexnet`.
TORCHVISION = {"widths": (64, 192, 384, 256, 256), "groups": 1, "response_normalization": False, "first_padding": 2}


def alexnet(**options):
    """Return CaffeNet's AlexNet: 2.3M parameters without the dense layers."""
    return AlexNet(**options)


def alexnet_torchvision(**options):
    """Return torchvision's AlexNet: 2.5M parameters without the dense layers; rounds down unless told otherwise."""
    return AlexNet(**{**TORCHVISION, "ceil_mode": False, **options})

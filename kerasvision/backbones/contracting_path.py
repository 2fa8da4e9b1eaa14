"""U-Net's own contracting path (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597, the left half of figure 1).

```
image -> double convolution -> level 0 (stride 1) -> pool /2 -> double convolution -> level 1 (2) -> ... -> the bottom
```
"""

from typing import Literal

import keras

from kerasvision.backbones.base import Backbone
from kerasvision.layers.unet_blocks import UNetDoubleConvolution, UNetEncoderBlock


@keras.saving.register_keras_serializable("kerasvision")
class ContractingPath(Backbone):
    """The left half of U-Net: double convolutions, each followed by 2x2 max pooling.

    Args:
        widths: Channels at each resolution, from the image's own down to the bottom.
        normalization: As in `ConvolutionBlock`; ``None`` as in the paper.
        dropout: Share of activations dropped at the two lowest resolutions, in training ("drop-out layers at the end
            of the contracting path", section 3.1; the authors' released network uses 0.5).
        padding: ``"same"``, or ``"valid"`` as in the paper: every convolution takes a pixel from each side.
        round_down: Whether pooling drops the last row or column of an odd size, as PyTorch's does, instead of pooling
            it alone.
        dtype: Dtype policy of every layer; default: Keras's global one.

    Call: normalised images (B, H, W, 3); returns one (B, H / 2^i, W / 2^i, widths[i]) for each i, rounded up, or down
    as said; with ``"valid"`` each size is 4 less than double convolutions are given: 572 gives 568, 280, 136, 64, 28.
    """

    def __init__(
        self,
        widths=(64, 128, 256, 512, 1024),
        *,
        normalization=None,
        dropout=0.5,
        padding: Literal["same", "valid"] = "same",
        round_down=False,
        dtype=None,
        name="contracting_path",
        **kwargs,
    ):
        self._widths = tuple(widths)
        self._normalization = normalization
        self._dropout = dropout
        self._padding = padding
        self._round_down = round_down
        self.use_dtype(dtype)
        inputs = x = keras.Input((None, None, 3), name="images")
        features = []
        for level, width in enumerate(self._widths):
            options = {
                "normalization": normalization,
                "padding": padding,
                "name": f"level{level}",
                "dtype": self._layer_dtype,
            }
            if level:
                x = UNetEncoderBlock(width, round_down=round_down, **options)(x)
            else:
                x = UNetDoubleConvolution(width, **options)(x)
            if dropout and level >= len(self._widths) - 2:
                x = keras.layers.Dropout(dropout, name=f"dropout{level}", dtype=self._layer_dtype)(x)
            features.append(x)
        super().__init__(inputs, features, name=name, **kwargs)

    @property
    def strides(self):
        """Pixels from one cell to the next, of each feature."""
        return tuple(2**level for level in range(len(self._widths)))

    @property
    def padding(self):
        """``"same"`` or ``"valid"``."""
        return self._padding

    def get_config(self):
        """Return the constructor's arguments, and which layers are trained."""
        return {
            "widths": self._widths,
            "normalization": self._normalization,
            "dropout": self._dropout,
            "padding": self._padding,
            "round_down": self._round_down,
            **super().get_config(),
        }

"""VGG networks (Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556), without their dense layers.

```
image -> 3x3, 3x3 -> block 1 (stride 1) -> pool -> 3x3, 3x3 -> block 2 (2) -> pool -> ... -> block 5 (16) -> pool (32)
```

The layout is that of torchvision's `vgg11` to `vgg19` and `vgg11_bn` to `vgg19_bn`.
"""

import keras

from kerasvision.backbones.base import Backbone, check_output_stride
from kerasvision.layers.convolution import ConvolutionBlock
from kerasvision.layers.pooling import MaxPooling

_INITIALIZER = {"scale": 2.0, "mode": "fan_out", "distribution": "untruncated_normal"}


@keras.saving.register_keras_serializable("kerasvision")
class VGG(Backbone):
    """A VGG network that returns the features of every stride.

    Args:
        depths: Number of 3x3 convolutions in each of the five blocks.
        widths: Channels of the convolutions in each block.
        normalization: ``None`` as in the paper, or ``"batch"`` and others, as in `ConvolutionBlock`. Convolutions have
            a bias either way, as torchvision's have.
        epsilon: Added to the variance by the normalisation.
        pooled: Return each block's features after its pooling (FCN, DeepLab) instead of before (SSD, Fast R-CNN,
            U-Net), where the last block is not pooled.
        pool_size: Side of the windows that are pooled with a stride of 2: 2, or 3 with one pixel of padding as in
            DeepLab v1. Windows with a stride of 1 are 3 pixels wide either way, as DeepLab's and SSD's.
        ceil_mode: Round sizes up where they are halved, as Caffe does, so that images of any size fit; torchvision
            rounds down, and needs 16 pixels, or 32 if `pooled`.
        frozen_stages: How many blocks are not trained, from the first.
        output_stride: Pixels from one cell to the next of the last features: 32; or 16 or 8 with a stride of 1 in the
            last pooling or two, and dilations in the convolutions after them.
        dtype: Dtype policy of every layer; default: Keras's global one.

    Call: normalised images (B, H, W, 3); returns a list of five (B, H / s, W / s, widths[i]), s being `strides`: 1, 2,
    4, 8, 16, if `pooled` 2, 4, 8, 16, 32; none above `output_stride`. H / s is rounded as `ceil_mode` says; halving by
    windows of 3 pixels, rounded up, gives floor(H / 2) + 1.
    """

    def __init__(
        self,
        depths=(2, 2, 3, 3, 3),
        *,
        widths=(64, 128, 256, 512, 512),
        normalization=None,
        epsilon=1e-5,
        pooled=False,
        pool_size=2,
        ceil_mode=True,
        frozen_stages=0,
        output_stride=32,
        dtype=None,
        name="vgg",
        **kwargs,
    ):
        if not len(depths) == len(widths) == 5:
            raise ValueError(f"`depths` {depths} and `widths` {widths} must both list five blocks")
        if pool_size not in (2, 3):
            raise ValueError(f"`pool_size` {pool_size!r} must be 2, as in the paper, or 3, as in DeepLab")
        if not 0 <= frozen_stages <= 5:
            raise ValueError(f"`frozen_stages` {frozen_stages} must be 0 (train all) to 5 (all blocks)")
        check_output_stride(output_stride)
        self._depths = tuple(depths)
        self._widths = tuple(widths)
        self._normalization = normalization
        self._epsilon = epsilon
        self._pooled = pooled
        self._pool_size = pool_size
        self._ceil_mode = ceil_mode
        self._frozen_stages = frozen_stages
        self._output_stride = output_stride
        self.use_dtype(dtype)

        inputs = x = keras.Input((None, None, 3), name="images")
        features, strides, centres = [], [], []
        stride, centre = 1, 0.0
        for block, (depth, width) in enumerate(zip(self._depths, self._widths, strict=True), start=1):
            dilation = 2 ** (block - 1) // stride
            for index in range(1, depth + 1):
                x = self._convolution(x, width, dilation, f"conv{block}_{index}")
            if not pooled:
                features.append(x)
                strides.append(stride)
                centres.append(centre)
                if block == 5:
                    break
            x, step, shift = self._pool(x, f"pool{block}", halves=2**block <= output_stride)
            centre += stride * shift
            stride *= step
            if pooled:
                features.append(x)
                strides.append(stride)
                centres.append(centre)
        self._strides, self._centres = tuple(strides), tuple(centres)
        frozen_parts = tuple(f"conv{block}_" for block in range(1, frozen_stages + 1))
        super().__init__(inputs, features, is_frozen=lambda layer: layer.startswith(frozen_parts), name=name, **kwargs)

    @property
    def strides(self):
        """Pixels from one cell to the next, of each feature."""
        return self._strides

    @property
    def centres(self):
        """Where the middle of the first cell's window lies, of each feature: row and column in pixels, from 0."""
        return self._centres

    @property
    def ceil_mode(self):
        """Whether sizes are rounded up where they are halved."""
        return self._ceil_mode

    def _convolution(self, x, width, dilation, name):
        return ConvolutionBlock(
            width,
            3,
            dilation=dilation,
            normalization=self._normalization,
            epsilon=self._epsilon,
            activation="relu",
            use_bias=True,
            kernel_initializer=keras.initializers.VarianceScaling(**_INITIALIZER),
            name=name,
            dtype=self._layer_dtype,
        )(x)

    def _pool(self, x, name, *, halves):
        """Return the pooled map, its stride in cells, and how far the first cell's middle has moved, in cells."""
        size, strides = (self._pool_size, 2) if halves else (3, 1)
        padding = size - 2
        pooling = MaxPooling(
            size,
            strides,
            padding=padding,
            ceil_mode=self._ceil_mode,
            name=name,
            dtype=self._layer_dtype,
        )
        return pooling(x), strides, (size - 1) / 2 - padding

    def get_config(self):
        """Return the constructor's arguments, and which layers are trained."""
        return {
            "depths": self._depths,
            "widths": self._widths,
            "normalization": self._normalization,
            "epsilon": self._epsilon,
            "pooled": self._pooled,
            "pool_size": self._pool_size,
            "ceil_mode": self._ceil_mode,
            "frozen_stages": self._frozen_stages,
            "output_stride": self._output_stride,
            **super().get_config(),
        }


def vgg8(**options):
    """Return a VGG of one convolution a block and narrow, with batch normalisation, for training on a CPU: 0.2M."""
    return VGG((1, 1, 1, 1, 1), **{"widths": (16, 32, 64, 128, 128), "normalization": "batch", **options})


def vgg11(**options):
    """Return VGG-11 (the paper's A): 9.2M parameters without the dense layers."""
    return VGG((1, 1, 2, 2, 2), **options)


def vgg13(**options):
    """Return VGG-13 (the paper's B): 9.4M parameters without the dense layers."""
    return VGG((2, 2, 2, 2, 2), **options)


def vgg16(**options):
    """Return VGG-16 (the paper's D): 14.7M parameters without the dense layers."""
    return VGG((2, 2, 3, 3, 3), **options)


def vgg19(**options):
    """Return VGG-19 (the paper's E): 20.0M parameters without the dense layers."""
    return VGG((2, 2, 4, 4, 4), **options)

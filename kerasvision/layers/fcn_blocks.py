"""FCN's blocks: enlarging by a transposed convolution that starts as bilinear interpolation, the skip, and a head."""

from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from kerasvision.layers.convolution import ConvolutionBlock
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.ops.interpolation import resize_bilinear


@keras.saving.register_keras_serializable("kerasvision")
class BilinearInitializer(keras.initializers.Initializer):
    """Kernels of transposed convolutions that interpolate each channel bilinearly, and mix none.

    Tap i of k is 1 - abs(i - c) / f, with f = ceil(k / 2) and c = f - 1 if k is odd, f - 1/2 if even; for k = 4: 1/4,
    3/4, 3/4, 1/4. A kernel is the outer product of its rows' and columns' taps.

    Call: a shape (k, k', F, C), as of `keras.layers.Conv2DTranspose`; returns the taps where F and C are equal, else 0;
    where there are more of the one than of the other, the surplus is 0.

    Raises:
        ValueError: A shape of other than four numbers.

    Source: Long et al. 2015, section 3.3, https://arxiv.org/abs/1411.4038; Caffe, filler.hpp, `BilinearFiller`,
    restricted to equal channels as in the authors' surgery.py.
    """

    def __call__(self, shape, dtype=None):
        """Return the kernel."""
        if len(shape) != 4:
            raise ValueError(f"`shape` {tuple(shape)!r} must be (rows, columns, filters, channels) of a 2D kernel")
        rows, columns = (_taps(size) for size in shape[:2])
        kernel = np.outer(rows, columns)[:, :, None, None] * np.eye(shape[2], shape[3])
        return ops.convert_to_tensor(kernel, dtype=dtype or keras.backend.floatx())

    def get_config(self):
        """Return no arguments, as there are none."""
        return {}


def _taps(size):
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    return 1 - np.abs(np.arange(size) - centre) / factor


@keras.saving.register_keras_serializable("kerasvision")
class BilinearUpsampling(keras.layers.Layer):
    """Enlarge by a whole factor with a transposed convolution that is bilinear interpolation at first.

    Args:
        factor: How many times as high and as wide the result is.
        learned: Whether the convolution's kernel is trained. If not, there is none: the map is resized, to the same
            values.
        kernel_size: Rows and columns of the kernel: 2 `factor` - 1, or 2 `factor` if that is even. Default: 2 `factor`
            - `factor` % 2, as Caffe advises.
        padding: ``"same"`` to cut ceil((`factor` - 1) / 2) pixels from each side, as Caffe advises; ``"valid"`` to cut
            nothing, as the authors' Caffe models do.

    Call: (B, H, W, C); returns (B, factor H, factor W, C), or, uncut, (B, factor (H - 1) + kernel_size, ..., C).
    Beyond the map are zeros, so that the outermost factor / 2 pixels, or factor uncut, are darker than
    `kerasvision.ops.interpolation.resize_bilinear`, which repeats the border, would have them; all others are equal to
    those with corners that are not aligned. A map of no rows or columns gives none.

    Raises:
        ValueError: `factor` is not a whole number of 1 or more; a kernel that does not interpolate.

    Source: Long et al. 2015, section 3.3, https://arxiv.org/abs/1411.4038.
    """

    def __init__(
        self, factor=2, *, learned=True, kernel_size=None, padding: Literal["same", "valid"] = "same", **kwargs
    ):
        super().__init__(**kwargs)
        if not isinstance(factor, int) or factor < 1:
            raise ValueError(f"`factor` {factor!r} must be a whole number of 1 or more")
        if kernel_size not in (None, 2 * factor - 1, 2 * factor - factor % 2):
            raise ValueError(
                f"`kernel_size` {kernel_size!r} does not interpolate between pixels {factor} apart; "
                f"use {2 * factor - factor % 2}, the default, or {2 * factor - 1}"
            )
        if padding not in ("same", "valid"):
            raise ValueError(f"`padding` {padding!r} is unknown; use 'same' or 'valid'")
        self.factor = factor
        self.learned = learned
        self.kernel_size = kernel_size
        self.padding = padding
        self._side = kernel_size or 2 * factor - factor % 2

    def build(self, input_shape):
        """Create the kernel (k, k, C, C), if it is learned."""
        self.kernel = None
        if self.learned:
            self.kernel = self.add_weight(
                name="kernel",
                shape=(self._side, self._side, input_shape[-1], input_shape[-1]),
                initializer=BilinearInitializer(),
            )

    def call(self, inputs):
        """Enlarge `inputs`."""
        cut = (self._side - self.factor + 1) // 2 if self.padding == "same" else 0
        height, width = self._enlarged(ops.shape(inputs))
        if self.learned:
            outputs = ops.conv_transpose(
                inputs, self.kernel, strides=self.factor, padding="valid", data_format="channels_last"
            )
        else:
            # Between zeros, of which the transposed convolution sees one on each side.
            inputs = ops.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
            rows, columns = ops.shape(inputs)[1:3]
            # A kernel of odd size has its middle on a pixel, one of even size between two.
            odd = self._side % 2
            size_hw = [self.factor * (size - odd) + odd for size in (rows, columns)]
            outputs = resize_bilinear(inputs, size_hw, align_corners=bool(odd))
            cut += 1 if odd else self.factor // 2
        return outputs[:, cut : cut + height, cut : cut + width]

    def _enlarged(self, input_shape) -> list[Any]:
        """Return height and width of the result."""
        extra = 0 if self.padding == "same" else self._side - self.factor
        return [None if size is None else size * self.factor + extra for size in input_shape[1:3]]

    def compute_output_shape(self, input_shape):
        """Return (B, H', W', C)."""
        return (input_shape[0], *self._enlarged(input_shape), input_shape[-1])

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "factor": self.factor,
            "learned": self.learned,
            "kernel_size": self.kernel_size,
            "padding": self.padding,
        }


@keras.saving.register_keras_serializable("kerasvision")
class FCNHead(keras.layers.Layer):
    """A 3x3 convolution with batch normalisation and ReLU, dropout, and a 1x1 convolution to classes.

    The head of torchvision's FCN, and the auxiliary head of FCN, DeepLabV3 and others.

    Args:
        num_classes: Number of classes.
        filters: Channels between the convolutions; default: a quarter of the features'.
        dropout: Share of the activations that is dropped in training, in [0, 1).
        normalization: As in `ConvolutionBlock`.
        epsilon: Added to the variance by the normalisation.

    Call: features (B, H, W, C); returns logits (B, H, W, num_classes).

    Source: torchvision/models/segmentation/fcn.py, `FCNHead`; mmsegmentation's `FCNHead` with one convolution.
    """

    def __init__(self, num_classes, *, filters=None, dropout=0.1, normalization="batch", epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` {dropout!r} must be in [0, 1); 0.1 is usual")
        self.num_classes = num_classes
        self.filters = filters
        self.dropout = dropout
        self.normalization = normalization
        self.epsilon = epsilon
        self.drop = keras.layers.Dropout(dropout, name="drop", dtype=self.dtype_policy)
        self.score = ConvolutionBlock(num_classes, 1, name="score", dtype=self.dtype_policy)

    def build(self, input_shape):
        """Build both convolutions."""
        filters = self.filters or input_shape[-1] // 4
        self.convolution = ConvolutionBlock(
            filters,
            3,
            normalization=self.normalization,
            epsilon=self.epsilon,
            activation="relu",
            name="convolution",
            dtype=self.dtype_policy,
        )
        self.convolution.build(input_shape)
        self.score.build((*input_shape[:-1], filters))
        pass_on_frozen(self)

    def call(self, inputs, training=None):
        """Classify each cell."""
        return self.score(self.drop(self.convolution(inputs, training=training), training=training))

    def compute_output_shape(self, input_shape):
        """Return (B, H, W, num_classes)."""
        return (*input_shape[:-1], self.num_classes)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "filters": self.filters,
            "dropout": self.dropout,
            "normalization": self.normalization,
            "epsilon": self.epsilon,
        }


@keras.saving.register_keras_serializable("kerasvision")
class FCNSkip(keras.layers.Layer):
    """FCN's skip: classify a finer map, and add what the coarser maps said, enlarged twice.

    Args:
        num_classes: Number of classes.
        learned: Whether the enlarging is trained; see `BilinearUpsampling`.
        offset: Row and column of the finer map where the enlarged one, of which nothing is cut, begins: -1 where both
            maps begin at the image's corner, 5 and 9 in the authors' Caffe models, whose images have a margin.
        kernel_size: Of the enlarging, 3 or 4; see `BilinearUpsampling`.
        scale: What the finer features are multiplied by: 0.01 and 0.0001 where the authors train all skips at once.

    Call: the coarser logits (B, h, w, num_classes) and finer features (B, H, W, C); returns logits of the part that
    both maps cover: with the default offset (B, H, W, num_classes), where h must be at least H / 2 and w W / 2; from an
    offset of 0 (B, 2h + kernel_size - 2, 2w + kernel_size - 2, num_classes). The 1x1 convolution that classifies starts
    at zero: at first the finer map changes nothing.

    Raises:
        ValueError: Finer features of more than twice the logits' size, where both are known and `offset` is -1.

    Source: Long et al. 2015, section 4.2, https://arxiv.org/abs/1411.4038; https://github.com/shelhamer/
    fcn.berkeleyvision.org, voc-fcn8s and voc-fcn8s-atonce.
    """

    def __init__(self, num_classes, *, learned=True, offset=-1, kernel_size=4, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.learned = learned
        self.offset = offset
        self.kernel_size = kernel_size
        self.scale = scale
        self.enlarge = BilinearUpsampling(
            2, learned=learned, kernel_size=kernel_size, padding="valid", name="enlarge", dtype=self.dtype_policy
        )
        self.score = ConvolutionBlock(num_classes, 1, kernel_initializer="zeros", name="score", dtype=self.dtype_policy)

    def build(self, logits_shape, features_shape):
        """Build the enlarging and the 1x1 convolution."""
        for axis, name in ((1, "height"), (2, "width")):
            coarse, fine = logits_shape[axis], features_shape[axis]
            if self.offset == -1 and coarse is not None and fine is not None and fine > 2 * coarse:
                raise ValueError(
                    f"`features` of {name} {fine} must be at most twice the logits' {coarse}; give the next finer level"
                )
        self.enlarge.build(logits_shape)
        self.score.build(features_shape)
        pass_on_frozen(self)

    def call(self, logits, features):
        """Refine `logits` by `features`."""
        if self.scale != 1:
            features = features * ops.cast(self.scale, features.dtype)
        fine, coarse = self.score(features), self.enlarge(logits)
        if self.offset < 0:
            height, width = ops.shape(fine)[1:3]
            return fine + coarse[:, -self.offset : height - self.offset, -self.offset : width - self.offset]
        height, width = ops.shape(coarse)[1:3]
        return fine[:, self.offset : height + self.offset, self.offset : width + self.offset] + coarse

    def compute_output_shape(self, logits_shape, features_shape):
        """Return (B, H', W', num_classes)."""
        covered = features_shape if self.offset < 0 else self.enlarge.compute_output_shape(logits_shape)
        return (*covered[:-1], self.num_classes)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "learned": self.learned,
            "offset": self.offset,
            "kernel_size": self.kernel_size,
            "scale": self.scale,
        }

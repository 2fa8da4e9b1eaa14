"""A conditional random field that is trained with the network in front of it."""

import math

import keras
from keras import ops

from kerasvision.ops.convolutional_crf import check_numbers, convolutional_crf


@keras.saving.register_keras_serializable("kerasvision")
class ConvolutionalCRF(keras.layers.Layer):
    """Mean field steps of a CRF with kernels cut off at a window: labels follow the edges of the image.

    The unary part is the logits; messages are weighted by a Gaussian of positions and by one of positions and colours.
    What each kernel weighs for each class, and the compatibility of each pair of classes, are trained. With the
    defaults a pixel hears others up to 12 to 15 pixels away, once in each step. Everything is plain convolution-like
    arithmetic of static shape, so it exports.

    Args:
        kernel_size: Odd side of the window in cells.
        stride: Side of a cell in pixels, over which messages are averaged.
        iterations: Mean field steps, 0 or more.
        position_weight: First value of the weights of the Gaussian of positions.
        position_sigma: Its standard deviation in pixels.
        bilateral_weight: First value of the weights of the Gaussian of positions and colours.
        bilateral_position_sigma: Its standard deviation in pixels.
        bilateral_color_sigma: Its standard deviation in levels of 0-255.
        train_sigmas: Train the logarithms of the three standard deviations too.

    Call: logits (B, H, W, C) and images (B, H, W, 3), RGB 0-255 of any dtype; H and W may be unknown. Returns refined
    logits (B, H, W, C), at the same scale: after no step, or with all weights 0, the given ones. Computed in float32
    whatever the policy. See `kerasvision.ops.convolutional_crf.convolutional_crf`, also for NaN.

    Weights: `position_weights` (C,), `bilateral_weights` (C,), `compatibility` (C, C), at first Potts as -1 on the
    diagonal; `log_sigmas` (3,) with `train_sigmas`.

    Raises:
        ValueError: A number out of range, images that are not of 3 channels, or not of the size of the logits.

    Training keeps `iterations` x `kernel_size`^2 maps of cells (B, H / stride, W / stride, C), unless the compiler
    knows better.

    Source: Teichmann and Cipolla 2018, https://arxiv.org/abs/1805.04777; weights and compatibility as in Zheng et al.
    2015, https://arxiv.org/abs/1502.03240, section 4. First values: those of the example of Krähenbühl's dense CRF;
    the window: ConvCRF's.
    """

    def __init__(
        self,
        kernel_size=7,
        *,
        stride=4,
        iterations=5,
        position_weight=3.0,
        position_sigma=3.0,
        bilateral_weight=10.0,
        bilateral_position_sigma=80.0,
        bilateral_color_sigma=13.0,
        train_sigmas=False,
        **kwargs,
    ):
        # Half precision holds neither the sums nor the differences of colours; the images stay as they come.
        super().__init__(autocast=False, **kwargs)
        check_numbers(iterations, kernel_size, stride)
        self.kernel_size = kernel_size
        self.stride = stride
        self.iterations = iterations
        self.position_weight = position_weight
        self.position_sigma = position_sigma
        self.bilateral_weight = bilateral_weight
        self.bilateral_position_sigma = bilateral_position_sigma
        self.bilateral_color_sigma = bilateral_color_sigma
        self.train_sigmas = train_sigmas
        for name in ("position_sigma", "bilateral_position_sigma", "bilateral_color_sigma"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` {getattr(self, name)} must be above 0, and finite")

    def build(self, logits_shape, images_shape):
        """Create the kernels' weights (C,), the compatibility (C, C) and, to train them, the sigmas (3,)."""
        classes = logits_shape[-1]
        if images_shape[-1] != 3:
            raise ValueError(f"images of shape {tuple(images_shape)} must be (B, H, W, 3); pass logits first, then RGB")
        for axis, name in ((1, "height"), (2, "width")):
            sizes = logits_shape[axis], images_shape[axis]
            if None not in sizes and sizes[0] != sizes[1]:
                raise ValueError(f"images of {name} {sizes[1]} do not fit logits of {name} {sizes[0]}; resize one")
        self.position_weights = self._add_weight("position_weights", (classes,), self.position_weight)
        self.bilateral_weights = self._add_weight("bilateral_weights", (classes,), self.bilateral_weight)
        self.compatibility = self._add_weight("compatibility", (classes, classes), keras.initializers.Identity(-1.0))
        if self.train_sigmas:
            self.log_sigmas = self._add_weight("log_sigmas", (3,), self._first_log_sigmas)

    def _add_weight(self, name, shape, first):
        initializer = keras.initializers.Constant(first) if isinstance(first, int | float) else first
        return self.add_weight(name=name, shape=shape, initializer=initializer, autocast=False)

    def call(self, logits, images):
        """Refine the logits."""
        sigmas = (self.position_sigma, self.bilateral_position_sigma, self.bilateral_color_sigma)
        if self.train_sigmas:
            sigmas = ops.unstack(ops.exp(ops.cast(self.log_sigmas, "float32")), 3)
        refined = convolutional_crf(
            logits,
            images,
            iterations=self.iterations,
            kernel_size=self.kernel_size,
            stride=self.stride,
            position_weight=self.position_weights,
            position_sigma=sigmas[0],
            bilateral_weight=self.bilateral_weights,
            bilateral_position_sigma=sigmas[1],
            bilateral_color_sigma=sigmas[2],
            compatibility=self.compatibility,
        )
        return ops.cast(refined, self.compute_dtype)

    def _first_log_sigmas(self, shape, dtype=None):
        sigmas = (self.position_sigma, self.bilateral_position_sigma, self.bilateral_color_sigma)
        return ops.convert_to_tensor([math.log(sigma) for sigma in sigmas], dtype)

    def compute_output_shape(self, logits_shape, images_shape):
        """Return the shape of the logits."""
        return tuple(logits_shape)

    def compute_output_spec(self, logits, images):
        """Return the shape and type of the output."""
        return keras.KerasTensor(logits.shape, self.compute_dtype)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "iterations": self.iterations,
            "position_weight": self.position_weight,
            "position_sigma": self.position_sigma,
            "bilateral_weight": self.bilateral_weight,
            "bilateral_position_sigma": self.bilateral_position_sigma,
            "bilateral_color_sigma": self.bilateral_color_sigma,
            "train_sigmas": self.train_sigmas,
        }

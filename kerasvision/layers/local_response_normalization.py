"""AlexNet's normalisation of each channel by its neighbours."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kerasvision")
class LocalResponseNormalization(keras.layers.Layer):
    """Divide each value by a power of the mean square over neighbouring channels at the same pixel.

    The result is x / (bias + alpha * sum(squares) / size) ** beta, the sum being over `size` channels around x's own;
    those beyond the first and the last count as 0.

    Args:
        size: Number of channels of the sum, odd.
        alpha: Weight of the mean square.
        beta: Exponent.
        bias: Added before the power is taken.

    Call: (..., C); returns the same shape, computed in float32.

    Raises:
        ValueError: An even `size`.

    Source: Krizhevsky et al. 2012, section 3.3; Caffe, lrn_layer.cpp, whose defaults these are; torch.nn.
    LocalResponseNorm. Differs from the paper: alpha is divided by `size`, and `bias` is 1, not 2.
    """

    def __init__(self, size=5, *, alpha=1e-4, beta=0.75, bias=1.0, **kwargs):
        super().__init__(**kwargs)
        if size < 1 or size % 2 == 0:
            raise ValueError(f"`size` {size!r} must be odd, so that as many channels are summed on either side; try 5")
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.bias = bias

    def call(self, inputs):
        """Normalise `inputs`."""
        features = ops.cast(inputs, "float32")
        reach, channels = self.size // 2, inputs.shape[-1]
        squares = ops.pad(ops.square(features), [(0, 0)] * (len(inputs.shape) - 1) + [(reach, reach)])
        total = squares[..., :channels]
        for shift in range(1, self.size):
            total = total + squares[..., shift : shift + channels]
        outputs = features * ops.power(self.bias + self.alpha / self.size * total, -self.beta)
        return ops.cast(outputs, inputs.dtype)

    def compute_output_shape(self, input_shape):
        """Return `input_shape`."""
        return input_shape

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "size": self.size,
            "alpha": self.alpha,
            "beta": self.beta,
            "bias": self.bias,
        }

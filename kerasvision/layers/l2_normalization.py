"""Scaling of each pixel's features to one length."""

import keras
from keras import ops

# As `torch.nn.functional.normalize`.
_SMALLEST_NORM = 1e-12


@keras.saving.register_keras_serializable("kerasvision")
class L2Normalization(keras.layers.Layer):
    """Divide each pixel's features by their Euclidean norm, and multiply each channel by a learned factor.

    SSD does so with conv4_3 of VGG, whose features are far larger than those of the layers above it.

    Args:
        scale: What the factors start from; 20 in SSD.

    Call: (..., C); returns the same shape. The norm is taken in float32. A pixel whose norm is below 1e-12, such as
    one that a ReLU has set to zero, becomes zero and has no gradient; one with NaN becomes NaN.

    Source: Liu et al. 2015 (ParseNet), https://arxiv.org/abs/1506.04579, section 3.3; SSD, section 3.1.
    Reference: torchvision/models/detection/ssd.py, `SSDFeatureExtractorVGG`.
    """

    def __init__(self, scale=20.0, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def build(self, input_shape):
        """Create the factors (C,)."""
        self.gamma = self.add_weight(
            name="gamma", shape=input_shape[-1:], initializer=keras.initializers.Constant(self.scale), autocast=False
        )

    def call(self, inputs):
        """Normalise and scale `inputs`."""
        features = ops.cast(inputs, "float32")
        squares = ops.sum(features * features, axis=-1, keepdims=True)  # (..., 1)
        # Not torch's x / max(norm, 1e-12): its gradient at zero is 1e12, which half precision turns into NaN.
        tiny = squares < _SMALLEST_NORM**2
        inverse = ops.where(tiny, 0.0, ops.rsqrt(ops.where(tiny, 1.0, squares)))
        return ops.cast(features * (inverse * self.gamma), inputs.dtype)

    def compute_output_shape(self, input_shape):
        """Return `input_shape`."""
        return input_shape

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "scale": self.scale}

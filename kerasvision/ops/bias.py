"""Adding a bias so that the backend can do it inside the convolution."""

import keras
from keras import ops


def add_bias(features, bias):
    """Add one number to each channel.

    Args:
        features: (B, H, W, C).
        bias: (C,), of any float dtype.

    Returns:
        (B, H, W, C) in the dtype of `features`.

    On TensorFlow this is `tf.nn.bias_add`: unlike a broadcast sum it is recognised as the end of a convolution, and
    convolution, bias, residual sum and ReLU become one pass over memory.
    """
    bias = ops.cast(bias, features.dtype)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.nn.bias_add(features, bias)
    return features + bias

"""Gradients on whichever backend runs."""

import keras
import numpy as np
import pytest


def _gradient(function, values):
    """Return d function(values) / d values as numpy; `function` gives a scalar."""
    values = np.asarray(values, np.float32)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tensor = tf.constant(values)
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            total = function(tensor)
        return tape.gradient(total, tensor).numpy()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(function)(values))
    import torch

    tensor = torch.from_numpy(values.copy()).requires_grad_()
    function(tensor).backward()
    return tensor.grad.numpy()


@pytest.fixture
def gradient():
    return _gradient

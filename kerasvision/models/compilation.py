"""A model's function, compiled by the backend for many calls on inputs of many sizes."""

import keras

from kerasvision.models.frozen_graph import frozen_graph


def compiled(function, model, *, freeze=False):
    """Compile a function of tensors that uses a model's variables, as the backend does it.

    Args:
        function: Takes and returns tensors, or dicts of them.
        model: The model whose variables it uses.
        freeze: Under TensorFlow, keep the values that the variables have at the first call, and make the graph faster
            (see `frozen_graph`). Otherwise they are read at each call, so weights may be loaded or trained in between.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        # Images of many sizes must not mean a graph for each: from the second size on, sizes are left open.
        return frozen_graph(function) if freeze else tf.function(function, reduce_retracing=True)
    if backend == "jax":
        import jax

        @jax.jit
        def stateless(state, *arguments):
            with keras.StatelessScope(state_mapping=list(zip(model.variables, state, strict=True))):
                return function(*arguments)

        return lambda *arguments: stateless([variable.value for variable in model.variables], *arguments)
    if backend == "torch":
        import torch

        return torch.inference_mode()(function)
    return function

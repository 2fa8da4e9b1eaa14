"""A model's function, compiled by the backend for many calls on inputs of many sizes."""

import keras

# Frozen graphs hold a copy of the weights each.
_GRAPHS_OF_ONE_SIZE = 2


def compiled(function, model, *, freeze=False):
    """Compile a function of tensors that uses a model's variables, as the backend does it.

    Args:
        function: Takes and returns tensors, or dicts of them.
        model: The model whose variables it uses.
        freeze: Under TensorFlow, build the values that the variables have at the first call into the graph. Otherwise
            they are read at each call, so weights may be loaded or trained in between.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        # Images of many sizes must not mean a graph for each: from the second size on, sizes are left open.
        return _frozen_graph(function) if freeze else tf.function(function, reduce_retracing=True)
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


def _frozen_graph(function):
    """Compile a function for TensorFlow, with the variables' values of its first call built in as constants.

    Constants let TensorFlow fold normalisation into kernels once, and lay kernels out for the processor once, instead
    of at every call: RetinaNet R50-FPN takes 0.85 of the time. The first sizes of input get a graph each, where more
    can be fused; one graph serves all other sizes.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    traced = tf.function(function)
    graphs = {}

    def call(*arguments):
        tensors = tf.nest.flatten(arguments)
        specs = tf.nest.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), arguments)
        if str(specs) not in graphs and len(graphs) >= _GRAPHS_OF_ONE_SIZE:
            specs = tf.nest.map_structure(_of_any_size, specs)
        key = str(specs)
        if key not in graphs:
            concrete = traced.get_concrete_function(*specs)
            graphs[key] = convert_variables_to_constants_v2(concrete), concrete.structured_outputs
        graph, structure = graphs[key]
        return tf.nest.pack_sequence_as(structure, tf.nest.flatten(graph(*tensors)))

    return call


def _of_any_size(spec):
    """Leave all but the last axis of a tensor's specification open."""
    return type(spec)([None] * (spec.shape.rank - 1) + spec.shape[-1:], spec.dtype)

"""What a graph is being made for, as far as can be told while it is made, and calls out of it to the host."""

import functools
import os

import keras
import numpy as np
from keras import ops
from keras.src.backend.common.stateless_scope import in_stateless_scope


def under_xla():
    """Return whether TensorFlow is tracing for XLA (see `under_tensorflow_xla`), or the backend is JAX."""
    return keras.backend.backend() == "jax" or under_tensorflow_xla()


def under_tensorflow_xla():
    """Return whether TensorFlow is tracing for XLA, which lacks some of its kernels, and calls to the host.

    A plain `tf.function` that was traced before, and is called again inside a compiled one, is not noticed.
    """
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    if tf.executing_eagerly():
        return False
    try:
        from tensorflow.python.ops import control_flow_util
    except ImportError:  # not a public module
        return False
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def on_cpu(tensor):
    """Return whether what is computed from `tensor` is computed on a CPU: no accelerator is there, or asked for."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return all("CPU" in device.device_type for device in tf.config.list_logical_devices())
    if backend == "jax":
        import jax

        return jax.default_backend() == "cpu"
    return tensor.device.type in ("cpu", "meta")  # Keras infers shapes on "meta"


def known_value(value):
    """Return a tensor, variable or sequence as a NumPy array; ``None`` in a graph, where it has no value.

    Keras traces PyTorch with tensors that have no values, or any: those are not known either.
    """
    if not (ops.is_tensor(value) or isinstance(value, keras.Variable)):
        return np.asarray(value)
    if keras.backend.backend() == "torch" and in_stateless_scope():
        return None
    try:
        return np.asarray(ops.convert_to_numpy(value))
    except (TypeError, NotImplementedError, AttributeError):  # JAX's tracers; TensorFlow's symbolic tensors
        return None


def can_call_host():
    """Return whether `call_on_host` works: not under TensorFlow's XLA, nor where JAX has no thread to spare.

    On CPUs, JAX hands a callback its arrays by way of the threads that run the program. Where each of these waits in
    a callback, one for each device, none is left, and the program waits for ever.
    """
    if keras.backend.backend() == "jax":
        import jax

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return jax.default_backend() != "cpu" or cores > jax.local_device_count()
    return not under_tensorflow_xla()


def call_on_host(function, shape, *arrays):
    """Call a function of NumPy arrays, also in a graph, if `can_call_host`; no gradient flows through it.

    Args:
        function: Takes as many arrays, returns one, int32.
        shape: Of the result, static; ``None`` in it for what is not known.
        *arrays: Tensors.

    Returns:
        int32 tensor of `shape`.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.ensure_shape(tf.numpy_function(function, arrays, tf.int32, stateful=False), shape)
    if backend == "jax":
        import jax

        return jax.pure_callback(function, jax.ShapeDtypeStruct(shape, "int32"), *arrays, vmap_method="sequential")
    return ops.convert_to_tensor(function(*map(ops.convert_to_numpy, arrays)))


@functools.cache
def compiled_once(function, constants):
    """Return a function of three arrays (or trees of them) and so many hashable constants, compiled under JAX.

    Called eagerly, JAX compiles a loop anew every time, unless the function that holds it is compiled itself.
    """
    if keras.backend.backend() != "jax":
        return function
    import jax

    return jax.jit(function, static_argnums=range(3, 3 + constants))

"""What a graph is being made for, as far as can be told while it is made: the faster of two paths depends on it."""

import keras


def under_xla():
    """Return whether TensorFlow is tracing for XLA, or the backend is JAX, which always does.

    A plain `tf.function` that was traced before, and is called again inside a compiled one, is not noticed.
    """
    backend = keras.backend.backend()
    if backend != "tensorflow":
        return backend == "jax"
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

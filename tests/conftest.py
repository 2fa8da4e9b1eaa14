"""What tests of several rooms share. Imports nothing heavy: tests/parity must load torch before TensorFlow."""

import pytest


@pytest.fixture
def eager(monkeypatch):
    """Compile no training step: where a test takes a few steps, compiling one would take longer than all."""
    import keras

    if keras.backend.backend() == "jax":  # an operation at a time, each compiled once for all models
        monkeypatch.setattr("keras.src.trainers.trainer.model_supports_jit", lambda model: False)
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)

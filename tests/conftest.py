"""What tests of several rooms share. Imports nothing heavy: tests/parity must load torch before TensorFlow."""

import pytest


@pytest.fixture
def eager():
    """Run TensorFlow's functions eagerly: where a test takes a few steps, compiling one would take longer than all."""
    import keras

    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)

"""Frozen graphs against the models that they were made of."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.models.compilation import compiled
from kerasvision.models.frozen_graph import frozen_graph

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="frozen graphs are TensorFlow's")


def _images(*shape):
    return ops.convert_to_tensor(np.random.default_rng(0).normal(size=shape).astype(np.float32))


def _network(**options):
    """Return two convolutions of 64 channels with normalisation, which Winograd's form makes cheaper at 16x16."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 64))
    shared = keras.layers.Conv2D(128, 3, padding="same", **options)
    x = keras.layers.Conv2D(128, 3, padding="same", use_bias=False)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU()(x)
    y = keras.layers.Conv2D(8, 1, strides=2)(x)
    model = keras.Model(inputs, {"fine": shared(x), "coarse": y, "again": shared(x * 2)})
    for variable in model.weights:
        variable.assign(variable + 0.1 * np.random.default_rng(1).uniform(size=variable.shape))
    return model


def _assert_same(outputs, expected):
    assert outputs.keys() == expected.keys()
    for name, value in expected.items():
        value = ops.convert_to_numpy(value)
        np.testing.assert_allclose(ops.convert_to_numpy(outputs[name]), value, atol=5e-5 * np.abs(value).max())


@pytest.mark.parametrize("options", [{}, {"dilation_rate": 2}, {"groups": 2}, {"strides": 2}])
def test_frozen_graph_of_a_model_gives_its_outputs_at_any_size(options):
    model = _network(**options)
    frozen = compiled(lambda images: model(images, training=False), model, freeze=True)
    for size_hw in ((16, 16), (31, 57), (1, 1), (16, 32), (8, 20), (24, 8), (16, 16)):  # the last two share a graph
        for batch in (1, 3):
            images = _images(batch, *size_hw, 64)
            _assert_same(frozen(images), model(images, training=False))


def test_frozen_graph_has_no_direct_convolution_where_winograd_is_cheaper():
    import tensorflow as tf

    from kerasvision.models.frozen_graph import _frozen

    model = _network()
    traced = tf.function(lambda images: model(images, training=False))
    concrete = traced.get_concrete_function(tf.TensorSpec((1, 32, 32, 64), tf.float32))
    types = [operation.type for operation in _frozen(concrete, {}).graph.get_operations()]
    assert types.count("Conv2D") == 1  # the 1x1 one
    assert types.count("BatchMatMulV2") == 3
    assert "ReadVariableOp" not in types
    assert "Rsqrt" not in types  # normalisation's factors are worked out


def test_frozen_graph_keeps_the_weights_of_the_first_call():
    model = _network()
    frozen = compiled(lambda images: model(images, training=False), model, freeze=True)
    images = _images(1, 16, 16, 64)
    before = frozen(images)
    for variable in model.weights:
        variable.assign(variable * 2)
    _assert_same(frozen(images), before)
    assert np.abs(model(images, training=False)["fine"] - before["fine"]).max() > 1


def test_frozen_graph_computes_what_changes_anew():
    import tensorflow as tf

    table = tf.Variable([1.0, 2.0, 3.0])
    function = frozen_graph(lambda x: {"random": tf.random.uniform((4,)) + x, "fixed": table * 2, "size": tf.shape(x)})
    first, second = function(tf.zeros(4)), function(tf.zeros(4))
    assert np.abs(first["random"] - second["random"]).max() > 0
    np.testing.assert_array_equal(first["fixed"], [2, 4, 6])
    np.testing.assert_array_equal(first["size"], [4])


def test_frozen_graph_runs_conditions_and_loops_of_variables():
    import tensorflow as tf

    table = tf.Variable(tf.range(3.0))

    def function(inputs):
        total = tf.while_loop(lambda i, _: i < 3, lambda i, total: (i + 1, total + table[i] * inputs["x"]), (0, 0.0))[1]
        return tf.cond(inputs["x"] > 0, lambda: total, lambda: tf.reduce_sum(table))

    frozen = frozen_graph(function)
    assert float(frozen({"x": tf.constant(2.0)})) == 6  # (0 + 1 + 2) * 2
    assert float(frozen({"x": tf.constant(-2.0)})) == 3


def test_frozen_graph_runs_loops_that_fill_lists():
    import tensorflow as tf

    table = tf.Variable([1.0, 2.0, 3.0])
    frozen = frozen_graph(lambda x: ops.map(lambda row: row * table, x))
    np.testing.assert_array_equal(frozen(tf.ones((2, 3))), [[1, 2, 3], [1, 2, 3]])


def test_predictor_of_a_two_stage_detector_with_a_frozen_graph_finds_the_same():
    import zoo
    from kerasvision.inference import Predictor

    keras.utils.set_random_seed(0)
    model = zoo.get("fasterrcnn_resnet10_fpn", weights=None, num_classes=3)
    image = np.random.default_rng(0).uniform(0, 255, (96, 128, 3)).astype(np.float32)
    (expected,), (found,) = (Predictor(model, freeze=freeze)(image) for freeze in (False, True))
    assert len(found) == len(expected) == 100
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)

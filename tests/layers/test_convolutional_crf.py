"""The trainable CRF layer: weights, precision, saving, export, learning."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.layers import ConvolutionalCRF
from kerasvision.ops.convolutional_crf import convolutional_crf

OPTIONS = {
    "stride": 2,
    "iterations": 2,
    "position_weight": 1.5,
    "position_sigma": 2.0,
    "bilateral_weight": 2.5,
    "bilateral_position_sigma": 12.0,
    "bilateral_color_sigma": 30.0,
}


def _arrays(batch=2, height=9, width=10, classes=3):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (batch, height, width, classes)).astype(np.float32)
    return logits, rng.integers(0, 256, (batch, height, width, 3)).astype(np.float32)


def _numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def _model(layer, height=None, width=None, classes=3):
    inputs = [keras.Input((height, width, classes)), keras.Input((height, width, 3))]
    return keras.Model(inputs, layer(*inputs))


@pytest.mark.parametrize("train_sigmas", [False, True])
def test_arguments_reach_the_op(train_sigmas):
    logits, images = _arrays()
    layer = ConvolutionalCRF(5, train_sigmas=train_sigmas, **OPTIONS)
    found = layer(logits, images)
    expected = convolutional_crf(logits, images, kernel_size=5, **OPTIONS)
    np.testing.assert_allclose(_numpy(found), _numpy(expected), atol=1e-5)
    shapes = {"position_weights": (3,), "bilateral_weights": (3,), "compatibility": (3, 3)}
    if train_sigmas:
        shapes["log_sigmas"] = (3,)
    assert {weight.name: tuple(weight.shape) for weight in layer.trainable_weights} == shapes


def test_weights_reach_the_op():
    logits, images = _arrays()
    layer = ConvolutionalCRF(3, train_sigmas=True, **OPTIONS)
    layer(logits, images)
    rng = np.random.default_rng(1)
    first, second, compatibility, sigmas = (
        rng.uniform(0.5, 2, weight.shape).astype(np.float32) for weight in layer.trainable_weights
    )
    layer.set_weights([first, second, compatibility, np.log(sigmas * [3, 9, 40])])
    expected = convolutional_crf(
        logits,
        images,
        iterations=2,
        kernel_size=3,
        stride=2,
        position_weight=first,
        position_sigma=float(sigmas[0] * 3),
        bilateral_weight=second,
        bilateral_position_sigma=float(sigmas[1] * 9),
        bilateral_color_sigma=float(sigmas[2] * 40),
        compatibility=compatibility,
    )
    np.testing.assert_allclose(_numpy(layer(logits, images)), _numpy(expected), atol=1e-5)


def test_without_weight_the_logits_come_back():
    logits, images = _arrays()
    layer = ConvolutionalCRF(position_weight=0.0, bilateral_weight=0.0)
    np.testing.assert_allclose(_numpy(layer(logits, images)), logits, rtol=1e-6)


def test_config_round_trip():
    layer = ConvolutionalCRF(5, train_sigmas=True, **OPTIONS, name="crf", trainable=False)
    config = layer.get_config()
    restored = ConvolutionalCRF.from_config(config)
    assert restored.get_config() == config
    assert {name: config[name] for name in (*OPTIONS, "kernel_size", "train_sigmas")} == {
        **OPTIONS,
        "kernel_size": 5,
        "train_sigmas": True,
    }


def test_shapes_without_running():
    layer = ConvolutionalCRF()
    assert layer.compute_output_shape((None, 8, None, 5), (None, 8, None, 3)) == (None, 8, None, 5)
    assert tuple(_model(layer).output.shape) == (None, None, None, 3)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_half_precision_rounds_only_the_result(policy):
    logits, images = _arrays()
    layer = ConvolutionalCRF(5, train_sigmas=True, **OPTIONS, dtype=policy)
    found = layer(logits, images)
    assert keras.backend.standardize_dtype(found.dtype) == layer.compute_dtype
    expected = _numpy(ConvolutionalCRF(5, **OPTIONS)(logits, images))
    coarse = "bfloat16" in policy
    # With weights of bfloat16 themselves, the logarithms of sigmas are off by up to 2^-7.
    atol = 0.1 if policy == "bfloat16" else 1e-3
    np.testing.assert_allclose(_numpy(found), expected, rtol=2**-8 if coarse else 2**-10, atol=atol)


def test_a_model_of_any_size_is_saved_and_comes_back(tmp_path):
    model = _model(ConvolutionalCRF(3, train_sigmas=True, **OPTIONS))
    for weight in model.trainable_weights:
        weight.assign(weight + 0.1)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    for height, width in ((6, 5), (9, 10)):
        arrays = _arrays(2, height, width)
        found = restored.predict(arrays, verbose=0)
        np.testing.assert_allclose(found, _numpy(model(list(arrays))), atol=1e-5)


def test_training_finds_the_compatibility():
    # Classes 0 and 1 swap places where they meet: what Potts makes worse, training turns round.
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 2, (4, 8, 8))
    logits = np.eye(2)[1 - truth] * 0.5 + rng.normal(0, 0.2, (4, 8, 8, 2))
    images = truth[..., None] * 200.0 + np.zeros(3)
    layer = ConvolutionalCRF(3, stride=1, iterations=2, bilateral_color_sigma=30.0, train_sigmas=True)
    model = _model(layer, 8, 8, 2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.2), loss)
    arrays = [logits.astype(np.float32), images.astype(np.float32)]
    before = model.evaluate(arrays, truth, verbose=0)
    first = [weight.numpy() if hasattr(weight, "numpy") else np.array(weight) for weight in layer.trainable_weights]
    model.fit(arrays, truth, epochs=40, batch_size=4, verbose=0)
    assert before > 1
    assert model.evaluate(arrays, truth, verbose=0) < 0.1 * before
    for weight, was in zip(layer.trainable_weights, first, strict=True):
        assert np.abs(ops.convert_to_numpy(weight) - was).max() > 1e-3


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="`kernel_size` 6 must be an odd number of cells; 7 is usual"):
        ConvolutionalCRF(6)
    with pytest.raises(ValueError, match="`bilateral_color_sigma` 0 must be above 0, and finite"):
        ConvolutionalCRF(bilateral_color_sigma=0)
    logits, images = _arrays()
    with pytest.raises(ValueError, match="images of width 8 do not fit logits of width 10; resize one"):
        ConvolutionalCRF()(logits, images[:, :, :8])
    with pytest.raises(ValueError, match=r"\(2, 9, 10, 5\) must be \(B, H, W, 3\); pass logits first, then RGB"):
        ConvolutionalCRF()(images, _arrays(classes=5)[0])


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras writes no SavedModel of several inputs with torch"
)
def test_exports_to_a_saved_model(tmp_path):
    tf = pytest.importorskip("tensorflow")
    # JAX gives each input sizes of its own, which it cannot know to be equal.
    sizes = (None, None) if keras.backend.backend() == "tensorflow" else (9, 10)
    model = _model(ConvolutionalCRF(3, train_sigmas=True, **OPTIONS), *sizes)
    model.export(tmp_path / "saved", format="tf_saved_model", verbose=False)
    arrays = _arrays()
    restored = tf.saved_model.load(tmp_path / "saved")
    found = restored.serve([tf.constant(array) for array in arrays])
    np.testing.assert_allclose(found, model.predict(arrays, verbose=0), atol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="LiteRT export works with TensorFlow alone here")
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_exports_to_litert_of_builtin_operations(tmp_path):
    import tensorflow as tf

    model = _model(ConvolutionalCRF(3, **OPTIONS), 9, 10, classes=4)
    path = str(tmp_path / "model.tflite")
    builtins = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    model.export(path, format="litert", verbose=False, target_spec=builtins)
    arrays = _arrays(1, classes=4)
    interpreter = tf.lite.Interpreter(path)
    interpreter.allocate_tensors()
    for details in interpreter.get_input_details():
        interpreter.set_tensor(
            details["index"], next(array for array in arrays if array.shape == tuple(details["shape"]))
        )
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(found, model.predict(arrays, verbose=0), atol=1e-4)

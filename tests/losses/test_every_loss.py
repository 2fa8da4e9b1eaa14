"""What every loss must withstand: extremes, nothing counted, half precision, graphs of unknown size, training."""

import math

import keras
import numpy as np
import pytest
from keras import ops
from keras.src.backend import set_keras_mask

from kerasvision import losses
from kerasvision.losses.inputs import PooledLoss

RNG = np.random.default_rng(0)
MASKS = RNG.integers(0, 3, (2, 6, 5))
BINARY = RNG.integers(0, 2, (2, 6, 5, 1))
LOGITS = RNG.normal(0, 2, (2, 6, 5, 3)).astype(np.float32)
LABELS = {  # name: (loss of class indices, of masks (B, H, W) and logits (B, H, W, 3))
    "focal": losses.SigmoidFocalLoss(ignore_class=255),
    "focal of a small gamma": losses.SigmoidFocalLoss(gamma=0.5, ignore_class=255),
    "softmax_focal": losses.SoftmaxFocalLoss(),
    "softmax_focal of a small gamma": losses.SoftmaxFocalLoss(gamma=0.5),
    "dice": losses.DiceLoss(),
    "dice of images": losses.DiceLoss(per_image=True, log=True),
    "dice of absent classes": losses.DiceLoss(absent="count", smooth=1.0),
    "jaccard": losses.JaccardLoss(),
    "tversky": losses.TverskyLoss(),
    "focal_tversky": losses.FocalTverskyLoss(),
    "focal_tversky of the mean": losses.FocalTverskyLoss(of_mean=True),
    "lovasz_softmax": losses.LovaszSoftmaxLoss(),
    "lovasz_softmax of images": losses.LovaszSoftmaxLoss(per_image=True),
    "cross_entropy": losses.CrossEntropyLoss(class_weights=(1, 2, 3), divide_by_weights=True, label_smoothing=0.1),
    "ohem_cross_entropy": losses.OHEMCrossEntropyLoss(),
    "ohem_cross_entropy of 4": losses.OHEMCrossEntropyLoss(0.3, 4),
    "boundary_cross_entropy": losses.BoundaryCrossEntropyLoss(sigma=1.0),
}
BITS = {  # of 0 and 1 (B, H, W, 1) and one logit each
    "focal": losses.SigmoidFocalLoss(ignore_class=255),
    "dice": losses.DiceLoss(mode="binary"),
    "jaccard": losses.JaccardLoss(mode="multilabel"),
    "lovasz_hinge": losses.LovaszHingeLoss(),
    "lovasz_hinge of images": losses.LovaszHingeLoss(per_image=True),
}
OTHERS = {  # of anything: targets, predictions
    "quality_focal": (
        losses.QualityFocalLoss(),
        RNG.uniform(0, 1, (2, 7, 3)).astype(np.float32),
        LOGITS[:, 0, [0] * 7],
    ),
    "quality_focal of a small beta": (losses.QualityFocalLoss(0.5), np.eye(3, dtype=np.float32), LOGITS[0, 0, :3]),
    "varifocal": (losses.VarifocalLoss(gamma=0.5), np.eye(3, dtype=np.float32), LOGITS[0, 0, :3]),
    "distribution_focal": (
        losses.DistributionFocalLoss(),
        RNG.uniform(0, 2, (2, 6, 5)).astype(np.float32),
        LOGITS,
    ),
}
CASES = {
    **{name: (loss, MASKS, LOGITS) for name, loss in LABELS.items()},
    **{f"{name} of bits": (loss, BINARY, LOGITS[..., :1]) for name, loss in BITS.items()},
    **OTHERS,
}
IGNORING = {name: case for name, case in CASES.items() if name not in OTHERS}


def _value(loss, truth, predictions, *arguments):
    return np.asarray(ops.convert_to_numpy(loss(truth, predictions, *arguments)))


@pytest.mark.parametrize("name", CASES)
def test_extreme_logits_give_finite_losses_and_gradients(name, gradient):
    loss, truth, predictions = CASES[name]
    extreme = np.where(predictions > 0, 1e4, -1e4).astype(np.float32)
    extreme[0, 0] = 0
    constant = ops.convert_to_tensor(truth)
    for logits in (extreme, -extreme, np.zeros_like(extreme)):
        assert np.isfinite(_value(loss, truth, logits)).all() and _value(loss, truth, logits) >= 0
        assert np.isfinite(gradient(lambda x: loss(constant, x), logits)).all()


@pytest.mark.parametrize("name", IGNORING)
def test_nothing_counted_gives_zero_without_gradient_even_from_nan(name, gradient):
    loss, truth, predictions = IGNORING[name]
    ignored = np.full_like(truth, 255)
    constant = ops.convert_to_tensor(ignored)
    for logits in (predictions, np.full_like(predictions, np.nan)):
        assert _value(loss, ignored, logits) == 0
        np.testing.assert_array_equal(gradient(lambda x: loss(constant, x), logits), np.zeros_like(logits))


@pytest.mark.parametrize("name", IGNORING)
def test_ignored_pixels_change_nothing_whatever_is_predicted(name, gradient):
    loss, truth, predictions = IGNORING[name]
    truth, changed = truth.copy(), predictions.copy()
    truth[:, 2:4] = 255
    changed[:, 2:4] = -50 * changed[:, 2:4] + 7
    np.testing.assert_allclose(_value(loss, truth, changed), _value(loss, truth, predictions), rtol=1e-6)
    constant = ops.convert_to_tensor(truth)
    assert (gradient(lambda x: loss(constant, x), changed)[:, 2:4] == 0).all()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_equals_single_precision_of_the_same_logits(name, dtype):
    loss, truth, predictions = CASES[name]
    half = ops.cast(predictions, dtype)
    expected = _value(loss, truth, ops.cast(half, "float32"))
    np.testing.assert_allclose(_value(loss, truth, half), expected, rtol=1e-6)
    same = type(loss)(**loss.get_config() | {"dtype": dtype})  # as after keras.config.set_floatx(dtype)
    assert same.dtype == "float32"
    np.testing.assert_allclose(_value(same, truth, half), expected, rtol=1e-6)


# Compiling is slow: one of each kind.
COMPILED = [
    *("focal", "softmax_focal", "distribution_focal", "cross_entropy", "ohem_cross_entropy", "boundary_cross_entropy"),
    *("dice", "focal_tversky of the mean", "lovasz_softmax of images", "lovasz_hinge of bits"),
]


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_equals_eager(name):
    loss, truth, predictions = CASES[name]
    expected = _value(loss, truth, predictions)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        unknown = [tf.TensorSpec([None] * truth.ndim, truth.dtype)]
        unknown.append(tf.TensorSpec([None] * (predictions.ndim - 1) + [predictions.shape[-1]], tf.float32))
        found = tf.function(loss, input_signature=unknown)(truth, predictions).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        found = tf.function(loss, jit_compile=True)(tf.constant(truth), tf.constant(predictions)).numpy()
    elif backend == "jax":
        import jax

        found = np.asarray(jax.jit(loss)(truth, predictions))
    else:
        pytest.skip("PyTorch runs eagerly")
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_an_empty_batch_gives_a_finite_loss_or_none(name):
    loss, truth, predictions = CASES[name]
    found = _value(loss, truth[:0], predictions[:0])
    assert np.isfinite(found).all()
    assert found.sum() == 0


PIXELWISE = ("focal", "softmax_focal", "cross_entropy", "boundary_cross_entropy")


@pytest.mark.parametrize("name", PIXELWISE)
def test_means_are_over_the_counted_pixels_as_in_keras(name):
    loss = LABELS[name]
    masks = MASKS.copy()
    masks[:, 2:4] = 255
    weights = RNG.uniform(0, 2, masks.shape).astype(np.float32)
    counted = masks != 255
    config = loss.get_config() | {"class_weights": None, "divide_by_weights": False}
    config = {key: value for key, value in config.items() if key in loss.get_config()}
    values = _value(type(loss)(**config | {"reduction": "none"}), masks, LOGITS)
    assert values.shape == masks.shape and (values[~counted] == 0).all()
    for reduction, weight, expected in [
        ("sum_over_batch_size", None, values.sum() / counted.sum()),
        ("sum_over_batch_size", weights, (values * weights).sum() / counted.sum()),
        ("sum", weights, (values * weights).sum()),
        ("mean_with_sample_weight", weights, (values * weights).sum() / (weights * counted).sum()),
    ]:
        found = _value(type(loss)(**config | {"reduction": reduction}), masks, LOGITS, weight)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("name", PIXELWISE)
def test_weights_of_images_weigh_their_pixels_and_stay_as_they_are(name):
    loss = LABELS[name]
    masks = np.concatenate([MASKS, MASKS, MASKS[:1]])  # as many images as columns, 5
    masks[:, 2:4] = 255
    logits = np.concatenate([LOGITS, LOGITS, LOGITS[:1]])
    weights = np.arange(5, dtype=np.float32)
    expected = _value(loss, masks, logits, np.broadcast_to(weights[:, None, None], masks.shape).copy())
    for shape in ((5,), (5, 1), (5, 1, 1), (5, 1, 1, 1)):
        given = weights.reshape(shape)
        np.testing.assert_allclose(_value(loss, masks, logits, given), expected, rtol=1e-6)
        assert weights.tolist() == [0, 1, 2, 3, 4]
    given = np.ones(masks.shape, np.float32)
    loss(masks, logits, given)
    assert (given == 1).all()


REGIONAL = ("dice of images", "lovasz_softmax of images")


@pytest.mark.parametrize("name", REGIONAL)
def test_losses_of_images_are_weighted_and_averaged(name):
    loss = LABELS[name]
    each = _value(type(loss)(**loss.get_config() | {"reduction": "none"}), MASKS, LOGITS)
    assert each.shape == (2,)
    np.testing.assert_allclose(_value(loss, MASKS, LOGITS), each.mean(), rtol=1e-6)
    found = _value(loss, MASKS, LOGITS, np.array([3.0, 0.5], np.float32))
    np.testing.assert_allclose(found, (3 * each[0] + 0.5 * each[1]) / 2, rtol=1e-6)
    alone = [_value(loss, MASKS[i : i + 1], LOGITS[i : i + 1]) for i in range(2)]
    np.testing.assert_allclose(each, alone, rtol=1e-5)


@pytest.mark.parametrize("name", ["dice", "lovasz_softmax"])
def test_losses_of_batches_are_scaled_by_the_mean_weight(name):
    loss = LABELS[name]
    whole = _value(loss, MASKS, LOGITS)
    np.testing.assert_allclose(_value(loss, MASKS, LOGITS, np.array([3.0, 0.5], np.float32)), 1.75 * whole, rtol=1e-6)
    assert _value(type(loss)(**loss.get_config() | {"reduction": "none"}), MASKS, LOGITS).shape == (1,)


POOLED = [name for name, case in CASES.items() if isinstance(case[0], PooledLoss)]


@pytest.mark.parametrize("name", POOLED)
@pytest.mark.parametrize("shape", [(2,), (2, 1, 1)])
def test_weights_of_one_change_nothing_whatever_the_reduction(name, shape):
    loss, truth, predictions = CASES[name]
    for reduction in ("sum", "sum_over_batch_size", "mean_with_sample_weight", "none"):
        other = type(loss)(**loss.get_config() | {"reduction": reduction})
        found = _value(other, truth, predictions, np.ones(shape, np.float32))
        np.testing.assert_allclose(found, _value(other, truth, predictions), rtol=1e-6)


@pytest.mark.parametrize("name", POOLED)
def test_weights_of_pixels_are_refused_by_losses_of_images(name):
    loss, truth, predictions = CASES[name]
    with pytest.raises(
        ValueError, match=r"`sample_weight` has shape \(2, 6, 5\), but \w+ has no loss of a single pixel"
    ):
        loss(truth, predictions, np.ones((2, 6, 5), np.float32))


def _masked(predictions, mask):
    """Return predictions with a Keras mask, NaN where it leaves them out."""
    masked = ops.convert_to_tensor(np.where(mask[..., None], predictions, np.nan).astype(np.float32))
    set_keras_mask(masked, ops.convert_to_tensor(mask))
    return masked


@pytest.mark.parametrize("name", IGNORING)
def test_pixels_that_keras_masks_are_as_ignored_ones(name, gradient):
    loss, truth, predictions = IGNORING[name]
    mask = RNG.random((2, 6, 5)) < 0.5
    here = mask.reshape(truth.shape)
    weights = np.array([3.0, 0.5], np.float32).reshape(2, 1, 1)
    for reduction, weight in (("sum_over_batch_size", None), ("mean_with_sample_weight", weights), ("none", None)):
        config = loss.get_config() | {"reduction": reduction}
        ignoring, everything = type(loss)(**config), type(loss)(**config | {"ignore_class": None})
        expected = _value(ignoring, np.where(here, truth, 255), predictions, weight)
        # Masked targets and predictions may be anything.
        for other in (ignoring, everything):
            found = _value(other, np.where(here, truth, 77), _masked(predictions, mask), weight)
            np.testing.assert_allclose(found, expected, rtol=1e-6)
    # Some are ignored, and others masked.
    expected = _value(loss, np.where(here, truth, 255), predictions)
    half = np.arange(6).reshape(6, 1) % 2 == 0
    ignored = np.where((mask | half).reshape(truth.shape), truth, 255)
    found = _value(loss, ignored, _masked(predictions, mask | ~half))
    np.testing.assert_allclose(found, expected, rtol=1e-6)

    def of_masked(values):
        values = values + 0  # the mask belongs to one tensor
        set_keras_mask(values, ops.convert_to_tensor(mask))
        return loss(ops.convert_to_tensor(truth), values)

    constant = ops.convert_to_tensor(np.where(here, truth, 255))
    slopes = gradient(of_masked, predictions)
    assert (slopes[~mask] == 0).all()
    np.testing.assert_allclose(slopes, gradient(lambda x: loss(constant, x), predictions), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", IGNORING)
def test_images_that_keras_masks_are_as_ignored_ones(name):
    loss, truth, predictions = IGNORING[name]
    masked = ops.convert_to_tensor(predictions)
    set_keras_mask(masked, ops.convert_to_tensor([True, False]))  # (B,), of fewer axes than the pixels
    ignored = truth.copy()
    ignored[1] = 255
    np.testing.assert_allclose(_value(loss, truth, masked), _value(loss, ignored, predictions), rtol=1e-6)


@pytest.mark.parametrize("name", OTHERS)
def test_elements_that_keras_masks_are_as_if_left_out(name):
    loss, truth, predictions = OTHERS[name]
    mask = np.arange(math.prod(predictions.shape[:-1])).reshape(predictions.shape[:-1]) % 3 > 0
    masked = ops.convert_to_tensor(predictions)
    set_keras_mask(masked, ops.convert_to_tensor(mask))
    np.testing.assert_allclose(_value(loss, truth, masked), _value(loss, truth[mask], predictions[mask]), rtol=1e-6)


@pytest.mark.parametrize("masked_dtype", ["float16", "float32"])
def test_mask_is_seen_whatever_the_dtype_of_the_predictions(masked_dtype):
    masked = ops.cast(LOGITS, masked_dtype)
    mask = MASKS != 1
    set_keras_mask(masked, ops.convert_to_tensor(mask))
    for name in ("cross_entropy", "ohem_cross_entropy of 4", "dice"):
        expected = _value(LABELS[name], np.where(mask, MASKS, 255), ops.cast(LOGITS, masked_dtype))
        np.testing.assert_allclose(_value(LABELS[name], MASKS, masked), expected, rtol=1e-6)


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("ignored", [255, -1])
def test_labels_that_are_no_whole_numbers_are_of_no_class(name, ignored):
    loss = type(LABELS[name])(**LABELS[name].get_config() | {"ignore_class": ignored})
    wrong = np.where(np.arange(60).reshape(MASKS.shape) % 3 == 0, 7.0, MASKS)  # of no class
    wrong[0, 0, 1] = ignored
    expected = _value(loss, wrong, LOGITS)
    for value in (0.9, -0.5, -1.5, np.nan, np.inf, 2.0**32 + 512):
        found = _value(loss, np.where(wrong == 7, value, wrong).astype(np.float32), LOGITS)
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=str(value))
    assert np.isnan(expected) == ("cross_entropy" in name or "softmax_focal" in name)


@pytest.mark.parametrize("name", LABELS)
def test_masks_with_an_axis_of_one_are_masks(name):
    loss = LABELS[name]
    np.testing.assert_allclose(_value(loss, MASKS[..., None], LOGITS), _value(loss, MASKS, LOGITS), rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in LABELS if not name.startswith("focal")])
def test_one_hot_masks_are_refused(name):
    with pytest.raises(ValueError, match=r"`y_true` has shape \(2, 6, 5, 3\).*argmax"):
        LABELS[name](np.eye(3)[MASKS], LOGITS)


@pytest.mark.parametrize("name", ["ohem_cross_entropy", "lovasz_softmax"])
def test_a_dense_layer_learns_its_labels(name):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.Adam(0.1), LABELS[name])
    images = np.eye(3, dtype=np.float32)[MASKS]
    history = model.fit(images, MASKS, epochs=12, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]

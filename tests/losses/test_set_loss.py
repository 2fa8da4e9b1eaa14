"""DETR's set loss: one query, one box by hand; padding, empty images, layers, and what is refused."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.losses.set_loss import SetLoss, matching_cost, set_losses

# Two classes and "no object"; probabilities 0.7, 0.2, 0.1 and 0.1, 0.1, 0.8.
LOGITS = np.log(np.array([[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]], np.float32))
# As corners: 0-0.5 x 0-0.5, and 0.5-1 x 0.5-1.
PREDICTED = np.array([[[0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5]]], np.float32)
# As corners: 0-0.5 x 0-1.
TRUTH = np.array([[[0.25, 0.5, 0.5, 1.0]]], np.float32)


def _numpy(terms):
    return {name: ops.convert_to_numpy(values) for name, values in terms.items()}


def test_matching_cost_by_hand():
    cost = ops.convert_to_numpy(matching_cost(np.array([[0]]), TRUTH, LOGITS, PREDICTED))
    # Query 0: L1 0.25 + 0.5 = 0.75; IoU 0.25 / 0.5, nothing of the enclosing box is empty: GIoU 0.5.
    # Query 1: L1 0.5 + 0.25 + 0.5 = 1.25; no overlap, union 0.75 of the enclosing 1: GIoU -0.25.
    np.testing.assert_allclose(cost[0, :, 0], [5 * 0.75 - 0.7 - 2 * 0.5, 5 * 1.25 - 0.1 + 2 * 0.25], rtol=1e-5)


def test_set_losses_by_hand():
    terms = _numpy(set_losses(np.array([[0]]), TRUTH, LOGITS, PREDICTED))
    # Query 0 takes the box; query 1 is "no object", at weight 0.1.
    entropy = (-math.log(0.7) - 0.1 * math.log(0.8)) / 1.1
    np.testing.assert_allclose(terms["classification"], [entropy], rtol=1e-5)
    np.testing.assert_allclose(terms["l1"], [0.75], rtol=1e-5)
    np.testing.assert_allclose(terms["giou"], [0.5], rtol=1e-5)


def test_set_loss_object_weighs_the_terms():
    found = SetLoss()({"labels": np.array([[0]]), "boxes": TRUTH}, {"logits": LOGITS, "boxes": PREDICTED})
    entropy = (-math.log(0.7) - 0.1 * math.log(0.8)) / 1.1
    np.testing.assert_allclose(ops.convert_to_numpy(found), entropy + 5 * 0.75 + 2 * 0.5, rtol=1e-5)


@pytest.mark.parametrize("labels", [np.zeros((1, 0), np.int32), np.array([[-1, -1]])])
def test_set_losses_without_boxes_teach_no_object(labels, gradient):
    padding = np.full((*labels.shape, 4), np.nan, np.float32)
    terms = _numpy(set_losses(labels, padding, LOGITS, PREDICTED))
    entropy = -0.1 * (math.log(0.1) + math.log(0.8)) / 0.2
    np.testing.assert_allclose(terms["classification"], [entropy], rtol=1e-5)
    np.testing.assert_array_equal([terms["l1"], terms["giou"]], [[0], [0]])
    slopes = gradient(lambda logits: ops.sum(set_losses(labels, padding, logits, PREDICTED)["classification"]), LOGITS)
    assert np.isfinite(slopes).all() and slopes[0, 0, 2] < 0


def test_set_losses_padding_and_order_of_boxes_change_nothing():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 6, 4)).astype(np.float32)
    predicted, truth = (rng.uniform(0.2, 0.6, (2, count, 4)).astype(np.float32) for count in (6, 3))
    labels = np.array([[0, 2, 1], [1, 1, 0]])
    expected = _numpy(set_losses(labels, truth, logits, predicted))
    padded = np.concatenate([np.full((2, 1, 4), np.nan, np.float32), truth[:, ::-1]], axis=1)
    found = _numpy(set_losses(np.concatenate([[[-1], [-1]], labels[:, ::-1]], axis=1), padded, logits, predicted))
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5)


def test_set_losses_of_layers_are_those_of_each_alone():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 2, 5, 4)).astype(np.float32)
    predicted = rng.uniform(0.2, 0.6, (3, 2, 5, 4)).astype(np.float32)
    truth, labels = rng.uniform(0.2, 0.6, (2, 2, 4)).astype(np.float32), np.array([[0, 2], [1, -1]])
    together = _numpy(set_losses(labels, truth, logits, predicted))
    for layer in range(3):
        alone = _numpy(set_losses(labels, truth, logits[layer], predicted[layer]))
        for name in alone:
            np.testing.assert_allclose(together[name][layer], alone[name], rtol=1e-5)
    loss = SetLoss(reduction="none")
    total = ops.convert_to_numpy(loss({"labels": labels, "boxes": truth}, {"logits": logits, "boxes": predicted}))
    expected = together["classification"] + 5 * together["l1"] + 2 * together["giou"]
    np.testing.assert_allclose(total, 2 * expected.sum(axis=0), rtol=1e-5)


def test_set_losses_of_half_precision_are_those_of_float32():
    expected = _numpy(set_losses(np.array([[0]]), TRUTH, LOGITS, PREDICTED))
    logits, predicted = ops.cast(LOGITS, "float16"), ops.cast(PREDICTED, "float16")
    for name, values in _numpy(set_losses(np.array([[0]]), TRUTH, logits, predicted)).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-2)
        assert values.dtype == np.float32


def test_set_losses_with_no_object_weight_zero_and_no_box_are_zero():
    terms = _numpy(set_losses(np.array([[-1]]), TRUTH, LOGITS, PREDICTED, no_object_weight=0.0))
    np.testing.assert_array_equal([terms[name] for name in terms], np.zeros((3, 1)))


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch runs eagerly")
def test_set_losses_in_compiled_code_of_unknown_sizes():
    expected = _numpy(set_losses(np.array([[0]]), TRUTH, LOGITS, PREDICTED))
    if keras.backend.backend() == "jax":
        import jax

        found = jax.jit(set_losses)(np.array([[0]]), TRUTH, LOGITS, PREDICTED)
    else:
        import tensorflow as tf

        boxes = tf.TensorSpec((None, None, 4))
        signature = [tf.TensorSpec((None, None), tf.int32), boxes, tf.TensorSpec((None, None, 3)), boxes]
        found = tf.function(lambda *values: set_losses(*values), input_signature=signature)(
            np.array([[0]], np.int32), TRUTH, LOGITS, PREDICTED
        )
    for name, values in _numpy(found).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l1_cost": -1}, r"`l1_cost` is -1, but must be a number of at least 0"),
        ({"no_object_weight": math.nan}, r"`no_object_weight` is nan, but must be"),
        ({"solver": "greedy"}, r"`solver` is 'greedy', but must be one of 'auto'"),
    ],
)
def test_set_loss_of_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        SetLoss(**options)


def _packed(labels, boxes):
    return np.concatenate([labels[..., None].astype(np.float32), boxes], axis=-1)


def test_set_loss_of_packed_tensors_is_that_of_dicts():
    truth, predicted = {"labels": np.array([[0]]), "boxes": TRUTH}, {"logits": LOGITS, "boxes": PREDICTED}
    packed = np.concatenate([LOGITS, PREDICTED], axis=-1)
    expected = ops.convert_to_numpy(SetLoss()(truth, predicted))
    found = SetLoss()(_packed(truth["labels"], TRUTH), packed)
    np.testing.assert_array_equal(ops.convert_to_numpy(found), expected)
    layers = SetLoss()(_packed(truth["labels"], TRUTH), np.stack([packed, packed]))
    np.testing.assert_allclose(ops.convert_to_numpy(layers), 2 * expected, rtol=1e-6)


def _outputs():
    inputs = keras.Input((3,))
    logits = keras.layers.Reshape((4, 3))(keras.layers.Dense(12)(inputs))
    return inputs, logits, keras.layers.Reshape((4, 4))(keras.layers.Dense(16, activation="sigmoid")(inputs))


BATCH = np.array([[0, -1], [1, 0]]), np.random.default_rng(0).uniform(0.3, 0.6, (2, 2, 4)).astype(np.float32)


def test_set_loss_in_compile_trains_packed_outputs():
    keras.utils.set_random_seed(0)
    inputs, logits, boxes = _outputs()
    model = keras.Model(inputs, keras.layers.Concatenate()([logits, boxes]))
    model.compile(keras.optimizers.Adam(0.1), loss=SetLoss())
    losses = model.fit(np.eye(3)[:2], _packed(*BATCH), epochs=10, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]


def test_set_loss_in_compute_loss_trains_outputs_of_a_dict():
    class Model(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return SetLoss()(y, y_pred)

    keras.utils.set_random_seed(0)
    inputs, logits, boxes = _outputs()
    model = Model(inputs, {"logits": logits, "boxes": boxes})
    model.compile(keras.optimizers.Adam(0.1))
    truth = {"labels": BATCH[0], "boxes": BATCH[1]}
    losses = model.fit(np.eye(3)[:2], truth, epochs=10, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("truth", "predicted"), [(np.zeros((1, 1)), LOGITS), (TRUTH, PREDICTED), (np.zeros((1, 1, 5)), PREDICTED)]
)
def test_set_loss_of_the_entries_of_dicts_says_what_to_do(truth, predicted):
    with pytest.raises(ValueError, match=r"must be dicts or packed tensors .* concatenate them, or call the loss in"):
        SetLoss()(truth, predicted)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_set_loss_of_half_precision_keeps_labels_and_boxes(dtype):
    # In bfloat16 the label 299 is 300, and the centre 0.7 is 0.699.
    logits = np.random.default_rng(0).normal(size=(1, 3, 302)).astype(np.float32)
    boxes = np.float32([[[0.7, 0.3, 0.2, 0.1]] * 3])
    truth = {"labels": np.array([[299]]), "boxes": boxes[:, :1]}
    expected = ops.convert_to_numpy(SetLoss()(truth, {"logits": logits, "boxes": boxes}))
    found = SetLoss(dtype=dtype)(truth, {"logits": logits, "boxes": boxes})
    np.testing.assert_array_equal(ops.convert_to_numpy(found), expected)


@pytest.mark.parametrize("label", [2, 3, 99, 0.5, -0.5, math.nan])
def test_set_losses_of_a_label_out_of_range_are_nan_for_its_image_alone(label, gradient):
    logits, predicted, truth = (np.concatenate([part, part]) for part in (LOGITS, PREDICTED, TRUTH))
    labels = np.array([[label], [0]])
    terms = _numpy(set_losses(labels, truth, logits, predicted))
    assert np.isnan(terms["classification"]).tolist() == [True, False]
    assert np.isfinite(terms["l1"]).all() and np.isfinite(terms["giou"]).all()
    slopes = gradient(lambda x: ops.sum(set_losses(labels, truth, x, predicted)["classification"]), logits)
    assert np.isfinite(slopes).all()
    cost = ops.convert_to_numpy(matching_cost(labels, truth, logits, predicted))
    assert np.isnan(cost[0]).all() and np.isfinite(cost[1]).all()

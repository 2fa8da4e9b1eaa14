"""Every loss comes back from its configuration with every argument."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision import losses
from kerasvision.losses.by_name import BY_NAME

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(1, 4, 4, 3)).astype(np.float32)
MASKS = RNG.integers(0, 3, (1, 4, 4))
SHARES = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
QUALITIES = RNG.uniform(0, 1, (5, 3)).astype(np.float32)
BOXES = np.array([[0, 0, 10, 10], [5, 5, 9, 8]], np.float32)
PIXELS = {"from_logits": False, "ignore_class": 2, "reduction": "sum", "name": "p"}
WEIGHTS = {"class_weights": (0.5, 1.0, 2.0)}
REGION = {"mode": "binary", "smooth": 0.5, "log": True, "per_image": True, "absent": "count", "class_weights": (2.0,)}
HALF = np.array([[0, 1, 2, 1]]), np.array([[[0.2], [0.9], [0.1], [0.4]]], np.float32)

# (loss with no argument at its default, truth, predictions)
CASES = {
    "SigmoidFocalLoss": (losses.SigmoidFocalLoss(0.4, 1.5, **PIXELS), QUALITIES.round(), QUALITIES),
    "SoftmaxFocalLoss": (losses.SoftmaxFocalLoss((0.4, 1.0, 2.0), 1.5, **PIXELS), MASKS, SHARES),
    "QualityFocalLoss": (
        losses.QualityFocalLoss(1.5, from_logits=False, reduction="sum", name="q"),
        QUALITIES,
        QUALITIES[::-1].copy(),
    ),
    "DistributionFocalLoss": (
        losses.DistributionFocalLoss(reduction="sum", name="d"),
        MASKS + 0.25,
        LOGITS,
    ),
    "VarifocalLoss": (
        losses.VarifocalLoss(0.5, 1.5, from_logits=False, reduction="sum", name="v"),
        QUALITIES,
        QUALITIES[::-1].copy(),
    ),
    "DiceLoss": (losses.DiceLoss(**REGION, **PIXELS), *HALF),
    "JaccardLoss": (losses.JaccardLoss(**REGION, **PIXELS), *HALF),
    "TverskyLoss": (losses.TverskyLoss(0.2, 0.6, **REGION, **PIXELS), *HALF),
    "FocalTverskyLoss": (losses.FocalTverskyLoss(0.2, 0.6, 1.5, of_mean=True, **REGION, **PIXELS), *HALF),
    "LovaszSoftmaxLoss": (losses.LovaszSoftmaxLoss(per_image=True, **PIXELS), MASKS, SHARES),
    "LovaszHingeLoss": (
        losses.LovaszHingeLoss(per_image=True, ignore_class=2, reduction="sum", name="h"),
        MASKS,
        LOGITS[..., :1],
    ),
    "CrossEntropyLoss": (
        losses.CrossEntropyLoss(label_smoothing=0.2, divide_by_weights=True, **WEIGHTS, **PIXELS),
        MASKS,
        SHARES,
    ),
    "OHEMCrossEntropyLoss": (losses.OHEMCrossEntropyLoss(0.4, 3, **WEIGHTS, **PIXELS), MASKS, SHARES),
    "BoundaryCrossEntropyLoss": (losses.BoundaryCrossEntropyLoss(3.0, 1.5, **WEIGHTS, **PIXELS), MASKS, SHARES),
    "SetLoss": (
        losses.SetLoss(
            class_weight=1.5,
            l1_weight=4.0,
            giou_weight=3.0,
            no_object_weight=0.2,
            class_cost=2.0,
            l1_cost=6.0,
            giou_cost=7.0,
            solver="graph",
            reduction="sum",
            name="s",
        ),
        np.float32([[[1, 0.5, 0.5, 0.2, 0.4]]]),
        np.concatenate([LOGITS[0], np.full((4, 4, 4), 0.4, np.float32)], axis=-1)[:1],
    ),
    "SmoothL1Loss": (losses.SmoothL1Loss(0.3, reduction="sum", name="s"), BOXES, BOXES + 0.2),
    "HuberLoss": (losses.HuberLoss(0.3, reduction="sum", name="h"), BOXES, BOXES + 0.2),
    "BalancedL1Loss": (losses.BalancedL1Loss(0.4, 1.2, 0.8, reduction="sum", name="b"), BOXES, BOXES + 0.2),
    "IoULoss": (losses.IoULoss("log", reduction="sum", name="i"), BOXES, BOXES + 0.2),
    "GIoULoss": (losses.GIoULoss(reduction="sum", name="g"), BOXES, BOXES + 0.2),
    "DIoULoss": (losses.DIoULoss(reduction="sum", name="d"), BOXES, BOXES + 0.2),
    "CIoULoss": (losses.CIoULoss(reduction="sum", name="c"), BOXES, BOXES + 0.2),
}


def test_configs_cover_every_loss():
    assert set(CASES) == {loss.__name__ for loss in BY_NAME.values()}
    assert set(CASES) <= set(losses.__all__)


@pytest.mark.parametrize("name", CASES)
def test_config_round_trip_keeps_every_argument(name):
    loss, truth, predictions = CASES[name]
    loss = type(loss)(**loss.get_config() | {"dtype": "float64"})
    config = loss.get_config()
    constructors = [base.__init__ for base in type(loss).__mro__ if base.__module__.startswith("kerasvision")]
    arguments = {p for c in constructors for p in inspect.signature(c).parameters} - {"self", "kwargs"}
    assert {*arguments, "reduction", "dtype"} <= set(config)
    defaults = type(loss)().get_config()
    assert not [key for key in config if config[key] == defaults[key]], "the test must use no default"
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(restored) is type(loss)
    assert restored.get_config() == config
    assert vars(restored) == vars(loss) and restored.dtype == "float64"
    if keras.backend.backend() == "jax":  # which has no float64
        loss, restored = (type(loss)(**each.get_config() | {"dtype": "float32"}) for each in (loss, restored))
    np.testing.assert_array_equal(
        ops.convert_to_numpy(restored(truth, predictions)), ops.convert_to_numpy(loss(truth, predictions))
    )


def test_dtype_of_a_config_is_that_of_the_sums():
    for given, held in (("float16", "float32"), ("bfloat16", "float32"), (None, "float32"), ("float64", "float64")):
        loss = losses.DiceLoss(dtype=given)
        assert loss.get_config()["dtype"] == loss.dtype == held
    assert losses.DiceLoss(dtype=keras.DTypePolicy("mixed_float16")).get_config()["dtype"] == "float32"


@pytest.mark.parametrize("loss", [losses.CrossEntropyLoss(dtype="float64"), losses.DiceLoss(dtype="float64")])
def test_a_saved_model_keeps_its_losss_dtype(loss, tmp_path):
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Dense(3)])
    model.compile("sgd", loss=loss)
    if keras.backend.backend() != "jax":  # which has no float64
        model.fit(LOGITS, MASKS, verbose=0)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    assert type(restored.loss) is type(loss) and restored.loss.dtype == "float64"
    assert restored.loss.get_config() == loss.get_config()
    if keras.backend.backend() != "jax":
        found, expected = (each.evaluate(LOGITS, MASKS, verbose=0) for each in (restored, model))
        assert found == pytest.approx(expected, rel=1e-6)

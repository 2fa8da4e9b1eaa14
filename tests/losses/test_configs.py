"""Every loss comes back from its configuration with every argument."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision import losses

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(1, 4, 4, 3)).astype(np.float32)
BOXES = np.array([[0, 0, 10, 10], [5, 5, 9, 8]], np.float32)

# (loss with no argument at its default, truth, predictions)
CASES = {
    "SigmoidFocalLoss": (
        losses.SigmoidFocalLoss(0.4, 1.5, from_logits=False, reduction="sum", name="f"),
        np.eye(3, dtype=np.float32)[RNG.integers(0, 3, 5)],
        RNG.uniform(0, 1, (5, 3)).astype(np.float32),
    ),
    "DiceLoss": (
        losses.DiceLoss(from_logits=False, ignore_class=2, smooth=0.5, name="d", reduction="mean"),
        RNG.integers(0, 3, (1, 4, 4)),
        ops.convert_to_numpy(ops.softmax(LOGITS)),
    ),
    "SmoothL1Loss": (losses.SmoothL1Loss(0.3, reduction="sum", name="s"), BOXES, BOXES + 0.2),
    "GIoULoss": (losses.GIoULoss(reduction="sum", name="g"), BOXES, BOXES + 0.2),
}


def test_configs_cover_every_loss():
    assert set(CASES) == set(losses.__all__)


@pytest.mark.parametrize("name", CASES)
def test_config_round_trip_keeps_every_argument(name):
    loss, truth, predictions = CASES[name]
    config = loss.get_config()
    arguments = [p for p in inspect.signature(type(loss)).parameters if p != "kwargs"]
    assert {*arguments, "reduction"} <= set(config)
    defaults = type(loss)().get_config()
    assert not [key for key in config if config[key] == defaults[key]], "the test must use no default"
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(restored) is type(loss)
    assert restored.get_config() == config
    assert vars(restored) == vars(loss)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(restored(truth, predictions)), ops.convert_to_numpy(loss(truth, predictions))
    )

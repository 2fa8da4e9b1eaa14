"""Losses by name."""

import keras
import pytest

from kerasvision import losses
from kerasvision.losses.by_name import BY_NAME


@pytest.mark.parametrize("name", BY_NAME)
def test_every_loss_is_known_by_the_name_it_has(name):
    loss = losses.get(name)
    assert type(loss) is BY_NAME[name]
    assert loss.name == name


def test_options_reach_the_loss():
    assert losses.get("tversky", alpha=0.1, per_image=True).get_config()["alpha"] == 0.1


def test_other_identifiers_mean_what_they_mean_to_keras():
    loss = losses.DiceLoss()
    assert losses.get(loss) is loss
    assert losses.get(None) is None
    assert losses.get("mse") is keras.losses.get("mse")
    assert losses.get(len) is len
    restored = losses.get(keras.losses.serialize(losses.TverskyLoss(0.1)))
    assert isinstance(restored, losses.TverskyLoss) and restored.alpha == 0.1


def test_unknown_names_list_close_ones():
    with pytest.raises(ValueError, match="`identifier` 'dise' is no loss's name; did you mean 'dice'"):
        losses.get("dise")


def test_options_of_a_loss_that_is_made_are_refused():
    with pytest.raises(ValueError, match="takes no options here, but alpha came"):
        losses.get(losses.DiceLoss(), alpha=1)


def test_names_in_capitals_mean_ours():
    assert type(losses.get("Dice", mode="binary")) is losses.DiceLoss
    assert type(losses.get("Huber")) is losses.HuberLoss
    assert losses.get("MSE") is keras.losses.mean_squared_error

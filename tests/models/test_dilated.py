"""Segmenters with a dilated backbone: sizes, auxiliary heads, recipes."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones.resnet import resnet10
from kerasvision.layers import FCNHead
from kerasvision.models import DeepLabV3, DilatedFCN
from kerasvision.models.auxiliary import attach_auxiliary, auxiliary_logits
from kerasvision.models.rate_factors import LayerwiseSGD


def _backbone(output_stride=8):
    return resnet10(widths=(8, 8, 8, 8), stem_filters=8, output_stride=output_stride)


def _models(**options):
    keras.utils.set_random_seed(0)
    return (
        DilatedFCN(_backbone(), 3, **options),
        DeepLabV3(_backbone(16), 3, filters=8, rates=(2, 4), **options),
    )


@pytest.mark.parametrize("size_hw", [(1, 1), (31, 57), (64, 40)])
def test_logits_and_auxiliary_logits_have_the_size_of_the_image(size_hw):
    images = np.random.default_rng(0).uniform(0, 255, (2, *size_hw, 3)).astype(np.float32)
    for model in _models(auxiliary=True):
        logits = model(images)
        (auxiliary,) = auxiliary_logits(logits)
        assert tuple(logits.shape) == tuple(auxiliary.shape) == (2, *size_hw, 3)
        assert np.isfinite(ops.convert_to_numpy(logits)).all()


def test_model_without_auxiliary_heads_attaches_none():
    for model in _models():
        assert auxiliary_logits(model(np.zeros((1, 16, 16, 3), np.float32))) == []
        assert model.loss_names == ("cross_entropy",)


def test_auxiliary_logits_are_worked_out_only_when_asked_for():
    calls = []
    logits = attach_auxiliary(ops.zeros((1, 2, 2, 3)), lambda: calls.append(1) or [ops.ones((1, 2, 2, 3))])
    assert not calls
    assert len(auxiliary_logits(logits)) == 1 and calls == [1]


def test_auxiliary_cross_entropy_is_half_of_that_of_the_auxiliary_logits(images):
    model, _ = _models(auxiliary=True)
    masks = np.full((4, 64, 96), 255, np.uint8)
    masks[:, :10, :10] = 1
    (auxiliary,) = auxiliary_logits(model(images))
    logits = ops.convert_to_numpy(auxiliary)[:, :10, :10].astype(np.float64)
    expected = np.mean(np.log(np.exp(logits).sum(axis=-1)) - logits[..., 1])
    losses = model.compute_losses(images, masks)
    assert list(losses) == ["cross_entropy", "auxiliary_cross_entropy"]
    assert float(losses["auxiliary_cross_entropy"]) == pytest.approx(0.5 * expected, rel=1e-5)


def test_compiled_loss_is_taken_of_the_auxiliary_logits_too(images):
    model, _ = _models(auxiliary=True)
    masks = np.random.default_rng(1).integers(0, 3, (4, 64, 96))
    model.compile(optimizer="sgd", loss="cross_entropy")
    logits = model(images)
    own = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    parts = [float(own(masks, part)) for part in (logits, *auxiliary_logits(logits))]
    loss = model.compute_loss(images, ops.convert_to_tensor(masks), logits)
    assert float(loss) == pytest.approx(parts[0] + 0.5 * parts[1], rel=1e-5)


def test_fit_trains_the_auxiliary_head_and_logs_its_loss(images, compiled):
    model, _ = _models(auxiliary=True)
    masks = np.random.default_rng(1).integers(0, 3, (4, 64, 96)).astype(np.uint8)
    before = [ops.convert_to_numpy(variable) for variable in model.auxiliary_head.variables]
    history = model.fit(images, masks, batch_size=2, verbose=0, validation_data=(images, masks)).history
    assert {"auxiliary_cross_entropy", "val_auxiliary_cross_entropy"} <= history.keys()
    assert history["loss"][0] == pytest.approx(
        history["cross_entropy"][0] + history["auxiliary_cross_entropy"][0], rel=1e-4
    )
    changed = [
        np.abs(ops.convert_to_numpy(variable) - old).max() > 0
        for variable, old in zip(model.auxiliary_head.variables, before, strict=True)
        if "seed" not in variable.path
    ]
    assert all(changed)  # moving statistics too


def test_auxiliary_feature_that_the_backbone_lacks_says_so():
    with pytest.raises(ValueError, match="`auxiliary_feature` 5 must be the position of one of the backbone's 5"):
        DilatedFCN(_backbone(), 3, auxiliary=True, auxiliary_feature=5)


def test_config_round_trip_keeps_every_argument():
    model = DeepLabV3(
        _backbone(), 3, rates=(3, 5), filters=16, dropout=0.25, auxiliary=True, auxiliary_feature=1, align_corners=True
    )
    again = DeepLabV3.from_config(model.get_config())
    assert (again.head.rates, again.head.filters, again.head.dropout) == ((3, 5), 16, 0.25)
    assert (again.auxiliary, again.auxiliary_feature, again.align_corners) == (True, 1, True)
    fcn = DilatedFCN.from_config(DilatedFCN(_backbone(), 3, dropout=0.3).get_config())
    assert fcn.head.dropout == 0.3 and not fcn.auxiliary


def test_head_of_a_dropout_that_is_no_share_says_so():
    with pytest.raises(ValueError, match=r"`dropout` 1 must be in \[0, 1\); 0.1 is usual"):
        FCNHead(3, dropout=1)


def test_recipe_trains_the_auxiliary_head_ten_times_as_fast(images):
    """With gradients of 1, SGD's first step is the learning rate, 0.02 x 4 / 32 here, and ten times that."""
    model, _ = _models(auxiliary=True)
    model.compile()
    assert isinstance(model.optimizer, LayerwiseSGD)
    optimizer = LayerwiseSGD(0.5, rate_factors=(("auxiliary_head", 10.0),))
    variables = [model.head.score.bias, model.auxiliary_head.score.bias]
    before = [ops.convert_to_numpy(variable) for variable in variables]
    optimizer.apply([ops.ones_like(variable) for variable in variables], variables)
    steps = [old - ops.convert_to_numpy(variable) for old, variable in zip(before, variables, strict=True)]
    np.testing.assert_allclose(steps, [[0.5] * 3, [5.0] * 3], rtol=1e-6)
    again = LayerwiseSGD.from_config(optimizer.get_config())
    assert again.rate_factors == (("auxiliary_head", 10.0),)


def test_polynomial_decay_has_a_power_of_nine_tenths():
    schedule = DeepLabV3.default_recipe.schedule(total_steps=100, batch_size=32)
    assert float(schedule(0)) == pytest.approx(0.02)
    assert float(schedule(50)) == pytest.approx(0.02 * 0.5**0.9)
    assert float(schedule(100)) == pytest.approx(0.0)

"""Segmenters with a dilated backbone: sizes, auxiliary heads, recipes."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones.resnet import resnet10
from kerasvision.layers import FCNHead
from kerasvision.models import DeepLabV2, DeepLabV3, DeepLabV3Plus, DilatedFCN
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


def test_deeplabv2_logits_are_the_largest_of_the_scales():
    """Where a pixel's scales agree, as on a picture of one colour away from its border, so does their maximum."""
    keras.utils.set_random_seed(0)
    model = DeepLabV2(_backbone(), 3, rates=(1, 2), scales=(0.5,))
    images = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    logits = model(images)
    scales = [ops.convert_to_numpy(part) for part in auxiliary_logits(logits)]
    assert len(scales) == 2 and not np.array_equal(*scales)
    # Both are enlarged from the same 8 x 8 cells, at whose centres nothing is interpolated.
    whole = ops.convert_to_numpy(model.one_scale(model.prepare(images)))
    half = ops.convert_to_numpy(model.one_scale(images_of_half_the_size(model.prepare(images))))
    assert whole.shape == (1, 8, 8, 3) and half.shape == (1, 4, 4, 3)
    assert ops.convert_to_numpy(logits).max() <= max(part.max() for part in (whole, half)) + 1e-5
    assert (ops.convert_to_numpy(logits) >= scales[0] - 1e-5).all()


def images_of_half_the_size(pixels):
    """Return the means of 2 x 2 pixels: bilinear samples between them."""
    pixels = ops.convert_to_numpy(pixels)
    batch, height, width, channels = pixels.shape
    return pixels.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def test_deeplabv2_trains_every_scale(images):
    model = DeepLabV2(_backbone(), 3, rates=(1, 2), scales=(0.5, 0.75))
    masks = np.zeros((4, 64, 96), np.uint8)
    logits = model(images)
    own = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    expected = sum(float(own(masks, part)) for part in auxiliary_logits(logits))
    losses = model.compute_losses(images, masks)
    assert float(losses["auxiliary_cross_entropy"]) == pytest.approx(expected, rel=1e-5)
    alone = DeepLabV2(_backbone(), 3, rates=(1, 2), scales=())
    assert alone.loss_names == ("cross_entropy",) and auxiliary_logits(alone(images)) == []


def test_deeplabv2_of_a_scale_that_does_not_shrink_says_so():
    with pytest.raises(ValueError, match=r"`scales` \(1.5,\) must be factors between 0 and 1"):
        DeepLabV2(_backbone(), 3, scales=(1.5,))


@pytest.mark.parametrize("size_hw", [(1, 1), (31, 57)])
def test_deeplabv2_and_v3_plus_logits_have_the_size_of_the_image(size_hw):
    image = np.zeros((1, *size_hw, 3), np.float32)
    options = {"filters": 8, "rates": (1, 2), "low_level_filters": 4}
    for model in (DeepLabV2(_backbone(), 3, rates=(1, 2)), DeepLabV3Plus(_backbone(16), 3, **options)):
        assert tuple(model(image).shape) == (1, *size_hw, 3)


def test_deeplabv3plus_joins_features_of_stride_4(images):
    model = DeepLabV3Plus(_backbone(16), 3, filters=8, rates=(1, 2), low_level_filters=4)
    features = model.backbone(model.prepare(images))
    fine, coarse = model.head_features(features)
    assert tuple(fine.shape[1:3]) == (16, 24) and tuple(coarse.shape[1:3]) == (4, 6)
    assert tuple(model.head([fine, coarse]).shape) == (4, 16, 24, 3)


def test_deeplabv2_and_v3_plus_config_round_trips_keep_every_argument():
    plus = DeepLabV3Plus(
        _backbone(16),
        3,
        filters=8,
        rates=(1, 3),
        low_level_filters=4,
        before=0,
        after=2,
        separable=False,
        dropout=0.1,
        epsilon=1e-3,
        align_corners=False,
    )
    config = plus.get_config()
    assert DeepLabV3Plus.from_config(config).get_config() == config
    assert (config["before"], config["after"], config["separable"], config["align_corners"]) == (0, 2, False, False)
    config = DeepLabV2(_backbone(), 3, rates=(1, 2), scales=(0.25,)).get_config()
    assert DeepLabV2.from_config(config).get_config() == config
    assert config["scales"] == (0.25,) and config["rates"] == (1, 2)


def test_deeplabv3plus_on_a_backbone_without_stride_4_says_so():
    class Coarse:
        strides = (8, 16)

    with pytest.raises(
        ValueError, match=r"`backbone` has features of strides \(8, 16\), but the decoder needs one of 4"
    ):
        DeepLabV3Plus(Coarse(), 3)

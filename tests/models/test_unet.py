"""U-Nets: sizes without padding, what fits a backbone, branches, weights of pixels in training."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision import data
from kerasvision.backbones.alexnet import alexnet
from kerasvision.backbones.contracting_path import ContractingPath
from kerasvision.backbones.mobilenet_v2 import mobilenet_v2
from kerasvision.backbones.mobilenet_v3 import mobilenet_v3_small
from kerasvision.backbones.resnet import resnet10
from kerasvision.backbones.vgg import vgg8
from kerasvision.losses import unet_weight_map
from kerasvision.models import AttentionUNet, UNet, UNetPlusPlus
from kerasvision.models.attention_unet import attention_unet
from kerasvision.models.auxiliary import auxiliary_logits
from kerasvision.models.unet import unet, unet_batch_norm, unet_resnet10, unet_valid
from kerasvision.models.unet_plus_plus import unet_plus_plus
from kerasvision.models.unet_s5_d16 import unet_s5_d16
from kerasvision.ops.resizing import ResizeRule

WIDTHS = (4, 6, 8)


def _numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def _image(height, width, count=1):
    return np.random.default_rng(0).uniform(0, 255, (count, height, width, 3)).astype(np.float32)


# --- without padding


# Two steps: 12 * 4 - 8 = 40 pixels are lost, 20 on each side, and logits have 4 k + 4 pixels a side.
@pytest.mark.parametrize(("size", "logits"), [(1, 4), (4, 4), (5, 8), (8, 8), (9, 12), (30, 32)])
def test_valid_unet_mirrors_by_what_the_convolutions_take(size, logits):
    model = unet_valid(2, widths=WIDTHS, dropout=0.0)
    image = _image(size, 8)
    canvas = _numpy(model.prepare(image))
    assert canvas.shape == (1, logits + 40, 8 + 40, 3)
    normalised = _numpy(model.image_normalization(image))
    np.testing.assert_array_equal(canvas[:, 20 : 20 + size, 20:28], normalised)
    np.testing.assert_array_equal(canvas[:, 20 : 20 + size, 19], normalised[:, :, 1])  # the border is not repeated
    *skips, bottom = model.backbone(canvas)
    assert bottom.shape[1] == logits // 4 + 7 - 4 and [skip.shape[1] for skip in skips] == [
        logits + 36,
        logits // 2 + 14,
    ]
    assert model(image).shape == (1, size, 8, 2)


def test_valid_unet_of_a_padded_batch_mirrors_each_image():
    model = unet_valid(2, widths=WIDTHS, dropout=0.0)
    small, large = _image(10, 13), _image(16, 16)
    canvas = np.full((2, 16, 16, 3), 99, np.float32)
    canvas[0, :10, :13], canvas[1] = small[0], large[0]
    found = _numpy(model({"images": canvas, "sizes_hw": np.array([(10, 13), (16, 16)], np.int32)}))
    np.testing.assert_allclose(found[1:], _numpy(model(large)), atol=1e-4)
    np.testing.assert_allclose(found[:1, :10, :13], _numpy(model(small)), atol=1e-4)


def test_valid_unet_survives_its_config():
    model = unet_valid(2, widths=WIDTHS)
    copy = UNet.from_config(model.get_config())
    assert copy.padding == copy.backbone.padding == copy.decoder[0].padding == "valid"
    with pytest.raises(ValueError, match="`padding` 'full' is unknown; use 'same' or 'valid'"):
        unet(2, widths=WIDTHS, padding="full")


# --- odd sizes


def test_unets_fit_odd_sizes_without_padding_the_image():
    model = unet_batch_norm(2, widths=WIDTHS, pad_to_multiple=False)
    assert [feature.shape[1:3] for feature in model.backbone(_image(13, 7))] == [(13, 7), (6, 3), (3, 1)]
    assert model(_image(13, 7)).shape == (1, 13, 7, 2)
    # Fewer pixels than poolings can take are filled up to a cell of the coarsest feature.
    assert model.prepare(_image(1, 2)).shape == (1, 4, 4, 3)
    padded = unet_batch_norm(2, widths=WIDTHS)
    padded.set_weights(model.get_weights())
    np.testing.assert_allclose(_numpy(padded(_image(12, 8))), _numpy(model(_image(12, 8))), atol=1e-5)
    assert padded.prepare(_image(13, 7)).shape == (1, 16, 8, 3)
    assert unet_resnet10(2, pad_to_multiple=False)(_image(33, 47)).shape == (1, 33, 47, 2)


def test_steps_that_do_not_fit_the_backbone_are_named():
    path = ContractingPath(WIDTHS)
    for architecture in (UNet, AttentionUNet, UNetPlusPlus):
        with pytest.raises(
            ValueError, match=r"`decoder_filters` \(8,\) has 1 steps, but the backbone gives 3 features"
        ):
            architecture(path, 2, decoder_filters=(8,))
        # Either would give logits of half or twice the image's resolution.
        with pytest.raises(ValueError, match=r"3 features, the first of stride 1; give 2 steps"):
            architecture(path, 2, decoder_filters=(8, 8, 8))
        with pytest.raises(ValueError, match=r"has 4 steps, but .* 5 features, the first of stride 2; give 5 steps"):
            architecture(resnet10(), 2, decoder_filters=(8, 8, 8, 8))


@pytest.mark.parametrize("backbone", [lambda: resnet10(output_stride=16), lambda: alexnet(pooled=True)])
def test_backbones_that_do_not_halve_from_the_image_on_are_named(backbone):
    for architecture in (UNet, AttentionUNet, UNetPlusPlus):
        with pytest.raises(
            ValueError, match=r"`backbone` '.*' has features of strides \(.*16.*\), but each must have tw"
        ):
            architecture(backbone(), 2, decoder_filters=(8, 8, 8))


def test_backbone_that_does_not_say_its_strides_is_believed():
    images = keras.Input((None, None, 3))
    first = keras.layers.Conv2D(4, 3, padding="same")(images)
    second = keras.layers.Conv2D(4, 3, strides=2, padding="same")(first)
    model = UNet(keras.Model(images, [first, second]), 2, decoder_filters=(8,))
    assert model(_image(13, 7)).shape == (1, 13, 7, 2)
    with pytest.raises(ValueError, match=r"has 3 steps, but the backbone gives 2 features; give 1 or 2 steps"):
        UNet(keras.Model(images, [first, second]), 2, decoder_filters=(8, 8, 8))


@pytest.mark.parametrize("backbone", [mobilenet_v2, mobilenet_v3_small, vgg8])
def test_unet_takes_any_backbone_that_halves_and_gives_the_images_size(backbone):
    backbone = backbone()
    steps = len(backbone.strides) - (backbone.strides[0] == 1)
    model = UNet(backbone, 2, decoder_filters=(8,) * steps, upsampling="nearest", normalization="batch")
    for size_hw in ((1, 1), (31, 57)):
        assert model(_image(*size_hw)).shape == (1, *size_hw, 2)


# --- attention


def test_attention_unet_gates_all_but_the_finest_skip():
    model = attention_unet(2, widths=(4, 6, 8, 10))
    assert len(model.gates) == 2
    assert [gate.theta.filters for gate in model.gates] == [8, 6]
    for gate in model.gates:
        gate.psi.kernel.assign(np.zeros(gate.psi.kernel.shape))
        gate.psi.bias.assign([-100.0])  # nothing passes
    *skips, bottom = model.backbone(_image(16, 16))
    for step, (skip, coarser) in enumerate(((skips[2], bottom), (skips[1], skips[2]))):
        gated = model.skip_connection(step, skip, coarser, training=False)
        assert np.abs(_numpy(skip)).max() > 0.1 and np.abs(_numpy(gated)).max() < 1e-6
    assert model.skip_connection(2, skips[0], skips[1], training=False) is skips[0]


def test_attention_unet_resnet_has_a_gate_a_skip_but_the_finest():
    backbone = resnet10(widths=(8, 8, 8, 8), stem_filters=8)
    model = AttentionUNet(backbone, 2, decoder_filters=(8, 8, 8, 8, 4), attention_filters=3)
    assert [gate.theta.filters for gate in model.gates] == [3, 3, 3]
    assert model(_image(40, 33)).shape == (1, 40, 33, 2)


# --- deep supervision


def test_unet_plus_plus_answers_with_the_mean_of_its_branches():
    keras.utils.set_random_seed(0)
    model = unet_plus_plus(3, widths=WIDTHS, deep_supervision=True)
    logits = model(_image(9, 14))
    branches = [_numpy(branch) for branch in auxiliary_logits(logits)]
    assert [branch.shape for branch in branches] == [(1, 9, 14, 3)] * 2
    assert np.abs(branches[0] - branches[1]).max() > 1e-3
    np.testing.assert_allclose(_numpy(logits), np.mean(branches, axis=0), atol=1e-5)


def test_unet_plus_plus_fast_mode_uses_the_nodes_of_its_branch_alone():
    model = unet_plus_plus(3, widths=WIDTHS, deep_supervision=True, branch=1)
    before = _numpy(model(_image(8, 8)))
    for name in ("0_2", "1_1"):
        for weight in model.nodes[name].weights:
            weight.assign(np.full(weight.shape, np.nan))
    np.testing.assert_array_equal(_numpy(model(_image(8, 8))), before)
    (first, second) = auxiliary_logits(model(_image(8, 8)))
    assert np.isfinite(_numpy(first)).all() and not np.isfinite(_numpy(second)).any()


@pytest.mark.parametrize("options", [{"branch": 1}, {"deep_supervision": True, "branch": 3}])
def test_unet_plus_plus_branch_that_is_not_there_is_named(options):
    with pytest.raises(ValueError, match=r"`branch` \d must be 1 to 2, with deep_supervision=True"):
        unet_plus_plus(3, widths=WIDTHS, **options)


def test_unet_s5_d16_auxiliary_head_shares_the_loss():
    model = unet_s5_d16(3, widths=WIDTHS, head_filters=4, dropout=0.0)
    images, masks = _image(8, 12), np.zeros((1, 8, 12), np.int32)
    losses = model.compute_losses(images, masks)
    assert set(losses) == {"cross_entropy", "auxiliary_cross_entropy"}
    (auxiliary,) = auxiliary_logits(model(images))
    expected = -0.4 * _numpy(ops.log_softmax(auxiliary))[..., 0].mean()
    np.testing.assert_allclose(_numpy(losses["auxiliary_cross_entropy"]), expected, rtol=1e-5)
    alone = unet_s5_d16(3, widths=WIDTHS, head_filters=4, auxiliary=False)
    assert set(alone.compute_losses(images, masks)) == {"cross_entropy"}
    assert auxiliary_logits(alone(images)) == []


# --- weights of pixels


def test_unet_takes_the_weights_of_pixels_under_a_compiled_loss():
    model = unet(2, widths=WIDTHS, dropout=0.0)
    model.compile(optimizer="sgd", loss="cross_entropy")
    images, masks = _image(8, 8), np.zeros((1, 8, 8), np.int32)
    masks[0, :, 6:], masks[0, 0] = 1, 255
    instances = np.zeros((8, 8), np.int32)
    instances[:, :2], instances[:, 6:] = 1, 2
    # Between two objects with 4 columns of background: d1 + d2 = 5 in every column.
    weights = unet_weight_map(instances, background_weight=1.0)[None]
    np.testing.assert_allclose(weights[0, 3], [1, 1, *[1 + 10 * np.exp(-25 / 50)] * 4, 1, 1], rtol=1e-6)
    logits = model(images)
    probabilities = _numpy(ops.softmax(logits))
    losses = -np.log(np.where(masks == 1, probabilities[..., 1], probabilities[..., 0]))[masks != 255]
    expected = (losses * weights[masks != 255]).sum() / losses.size
    args = (images, ops.convert_to_tensor(masks), logits)
    found = model.compute_loss(*args, sample_weight=ops.convert_to_tensor(weights))
    np.testing.assert_allclose(_numpy(found), expected, rtol=1e-4)
    plain = model.compute_loss(*args)
    np.testing.assert_allclose(_numpy(plain), losses.mean(), rtol=1e-4)


def test_unet_trains_on_streets_with_the_weight_map(eager):
    streets = data.load("streets", split="train", count=4, size_hw=(64, 96))
    batches = data.pipeline(
        streets,
        task="segmentation",
        resize=ResizeRule("stretch", size_hw=(32, 48)),
        batch_size=2,
        training=True,
        pixel_weights=unet_weight_map,
    )
    keras.utils.set_random_seed(0)
    model = unet(len(streets.mask_classes), widths=WIDTHS, normalization="batch", dropout=0.0)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="cross_entropy")
    losses = model.fit(batches, epochs=6, shuffle=False, verbose=0).history["loss"]
    assert np.isfinite(losses).all() and losses[-1] < 0.9 * losses[0]

"""FCN: the published geometry, values by hand, sizes, configuration, errors. Equality is tested in tests/parity."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones.alexnet import AlexNet
from kerasvision.backbones.resnet import ResNet
from kerasvision.backbones.vgg import VGG
from kerasvision.models import fcn
from kerasvision.models.complexity import count_macs
from kerasvision.models.fcn import FCN

NARROW = {"widths": (2, 3, 4, 5, 6), "fc_filters": 4}


def _vgg(**options):
    return VGG((1, 1, 1, 1, 1), **{"widths": (2, 2, 2, 2, 2), "pooled": True, **options})


def _alexnet(**options):
    return AlexNet((2, 2, 2, 2, 2), **{"groups": 1, "pooled": True, **options})


@pytest.mark.parametrize(
    ("backbone", "options", "offset", "kernel_size", "skips"),
    [
        # The authors' prototxts: kernels 64, 32, 16 and 4, offsets 19, 27, 31 and 5, 9.
        (_vgg, {"stride": 32}, 19, 64, []),
        (_vgg, {"stride": 16}, 27, 32, [(5, 4)]),
        (_vgg, {"stride": 8}, 31, 16, [(5, 4), (9, 4)]),
        # Kernel 63, offset 18; finer ones are not published.
        (_alexnet, {"stride": 32, "margin": 100, "fc_kernel_size": 6}, 18, 63, []),
        (_alexnet, {"stride": 16, "margin": 100, "fc_kernel_size": 6}, 18, 31, [(5, 3)]),
        (_alexnet, {"stride": 8, "margin": 100, "fc_kernel_size": 6}, 18, 15, [(5, 3), (10, 3)]),
        # Without a margin, half of what the kernel exceeds the stride by.
        (_vgg, {"stride": 32, "margin": None}, 16, 64, []),
        (_vgg, {"stride": 8, "margin": None}, 4, 16, [(-1, 4), (-1, 4)]),
    ],
)
def test_fcn_offsets_follow_from_the_geometry(backbone, options, offset, kernel_size, skips):
    model = FCN(backbone(), 3, fc_filters=4, **options)
    assert (model.offset, model.enlarge.kernel_size) == (offset, kernel_size)
    assert [(skip.offset, skip.kernel_size) for skip in model.skips] == skips


def test_fcn_of_torchvisions_alexnet_has_the_same_margin_in_all():
    model = fcn.fcn32s_alexnet(3, layout="torchvision", widths=(2, 2, 2, 2, 2), fc_filters=4)
    assert (model.margin, model.offset) == (98, 18)


def _copying(model):
    """Let the backbone, fc6 and fc7 copy channel 0, so that each cell holds the largest value of its pixels."""
    layers = [layer for layer in model.backbone.layers if layer.weights] + [model.fc6, model.fc7]
    for layer in layers:
        kernel = np.zeros(layer.kernel.shape)
        kernel[kernel.shape[0] // 2, kernel.shape[1] // 2, 0, 0] = 1
        layer.kernel.assign(kernel)
    return model


@pytest.mark.parametrize("margin", [None, 99])
@pytest.mark.parametrize("scored", [32, 16, 8])
def test_fcn8s_by_hand(margin, scored):
    """One of the three maps is scored, of an image whose value is its column: enlarged, a line stays one."""
    image = np.broadcast_to(np.arange(256, dtype=np.float32)[None, None, :, None], (1, 64, 256, 3))
    model = FCN(_vgg(), 2, margin=margin, fc_filters=3, image_mean=(0, 0, 0), image_std=(1, 1, 1))
    _copying(model)
    layer = {32: model.score, 16: model.skips[0].score, 8: model.skips[1].score}[scored]
    kernel = np.zeros(layer.kernel.shape)
    kernel[0, 0, 0] = (1, -1)
    layer.kernel.assign(kernel)
    logits = ops.convert_to_numpy(model(image))
    assert logits.shape == (1, 64, 256, 2)
    np.testing.assert_allclose(logits[..., 1], -logits[..., 0], atol=1e-4)
    # A cell's largest value is that of its last column, half a cell to the right of its middle.
    inner = np.arange(2 * scored, 256 - 2 * scored)
    np.testing.assert_allclose(logits[0, 32, inner, 0], inner + (scored - 1) / 2, atol=1e-3)


def test_fcn32s_by_hand_up_to_the_border():
    """Two cells of 2 and 6 between zeros, interpolated 32 times, in both directions."""
    image = np.repeat(np.array([2, 6], np.float32), 32)[None, None, :, None] * np.ones((1, 64, 1, 3), np.float32)
    model = FCN(_vgg(), 1, stride=32, margin=None, fc_filters=3, image_mean=(0, 0, 0), image_std=(1, 1, 1))
    _copying(model).score.kernel.assign(np.array([1, 0, 0]).reshape(1, 1, 3, 1))
    place = (np.arange(64) + 0.5) / 32 - 0.5
    rows, columns = np.interp(place, [-1, 0, 1, 2], [0, 1, 1, 0]), np.interp(place, [-1, 0, 1, 2], [0, 2, 6, 0])
    np.testing.assert_allclose(ops.convert_to_numpy(model(image))[0, :, :, 0], np.outer(rows, columns), atol=1e-5)


@pytest.mark.parametrize(
    "build", [fcn.fcn32s_vgg16, fcn.fcn16s_vgg16, fcn.fcn8s_vgg16, fcn.fcn32s_alexnet, fcn.fcn16s_alexnet]
)
def test_fcn_logits_have_the_images_size(build):
    options = {**NARROW, "widths": (2, 4, 4, 4, 6)}
    model = build(3, **options)
    assert model.name == build.__name__
    for size_hw in ((1, 1), (31, 57), (500, 333)):
        logits = model(np.zeros((1, *size_hw, 3), np.uint8))
        assert tuple(logits.shape) == (1, *size_hw, 3)
        assert not ops.convert_to_numpy(logits).any()  # classes are scored by zeros at first


@pytest.mark.parametrize("margin", [None, 99])
def test_fcn_covers_images_of_every_size(margin):
    model = FCN(_vgg(), 3, margin=margin, fc_filters=4)
    for size in range(1, 100):
        padded = size + 2 * (margin or 0)
        *finer, last = (shape[1] for shape in model.backbone.compute_output_shape((None, padded, 1000, 3)))
        shape = (None, last - (6 if margin else 0), 20, 3)
        for skip in model.skips:
            fine = (None, finer.pop(), 1000, 3)
            wanted = skip.enlarge.compute_output_shape(shape)[1] + skip.offset
            assert fine[1] >= wanted if skip.offset > 0 else fine[1] <= wanted
            shape = skip.compute_output_shape(shape, fine)
        assert model.enlarge.compute_output_shape(shape)[1] >= model.offset + size


def test_fcn_dropout_is_for_training_only():
    model = FCN(_vgg(), 2, stride=32, margin=None, fc_filters=64)
    model.score.kernel.assign(np.ones(model.score.kernel.shape))
    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    inference = [ops.convert_to_numpy(model(image)) for _ in range(2)]
    training = [ops.convert_to_numpy(model(image, training=True)) for _ in range(2)]
    np.testing.assert_array_equal(*inference)
    assert np.abs(training[0] - training[1]).max() > 0.01 * np.abs(inference[0]).max()


def test_fcn_learned_upsampling_is_that_of_the_skips():
    options = {"stride": 8, "margin": None, "fc_filters": 4}
    fixed, learned = FCN(_vgg(), 3, **options), FCN(_vgg(), 3, learned_upsampling=True, **options)
    assert len(learned.trainable_variables) == len(fixed.trainable_variables) + 2 == len(learned.weights)
    # 4 x 4 taps of 3 x 3 channels, at each of 2 x 3 cells and then at 4 x 6.
    difference = count_macs(learned, size_hw=(64, 96)) - count_macs(fixed, size_hw=(64, 96))
    assert difference == 16 * 9 * (2 * 3 + 4 * 6)


OPTIONS = {
    "stride": 16,
    "margin": 110,
    "fc_kernel_size": 5,
    "fc_filters": 8,
    "dropout": 0.25,
    "skip_scales": (0.5,),
    "learned_upsampling": True,
    "name": "another",
}


def test_fcn_config_round_trip_keeps_every_argument(tmp_path):
    model = FCN(_vgg(normalization="batch"), 3, dtype="mixed_bfloat16", **OPTIONS)
    model.score.kernel.assign(np.ones(model.score.kernel.shape))
    config = model.get_config()
    assert {name: config[name] for name in OPTIONS} == OPTIONS
    image = np.random.default_rng(0).uniform(0, 255, (1, 40, 60, 3)).astype(np.float32)
    model.save(tmp_path / "fcn.keras")
    copy = FCN.from_config(config)
    copy.set_weights(model.get_weights())
    for other in (copy, keras.saving.load_model(tmp_path / "fcn.keras")):
        assert other.get_config() == config
        assert (other.offset, other.skips[0].scale) == (model.offset, 0.5)
        found, expected = (ops.convert_to_numpy(ops.cast(m(image), "float32")) for m in (other, model))
        np.testing.assert_array_equal(found, expected)
        assert expected.any()


@pytest.mark.parametrize(
    ("backbone", "options", "message"),
    [
        (
            lambda: ResNet("basic", (1, 1, 1, 1), widths=(2, 2, 2, 2), stem_filters=2),
            {},
            "`backbone` 'resnet' must say where its cells lie and round sizes up; use VGG or AlexNet",
        ),
        (lambda: _vgg(ceil_mode=False), {}, "`backbone` 'vgg' must say where its cells lie and round sizes up"),
        (_vgg, {"stride": 12}, r"`stride` 12 must be one of the backbone's \(2, 4, 8, 16, 32\)"),
        (lambda: _vgg(output_stride=8), {}, r"`stride` 8 must be one of the backbone's \(2, 4, 8, 8, 8\), each of whi"),
        (_vgg, {"margin": None, "fc_kernel_size": 6}, "`fc_kernel_size` 6 must be odd without a `margin`"),
        (_vgg, {"margin": 90}, "`margin` 90 leaves 6 cells of an image of one pixel, fewer than the 7 that"),
        (_alexnet, {"margin": None}, "`margin` None leaves 0 cells of an image of one pixel, fewer than the 1 that"),
        (_vgg, {"skip_scales": (0.01,)}, r"`skip_scales` \(0.01,\) must have a number for each of the 2 skips"),
    ],
)
def test_fcn_wrong_arguments_are_named(backbone, options, message):
    with pytest.raises(ValueError, match=message):
        FCN(backbone(), 3, **{"fc_filters": 4, **options})


def test_fcn_alexnet_of_an_unknown_layout_is_refused():
    with pytest.raises(ValueError, match="`layout` 'paper' is unknown; use 'caffe' or 'torchvision'"):
        fcn.fcn32s_alexnet(3, layout="paper")

"""DeepLab v1: values by hand, sizes, configuration, errors. Equality is tested in tests/parity."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones.resnet import ResNet
from kerasvision.backbones.vgg import VGG
from kerasvision.models.deeplab_v1 import DeepLabV1, deeplab_v1_vgg8, deeplab_v1_vgg16


def _vgg(**options):
    options = {"widths": (2, 2, 2, 2, 2), "pooled": True, "pool_size": 3, "output_stride": 8, **options}
    return VGG((1, 1, 1, 1, 1), **options)


def _copying(model):
    """Let every layer copy channel 0, so that each cell holds the largest value of the pixels that it has seen."""
    layers = [layer for layer in model.backbone.layers if layer.weights] + [model.fc6, model.fc7, model.score]
    for layer in layers:
        kernel = np.zeros(layer.kernel.shape)
        kernel[kernel.shape[0] // 2, kernel.shape[1] // 2, 0, 0] = 1
        layer.kernel.assign(kernel)
    return model


@pytest.mark.parametrize("average", [True, False])
def test_deeplab_v1_by_hand(average):
    model = DeepLabV1(_vgg(), 1, fc_filters=3, average=average, image_mean=(0, 0, 0), image_std=(1, 1, 1))
    columns = np.arange(129, dtype=np.float32)
    image = np.broadcast_to(columns[None, None, :, None], (1, 129, 129, 3))
    logits = ops.convert_to_numpy(_copying(model)(image))[0, :, :, 0]
    assert logits.shape == (129, 129)
    # Cell i lies on pixel 8 i and has seen 7 pixels to the right, and by two poolings more 8 and 8; averaging keeps
    # lines. Between the cells, lines again.
    np.testing.assert_allclose(logits[64, 24:96], columns[24:96] + 23, atol=1e-3)
    # Of the mean at the first row, a third is zeros.
    share = 2 / 3 if average else 1
    np.testing.assert_allclose(logits[0, 24:96], share * (columns[24:96] + 23), atol=1e-3)


def test_deeplab_v1_of_a_constant_image_is_constant_but_for_the_averaged_border():
    model = DeepLabV1(_vgg(), 1, fc_filters=3, image_mean=(0, 0, 0), image_std=(1, 1, 1))
    logits = ops.convert_to_numpy(_copying(model)(np.full((1, 57, 70, 3), 9, np.float32)))[0, :, :, 0]
    # 57 pixels are 8 cells on pixels 0 to 56, 70 are 10 cells on 0 to 72, of which the last is cut in part.
    rows = np.interp(np.arange(57), [0, 8, 48, 56], [2 / 3, 1, 1, 2 / 3])
    columns = np.interp(np.arange(70), [0, 8, 64, 72], [2 / 3, 1, 1, 2 / 3])
    np.testing.assert_allclose(logits, 9 * np.outer(rows, columns), atol=1e-4)


@pytest.mark.parametrize("size_hw", [(1, 1), (31, 57), (64, 65), (500, 333)])
def test_deeplab_v1_logits_have_the_images_size(size_hw):
    model = deeplab_v1_vgg16(3, widths=(2, 2, 2, 2, 2), fc_filters=4)
    assert tuple(model(np.zeros((1, *size_hw, 3), np.uint8)).shape) == (1, *size_hw, 3)


def test_deeplab_v1_builders():
    model = deeplab_v1_vgg16(21)
    # "20.5M parameters", section 4.2: VGG-16's convolutions, then 3 x 3 of 512, 1024 and 1024 channels.
    assert model.count_params() == 14_714_688 + 4609 * 1024 + 1025 * 1024 + 1025 * 21 == 20_505_429
    assert (model.fc6.dilation, model.backbone.get_layer("conv5_1").dilation) == (12, 2)
    assert deeplab_v1_vgg8().count_params() < 1e6


OPTIONS = {"fc_kernel_size": 4, "fc_filters": 6, "fc_dilation": 2, "average": False, "dropout": 0.25, "name": "other"}


def test_deeplab_v1_config_round_trip_keeps_every_argument(tmp_path):
    model = DeepLabV1(_vgg(normalization="batch"), 3, dtype="mixed_bfloat16", **OPTIONS)
    config = model.get_config()
    assert {name: config[name] for name in OPTIONS} == OPTIONS
    image = np.random.default_rng(0).uniform(0, 255, (1, 40, 60, 3)).astype(np.float32)
    model.save(tmp_path / "deeplab.keras")
    copy = DeepLabV1.from_config(config)
    copy.set_weights(model.get_weights())
    for other in (copy, keras.saving.load_model(tmp_path / "deeplab.keras")):
        assert other.get_config() == config
        found, expected = (ops.convert_to_numpy(ops.cast(m(image), "float32")) for m in (other, model))
        np.testing.assert_array_equal(found, expected)
        assert expected.any()


@pytest.mark.parametrize(
    ("backbone", "options", "message"),
    [
        (
            lambda: ResNet("basic", (1, 1, 1, 1), widths=(2, 2, 2, 2), stem_filters=2),
            {},
            "`backbone` 'resnet' must have the middle of its first cell on pixel 0",
        ),
        (lambda: _vgg(pool_size=2), {}, "`backbone` 'vgg' must have the middle of its first cell on pixel 0"),
        (lambda: _vgg(ceil_mode=False), {}, "use VGG with pool_size=3 and ceil_mode=True"),
        (_vgg, {"fc_kernel_size": 4, "fc_dilation": 3}, "`fc_kernel_size` 4 has no middle with `fc_dilation` 3; make"),
    ],
)
def test_deeplab_v1_wrong_arguments_are_named(backbone, options, message):
    with pytest.raises(ValueError, match=message):
        DeepLabV1(backbone(), 3, **options)

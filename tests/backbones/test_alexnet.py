"""AlexNet: published sizes, shapes, groups, freezing, configuration."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones.alexnet import TORCHVISION, AlexNet, alexnet, alexnet_torchvision

TINY = {"widths": (4, 6, 8, 6, 4)}
IMAGE = np.random.default_rng(0).normal(size=(2, 67, 95, 3)).astype(np.float32)


def test_alexnet_has_the_published_parameters():
    # torchvision's 61,100,840 less its dense layers, 9216 to 4096 to 4096 to 1000.
    assert alexnet_torchvision().count_params() == 61_100_840 - 9217 * 4096 - 4097 * 4096 - 4097 * 1000
    # CaffeNet's 60,965,224 less the same: convolutions 2, 4 and 5 see half of the channels each.
    assert alexnet().count_params() == 60_965_224 - 9217 * 4096 - 4097 * 4096 - 4097 * 1000


@pytest.mark.parametrize(
    ("build", "pooled", "sizes"),
    [
        (alexnet, False, (55, 27, 13)),  # the paper's figure 2, which says 224 but means 227
        (alexnet, True, (27, 13, 6)),
        (alexnet_torchvision, False, (56, 27, 13)),
        (alexnet_torchvision, True, (27, 13, 6)),
    ],
)
def test_alexnet_has_the_published_sizes(build, pooled, sizes):
    model = build(pooled=pooled, widths=TINY["widths"])
    assert tuple(shape[1] for shape in model.compute_output_shape((None, 227, 227, 3))) == sizes


def test_alexnet_features():
    model = AlexNet(**TINY)
    assert (model.strides, model.centres) == ((4, 8, 16), (5, 9, 17))
    # 67: (67 - 11) / 4 + 1 = 15, of 3 by 2 7, 3; 95: 22, rounded up 11 and 5.
    assert [tuple(f.shape[1:]) for f in model(IMAGE)] == [(15, 22, 4), (7, 11, 6), (3, 5, 4)]
    pooled = AlexNet(**TINY, pooled=True, first_padding=2)
    assert (pooled.strides, pooled.centres) == ((8, 16, 32), (7, 15, 31))
    assert [tuple(f.shape[1:]) for f in pooled(IMAGE)] == [(8, 11, 4), (4, 5, 6), (2, 2, 4)]
    assert [f.shape[1:3] for f in model.outputs] == [(None, None)] * 3


@pytest.mark.parametrize(("pooled", "smallest"), [(False, 23), (True, 39)])
def test_alexnet_smallest_image(pooled, smallest):
    model = AlexNet(**TINY, pooled=pooled)
    assert [model.compute_output_shape((None, s, s, 3))[-1][1] for s in (smallest - 1, smallest)] == [0, 1]
    assert tuple(model(np.zeros((1, smallest, smallest, 3), np.float32))[-1].shape) == (1, 1, 1, 4)


def _with_copying_kernels(model):
    """Let every convolution copy the values of channel 0 of its part, at the middle of its window."""
    for layer in model.layers:
        if layer.weights:
            kernel = np.zeros(layer.kernel.shape)
            kernel[kernel.shape[0] // 2, kernel.shape[1] // 2, 0] = 1
            layer.kernel.assign(kernel)
    return model


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("first_padding", [0, 2])
def test_alexnet_cells_are_where_it_says(pooled, first_padding):
    options = {"response_normalization": False, "first_padding": first_padding, "pooled": pooled}
    model = _with_copying_kernels(AlexNet(**TINY, **options))
    columns = np.broadcast_to(np.arange(256, dtype=np.float32)[None, None, :, None], (1, 64, 256, 3))
    for high, low, stride, centre in zip(
        model(columns), model(300 - columns), model.strides, model.centres, strict=True
    ):
        # The largest and the smallest column that a cell has seen, copied from the middles of windows.
        last, first = ops.convert_to_numpy(high)[0, 0, :, 0], 300 - ops.convert_to_numpy(low)[0, 0, :, 0]
        expected = centre + stride * np.arange(len(last))
        np.testing.assert_array_equal(((first + last) / 2)[1:-1], expected[1:-1])


def test_alexnet_groups_see_their_own_half():
    model = AlexNet((4, 4, 4, 4, 4), response_normalization=False)
    one, two = model.get_layer("conv2_group0"), model.get_layer("conv2_group1")
    assert one.kernel.shape == (5, 5, 2, 2) == two.kernel.shape
    two.kernel.assign(np.zeros(two.kernel.shape))
    two.bias.assign([3, -1])
    second = ops.convert_to_numpy(model(IMAGE)[1])
    # Without weights, the second half is the ReLU of its biases.
    np.testing.assert_array_equal(np.unique(second[..., 2]), [3])
    np.testing.assert_array_equal(np.unique(second[..., 3]), [0])
    assert second[..., :2].max() > 0


def test_alexnet_normalises_after_pooling():
    plain = _with_copying_kernels(AlexNet(**TINY, response_normalization=False))
    normalised = AlexNet(**TINY)
    normalised.set_weights(plain.get_weights())
    image = np.full((1, 67, 67, 3), 10, np.float32)
    # Four channels of 10: 1 + 1e-4 / 5 * 100 * (3, 4, 4, 3) to the power of 0.75; convolution 2 copies channels 0, 2.
    features = ops.convert_to_numpy(normalised(image)[1])[0, 2, 2]
    expected = 10 / (1 + 2e-3 * np.array([3, 3, 3, 4, 4, 4])) ** 0.75
    np.testing.assert_allclose(features, expected, rtol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(plain(image)[1])[0, 2, 2], np.full(6, 10), rtol=1e-6)


@pytest.mark.parametrize("frozen_stages", range(6))
def test_alexnet_frozen_stages_are_not_trained(frozen_stages):
    model = AlexNet(**TINY, frozen_stages=frozen_stages)
    for layer in model.layers:
        if layer.weights:
            assert bool(layer.trainable_weights) == (int(layer.name[4]) > frozen_stages), layer.name


OPTIONS = {
    **TINY,
    "groups": 1,
    "response_normalization": False,
    "first_padding": 3,
    "pooled": True,
    "ceil_mode": False,
    "frozen_stages": 2,
    "name": "other",
}


def test_alexnet_config_round_trip_keeps_every_argument(tmp_path):
    model = AlexNet(**OPTIONS, dtype="mixed_bfloat16")
    config = model.get_config()
    assert {name: config[name] for name in OPTIONS} == OPTIONS
    model.save(tmp_path / "alexnet.keras")
    loaded = keras.saving.load_model(tmp_path / "alexnet.keras")
    restored = AlexNet.from_config(config)
    restored.set_weights(model.get_weights())
    expected = model(IMAGE)
    for other in (loaded, restored):
        assert type(other) is AlexNet and other.get_config() == config
        assert len(other.trainable_variables) == len(model.trainable_variables)
        for mine, wanted in zip(other(IMAGE), expected, strict=True):
            assert keras.backend.standardize_dtype(mine.dtype) == "bfloat16"
            np.testing.assert_array_equal(*(ops.convert_to_numpy(ops.cast(t, "float32")) for t in (mine, wanted)))


def test_alexnet_with_groups_and_normalisation_survives_saving(tmp_path):
    model = AlexNet(**TINY)
    model.save(tmp_path / "alexnet.keras")
    loaded = keras.saving.load_model(tmp_path / "alexnet.keras")
    for mine, wanted in zip(loaded(IMAGE), model(IMAGE), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(mine), ops.convert_to_numpy(wanted))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (4, 4)}, r"`widths` \(4, 4\) must list five convolutions"),
        ({"groups": 3}, r"`groups` 3 must divide all of `widths` \(96, 256, 384, 384, 256\)"),
        ({"frozen_stages": 6}, "`frozen_stages` 6 must be 0 .train all. to 5"),
    ],
)
def test_alexnet_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        AlexNet(**options)


def test_alexnet_of_torchvision_is_a_set_of_arguments():
    assert {name: alexnet_torchvision().get_config()[name] for name in TORCHVISION} == TORCHVISION

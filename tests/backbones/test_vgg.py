"""VGG: published sizes, shapes, pooling, dilation, freezing, configuration."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones.vgg import VGG, vgg8, vgg11, vgg13, vgg16, vgg19

TINY = {"depths": (1, 1, 2, 1, 1), "widths": (4, 4, 5, 6, 7)}
IMAGE = np.random.default_rng(0).normal(size=(2, 33, 47, 3)).astype(np.float32)
# torchvision's dense layers: 7 * 7 * 512 to 4096 to 4096 to 1000.
DENSE = 25_089 * 4096 + 4097 * 4096 + 4097 * 1000


@pytest.mark.parametrize(
    ("build", "options", "parameters"),
    [
        # torchvision's published counts, less the dense layers'; trained ones, without the batch statistics.
        (vgg11, {}, 132_863_336 - DENSE),
        (vgg13, {}, 133_047_848 - DENSE),
        (vgg16, {}, 138_357_544 - DENSE),
        (vgg19, {}, 143_667_240 - DENSE),
        (vgg16, {"normalization": "batch"}, 138_365_992 - DENSE),
        # 9 * inputs * outputs + outputs of each convolution, 3 to 16 to 32 to 64 to 128 to 128.
        (vgg8, {"normalization": None}, 448 + 4_640 + 18_496 + 73_856 + 147_584),
    ],
)
def test_vgg_has_the_published_parameters(build, options, parameters):
    model = build(**options)
    trained = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert trained == parameters


def _sizes(model, size_hw=IMAGE.shape[1:3]):
    return [shape[1:3] for shape in model.compute_output_shape((None, *size_hw, 3))]


def test_vgg_features_have_their_strides():
    model = VGG(**TINY)
    assert model.strides == (1, 2, 4, 8, 16)
    features = model(IMAGE)
    assert [tuple(f.shape[1:3]) for f in features] == [(33, 47), (17, 24), (9, 12), (5, 6), (3, 3)] == _sizes(model)
    assert [f.shape[-1] for f in features] == [4, 4, 5, 6, 7]
    assert all((ops.convert_to_numpy(feature) >= 0).all() for feature in features)
    assert [feature.shape[1:3] for feature in model.outputs] == [(None, None)] * 5


def test_vgg_rounding_down_as_torchvision():
    model = VGG(**TINY, ceil_mode=False, pooled=True)
    assert model.strides == (2, 4, 8, 16, 32)
    assert _sizes(model) == [(16, 23), (8, 11), (4, 5), (2, 2), (1, 1)]


def test_vgg_pooled_features_are_maxima_of_the_others():
    plain, pooled = VGG(**TINY), VGG(**TINY, pooled=True)
    pooled.set_weights(plain.get_weights())
    for fine, coarse in zip(plain(IMAGE), pooled(IMAGE), strict=True):
        fine, coarse = ops.convert_to_numpy(fine), ops.convert_to_numpy(coarse)
        height, width = fine.shape[1:3]
        padded = np.pad(fine, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        windows = [padded[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        np.testing.assert_array_equal(coarse, np.max(windows, axis=0))


@pytest.mark.parametrize("pooled", [True, False])
def test_vgg_of_a_single_pixel(pooled):
    assert [tuple(f.shape[1:3]) for f in VGG(**TINY, pooled=pooled)(IMAGE[:, :1, :1])] == [(1, 1)] * 5


@pytest.mark.parametrize(
    ("options", "strides", "centres"),
    [
        # The middle of the first s pixels: (s - 1) / 2.
        ({}, (1, 2, 4, 8, 16), (0, 0.5, 1.5, 3.5, 7.5)),
        ({"pooled": True}, (2, 4, 8, 16, 32), (0.5, 1.5, 3.5, 7.5, 15.5)),
        ({"pool_size": 3}, (1, 2, 4, 8, 16), (0,) * 5),
        ({"pool_size": 3, "pooled": True, "output_stride": 8}, (2, 4, 8, 8, 8), (0,) * 5),
        ({"pooled": True, "output_stride": 16}, (2, 4, 8, 16, 16), (0.5, 1.5, 3.5, 7.5, 7.5)),
        ({"output_stride": 8}, (1, 2, 4, 8, 8), (0, 0.5, 1.5, 3.5, 3.5)),
    ],
)
def test_vgg_cells_are_where_it_says(options, strides, centres):
    """An image whose value is the column, seen through convolutions that copy it, gives each cell's window."""
    model = VGG((1, 1, 1, 1, 1), widths=(3,) * 5, **options)
    assert (model.strides, model.centres) == (strides, centres)
    for layer in model.layers:
        if layer.weights:
            kernel = np.zeros(layer.kernel.shape)
            kernel[1, 1] = np.eye(3)
            layer.kernel.assign(kernel)
    columns = np.broadcast_to(np.arange(128, dtype=np.float32)[None, None, :, None], (1, 64, 128, 3))
    mirrored = 200 - columns
    for high, low, stride, centre in zip(model(columns), model(mirrored), strides, centres, strict=True):
        last = ops.convert_to_numpy(high)[0, 0, :, 0]  # the largest column of each window
        first = 200 - ops.convert_to_numpy(low)[0, 0, :, 0]
        # Cells next to neither border; three of them at stride 32.
        inner = slice(2, -2) if stride > 16 else slice(4, -4)
        expected = centre + stride * np.arange(len(last))
        np.testing.assert_array_equal(((first + last) / 2)[inner], expected[inner])


def test_vgg_with_an_output_stride_keeps_its_weights_and_dilates():
    plain = VGG(**TINY)
    model = VGG(**TINY, output_stride=8, pool_size=3, pooled=True)
    assert [v.shape for v in model.weights] == [v.shape for v in plain.weights]
    assert [model.get_layer(f"conv{block}_1").dilation for block in range(1, 6)] == [1, 1, 1, 1, 2]
    assert _sizes(model, (65, 97)) == [(33, 49), (17, 25), (9, 13), (9, 13), (9, 13)]  # DeepLab: (n - 1) / 8 + 1
    assert _sizes(model, (64, 97)) == [(33, 49), (17, 25), (9, 13), (9, 13), (9, 13)]  # 64 / 2 + 1
    half = VGG(**TINY, output_stride=16)
    assert [half.get_layer(f"conv{block}_1").dilation for block in range(1, 6)] == [1] * 5


@pytest.mark.parametrize("frozen_stages", range(6))
def test_vgg_frozen_stages_are_not_trained(frozen_stages):
    model = VGG(**TINY, normalization="batch", frozen_stages=frozen_stages)
    for layer in model.layers:
        if layer.weights:
            assert bool(layer.trainable_weights) == (int(layer.name[4]) > frozen_stages), layer.name


OPTIONS = {
    **TINY,
    "normalization": "batch",
    "epsilon": 1e-3,
    "pooled": True,
    "pool_size": 3,
    "ceil_mode": False,
    "frozen_stages": 2,
    "output_stride": 16,
    "name": "other",
}


def test_vgg_config_round_trip_keeps_every_argument(tmp_path):
    model = VGG(**OPTIONS, dtype="mixed_bfloat16")
    config = model.get_config()
    assert {name: config[name] for name in OPTIONS} == OPTIONS
    model(IMAGE, training=True)  # statistics that are not the initial ones
    model.save(tmp_path / "vgg.keras")
    loaded = keras.saving.load_model(tmp_path / "vgg.keras")
    restored = VGG.from_config(config)
    restored.set_weights(model.get_weights())
    expected = model(IMAGE)
    for other in (loaded, restored):
        assert type(other) is VGG and other.get_config() == config
        assert len(other.trainable_variables) == len(model.trainable_variables)
        for mine, wanted in zip(other(IMAGE), expected, strict=True):
            assert keras.backend.standardize_dtype(mine.dtype) == "bfloat16"
            np.testing.assert_array_equal(*(ops.convert_to_numpy(ops.cast(t, "float32")) for t in (mine, wanted)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": (1, 1)}, r"`depths` \(1, 1\) and `widths` \(64, 128, 256, 512, 512\) must both list five blocks"),
        ({"pool_size": 4}, "`pool_size` 4 must be 2, as in the paper, or 3"),
        ({"frozen_stages": 6}, "`frozen_stages` 6 must be 0 .train all. to 5"),
        ({"output_stride": 4}, "`output_stride` 4 must be 8, 16 or 32"),
        ({"normalization": "layer"}, "`normalization` 'layer' is unknown"),
    ],
)
def test_vgg_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        VGG(**options)

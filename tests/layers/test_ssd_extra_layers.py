"""What SSD adds to its backbones, by hand."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.layers import L2Normalization, SSDExtraLayers, SSDLiteExtraLayers
from kerasvision.layers.ssd_extra_layers import SSD512_BLOCKS

RNG = np.random.default_rng(0)
POLICIES = ["float32", "mixed_bfloat16", "mixed_float16"]


def _numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def test_l2_normalization_by_hand():
    layer = L2Normalization(scale=10)
    layer.build((None, 2))
    layer.gamma.assign([10.0, 5.0])
    # 3, 4 has norm 5: .6 * 10, .8 * 5. Zeros stay.
    np.testing.assert_allclose(
        _numpy(layer(np.array([[3, 4], [0, 0], [-30, 40]], np.float32))), [[6, 4], [0, 0], [-6, 4]]
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_l2_normalization_of_large_features_does_not_overflow(policy):
    layer = L2Normalization(dtype=policy)
    found = layer(np.full((1, 1, 1, 64), 3e4, np.float32))  # squares: 9e8, half precision ends at 65504
    assert keras.backend.standardize_dtype(found.dtype) == layer.compute_dtype
    np.testing.assert_allclose(_numpy(found), np.full((1, 1, 1, 64), 20 / 8), rtol=1e-2)


def test_l2_normalization_passes_nan_on_in_its_own_pixel_only():
    found = _numpy(L2Normalization()(np.array([[np.nan, 1], [0, 2]], np.float32)))
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1], [0, 20], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "size", "expected"),
    [({}, 19, [19, 10, 5, 3, 1]), ({"blocks": SSD512_BLOCKS}, 32, [32, 16, 8, 4, 2, 1])],
    ids=["ssd300", "ssd512"],
)
def test_ssd_extra_layers_sizes_are_those_of_the_paper(options, size, expected):
    shapes = SSDExtraLayers(**options).compute_output_shape((None, size, size, 512))
    assert [shape[1] for shape in shapes] == [shape[2] for shape in shapes] == expected
    assert [shape[3] for shape in shapes] == [1024, 512, *[256] * (len(expected) - 2)]


def test_ssd_extra_layers_by_hand():
    layer = SSDExtraLayers(((2, 3, 1, 0),), filters=1)
    layer.build((None, None, None, 1))
    for block, centre in ((layer.conv6, 2), (layer.conv7, 3), (layer.firsts[0], 1)):
        kernel = np.zeros(block.kernel.shape)
        kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] = centre
        block.kernel.assign(kernel)
    layer.seconds[0].kernel.assign(np.stack([np.ones((3, 3, 1)), -np.ones((3, 3, 1))], -1))
    image = np.zeros((1, 3, 3, 1), np.float32)
    image[0, 0, 0] = 4
    first, second = (_numpy(level) for level in layer(image))
    # The maximum reaches four pixels; times 2, times 3; their sum, and minus that, cut to zero.
    np.testing.assert_array_equal(first[0, :, :, 0], [[24, 24, 0], [24, 24, 0], [0, 0, 0]])
    np.testing.assert_array_equal(second[0, 0, 0], [96, 0])


@pytest.mark.parametrize("policy", POLICIES)
def test_ssd_extra_layers_shapes_and_precision(policy):
    layer = SSDExtraLayers(((4, 3, 2, 1), (2, 4, 1, 1)), filters=3, dtype=policy)
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, layer(inputs))
    for size in ((9, 6), (4, 5)):
        image = RNG.normal(size=(2, *size, 2)).astype(np.float32)
        found, shapes = model(image), layer.compute_output_shape(image.shape)
        for level, shape in zip(found, shapes, strict=True):
            assert tuple(level.shape) == tuple(shape)
            assert keras.backend.standardize_dtype(level.dtype) == layer.compute_dtype


def test_ssd_extra_layers_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="the input of 10x10 leaves nothing after `conv11_2`; use a larger image"):
        SSDExtraLayers(filters=1)(np.zeros((1, 10, 10, 1), np.float32))
    with pytest.raises(ValueError, match=r"`blocks` has \(4, 3\); each must be \(filters, kernel size, strides"):
        SSDExtraLayers(((4, 3),))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("training", [True, False])
def test_ssdlite_extra_layers_shapes_and_precision(policy, training):
    layer = SSDLiteExtraLayers((6, 4, 2), dtype=policy)
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layer(inputs))
    # Halved and rounded up: SSDlite320 has maps of 10, 5, 3, 2, 1.
    for size, expected in (((10, 7), [(5, 4), (3, 2), (2, 1)]), ((1, 1), [(1, 1)] * 3)):
        image = RNG.normal(size=(2, *size, 3)).astype(np.float32)
        found, shapes = model(image, training=training), layer.compute_output_shape(image.shape)
        for level, shape, filters, wanted in zip(found, shapes, (6, 4, 2), expected, strict=True):
            assert tuple(level.shape) == tuple(shape) == (2, *wanted, filters)
            assert keras.backend.standardize_dtype(level.dtype) == layer.compute_dtype
            assert (_numpy(level) >= 0).all() and (_numpy(level) <= 6).all()

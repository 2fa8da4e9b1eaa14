"""CSPBlock, PathAggregation and CSPPathAggregation by hand."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.layers import CSPBlock, CSPPathAggregation, PathAggregation

RNG = np.random.default_rng(0)
POLICIES = ["float32", "mixed_bfloat16", "mixed_float16"]


def _numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def _centre(block, matrix):
    """Let a convolution see its centre pixel only, through `matrix` (C, filters)."""
    kernel = np.zeros(block.kernel.shape, np.float32)
    kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] = matrix
    block.kernel.assign(kernel)


def _features(sizes, channels):
    return [RNG.normal(size=(2, *size, c)).astype(np.float32) for size, c in zip(sizes, channels, strict=True)]


@pytest.mark.parametrize("shortcut", [True, False])
def test_csp_block_by_hand(shortcut):
    block = CSPBlock(2, shortcut=shortcut, normalization=None, activation="relu")
    block.build((None, None, None, 1))
    _centre(block.long_way, [[2]])
    _centre(block.short_way, [[-1]])
    _centre(block.reductions[0], [[3]])
    _centre(block.convolutions[0], [[5]])
    _centre(block.output_convolution, [[10, 0], [0, 1]])
    # 4: long way 8, bottleneck 8 * 3 * 5 = 120 (+ 8 or not), short way -4, cut to 0 by its ReLU; ten times the first.
    expected = 1280 if shortcut else 1200
    np.testing.assert_allclose(_numpy(block(np.full((1, 1, 1, 1), 4, np.float32))), [[[[expected, 0]]]])


def test_csp_block_without_bottlenecks_joins_two_projections():
    block = CSPBlock(4, 0, normalization=None, activation=None)
    image = RNG.normal(size=(1, 2, 3, 5)).astype(np.float32)
    block.build(image.shape)
    ways = np.concatenate([_numpy(block.long_way(image)), _numpy(block.short_way(image))], -1)
    np.testing.assert_allclose(_numpy(block(image)), _numpy(block.output_convolution(ways)), atol=1e-6)


def test_csp_block_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="`repeats` -1 must be 0 or more"):
        CSPBlock(4, -1)
    with pytest.raises(ValueError, match=r"`expansion` 0\.1 of 4 `filters` leaves no channel"):
        CSPBlock(4, expansion=0.1)


@pytest.mark.parametrize(("downsample", "last"), [("output", 5 * (3 * 30 + 7)), ("sum", 5 * (3 * 6 + 7))])
def test_path_aggregation_by_hand(downsample, last):
    layer = PathAggregation(1, downsample=downsample, activation=None)
    layer.build([(None, None, None, 1)] * 3)
    for down in layer.downs:
        _centre(down, [[3]])
    for output in layer.outputs:
        _centre(output, [[5]])
    fine = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1) + 1
    middle, coarse = np.full((1, 2, 2, 1), 3, np.float32), np.full((1, 1, 1, 1), 7, np.float32)
    found = [_numpy(level)[0, :, :, 0] for level in layer([fine, middle, coarse])]
    np.testing.assert_array_equal(found[0], fine[0, :, :, 0])
    # Stride 2 takes pixels 1 3; 9 11, so sums are 3 * 1 + 3 = 6, 12; 30, 36, outputs five times that.
    np.testing.assert_allclose(found[1], [[30, 60], [150, 180]])
    np.testing.assert_allclose(found[2], [[last]])


def test_csp_path_aggregation_by_hand():
    layer = CSPPathAggregation((2, 2), repeats=0, normalization=None, activation=None)
    layer.build([(None, None, None, 1)] * 2)
    _centre(layer.reductions[0], [[2, 0]])
    _centre(layer.downs[0], [[1, 0], [0, 1]])
    for block, long_way, short_way in (
        # Concatenated: coarse level doubled (2 channels), fine level.
        (layer.top_down_blocks[0], [[1], [0], [0]], [[0], [0], [1]]),
        # Concatenated: from below (2 channels), the reduced coarse level (2 channels).
        (layer.bottom_up_blocks[0], [[1], [10], [0], [0]], [[0], [0], [1], [0]]),
    ):
        _centre(block.long_way, long_way)
        _centre(block.short_way, short_way)
        _centre(block.output_convolution, [[1, 0], [0, 1]])
    fine, coarse = (
        np.array([[1, 2, 3]], np.float32).reshape(1, 1, 3, 1),
        np.array([[5, 7]], np.float32).reshape(1, 1, 2, 1),
    )
    found_fine, found_coarse = layer([fine, coarse])
    # Reduced: 10, 14; enlarged to three pixels: 10, 10, 14, beside the fine level.
    np.testing.assert_allclose(_numpy(found_fine)[0, 0], [[10, 1], [10, 2], [14, 3]])
    # Pixels 0 and 2 of that: 10 + 10 * 1, 14 + 10 * 3, beside the reduced level.
    np.testing.assert_allclose(_numpy(found_coarse)[0, 0], [[20, 10], [44, 14]])


NECKS = {
    "add": lambda **options: PathAggregation(4, normalization="batch", **options),
    "concatenate": lambda **options: CSPPathAggregation((2, 3, 4), repeats=1, **options),
}
SIZES = {
    "rounded up": [(9, 8), (5, 4), (3, 2)],
    "rounded down": [(11, 8), (5, 4), (2, 2)],
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("neck", NECKS)
def test_path_aggregation_over_any_sizes_traces(neck, sizes):
    channels = (4, 4, 4) if neck == "add" else (3, 5, 2)
    layer = NECKS[neck]()
    inputs = [keras.Input((None, None, count)) for count in channels]
    model = keras.Model(inputs, layer(inputs))
    features = _features(sizes, channels)
    shapes = layer.compute_output_shape([feature.shape for feature in features])
    assert [shape[1:3] for shape in shapes] == sizes
    for found, traced, shape in zip(layer(features), model.predict(features, verbose=0), shapes, strict=True):
        assert tuple(found.shape) == tuple(shape)
        np.testing.assert_allclose(_numpy(found), traced, atol=1e-5)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("neck", NECKS)
@pytest.mark.parametrize("training", [True, False])
def test_path_aggregation_computes_in_its_own_precision(neck, policy, training):
    layer = NECKS[neck](dtype=policy)
    for level in layer(_features([(4, 4), (2, 2), (1, 1)], (4, 4, 4)), training=training):
        assert keras.backend.standardize_dtype(level.dtype) == layer.compute_dtype
        assert np.isfinite(_numpy(level)).all()


def test_path_aggregation_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="`downsample` 'both' is unknown; use 'output' or 'sum'"):
        PathAggregation(downsample="both")
    with pytest.raises(ValueError, match="level 1 has 5 channels, `filters` is 4; bring all levels to one number"):
        PathAggregation(4)(_features([(4, 4), (2, 2)], (4, 5)))
    with pytest.raises(ValueError, match=r"`filters` \(4,\) must have one number for each of two levels or more"):
        CSPPathAggregation((4,))
    with pytest.raises(ValueError, match=r"got 2 levels, but `filters` \(4, 5, 6\) describes 3"):
        CSPPathAggregation((4, 5, 6))(_features([(4, 4), (2, 2)], (4, 5)))

"""WeightedFusion and BiFPN by hand; equality with effdet is in tests/parity/pieces."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.layers import BiFPN, WeightedFusion

RNG = np.random.default_rng(0)
POLICIES = ["float32", "mixed_bfloat16", "mixed_float16"]


def _numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def _features(sizes, channels):
    return [RNG.normal(size=(2, *size, c)).astype(np.float32) for size, c in zip(sizes, channels, strict=True)]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # Weights 1, -2, 3 count as 1, 0, 3: (10 + 3 * 40) / 4.0001.
        ("fast", 130 / 4.0001),
        # e, e^-2, e^3 divided by their sum.
        ("softmax", (10 * np.exp(1) + 20 * np.exp(-2) + 40 * np.exp(3)) / (np.exp(1) + np.exp(-2) + np.exp(3))),
        ("sum", 70),
    ],
)
def test_weighted_fusion_by_hand(method, expected):
    layer = WeightedFusion(method)
    parts = [np.full((1, 1, 1, 1), value, np.float32) for value in (10, 20, 40)]
    layer.build([part.shape for part in parts])
    if method != "sum":
        layer.edge_weights.assign([1.0, -2.0, 3.0])
    np.testing.assert_allclose(_numpy(layer(parts)), [[[[expected]]]], rtol=1e-6)


def test_fast_fusion_without_positive_weights_is_zero():
    layer = WeightedFusion()
    layer.build([(1, 2), (1, 2)])
    layer.edge_weights.assign([-1.0, 0.0])
    np.testing.assert_array_equal(_numpy(layer([np.ones((1, 2), np.float32)] * 2)), [[0, 0]])


def test_fusion_unknown_method_is_named():
    with pytest.raises(ValueError, match="`method` 'attn' is unknown; use 'fast', 'softmax' or 'sum'"):
        WeightedFusion("attn")


def _identity(layer):
    """Let all convolutions of a BiFPN pass their input on."""
    for cell in layer.cells:
        for convolution in (*cell.down_convolutions, *cell.up_convolutions):
            kernel = np.zeros(convolution.depthwise.kernel.shape)
            kernel[1, 1] = 1
            convolution.depthwise.kernel.assign(kernel)
            convolution.pointwise.kernel.assign(np.eye(layer.filters)[None, None])


@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_bifpn_by_hand(padding):
    layer = BiFPN(1, 1, levels=2, fusion="sum", padding=padding, activation=None, normalization=None)
    fine = np.array([1, 2, 3, 4], np.float32).reshape(1, 1, 4, 1)
    fine = np.concatenate([fine, np.zeros_like(fine)], axis=1)  # 2 rows
    layer.build([(None, None, None, 1)])
    _identity(layer)
    found_fine, found_coarse = (_numpy(level) for level in layer([fine]))
    # The further level: maxima of windows of 3 in steps of 2, from pixel 0 (1 2 3; 3 4) or one before (1 2; 2 3 4).
    coarse = {"same": [3, 4], "symmetric": [2, 4]}[padding]
    # Fine plus coarse, each coarse pixel twice.
    expected = np.array([1, 2, 3, 4]) + np.repeat(coarse, 2)
    np.testing.assert_allclose(found_fine[0, 0, :, 0], expected)
    # Coarse plus the maxima of that: 4 5 7 8, or 3 4 7 8.
    maxima = {"same": [7, 8], "symmetric": [4, 8]}[padding]
    np.testing.assert_allclose(found_coarse[0, 0, :, 0], np.add(coarse, maxima))


def test_bifpn_middle_levels_meet_three_inputs_on_the_way_up():
    layer = BiFPN(1, 1, levels=3, activation=None, normalization=None)
    features = [np.full((1, size, size, 1), value, np.float32) for size, value in ((4, 1), (2, 10), (1, 100))]
    layer.build([feature.shape for feature in features])
    _identity(layer)
    found = [_numpy(level) for level in layer(features)]
    # Weights are all 1, divided by 2.0001 and 3.0001.
    middle = 110 / 2.0001
    fine = (1 + middle) / 2.0001
    up = (10 + middle + fine) / 3.0001
    for level, expected in zip(found, (fine, up, (100 + up) / 2.0001), strict=True):
        np.testing.assert_allclose(level, np.full_like(level, expected), rtol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "padding", "channels"),
    [
        ([(8, 12), (4, 6)], "same", (3, 4)),
        ([(7, 11), (4, 6)], "same", (6, 6)),  # halved and rounded up
        ([(9, 13), (4, 6)], "symmetric", (3, 6)),  # halved and rounded down
    ],
)
def test_bifpn_over_any_sizes_traces(sizes, padding, channels):
    layer = BiFPN(6, 1, levels=4, padding=padding)
    inputs = [keras.Input((None, None, count)) for count in channels]
    model = keras.Model(inputs, layer(inputs))
    features = _features(sizes, channels)
    shapes = layer.compute_output_shape([feature.shape for feature in features])
    assert [shape[1:3] for shape in shapes] == [*sizes, (2, 3), (1, 2)]
    for found, traced, shape in zip(layer(features), model.predict(features, verbose=0), shapes, strict=True):
        assert tuple(found.shape) == tuple(shape)
        np.testing.assert_allclose(_numpy(found), traced, atol=1e-4)


def test_bifpn_projects_only_where_channels_differ():
    layer = BiFPN(4, 2, levels=3)
    layer.build([(None, None, None, 4), (None, None, None, 5)])
    first, second = layer.cells
    assert layer.projection is not None
    assert [p is not None for p in first.down_projections] == [False, True, False]
    assert [p is not None for p in first.up_projections] == [True, False]
    assert not any(second.down_projections) and not any(second.up_projections)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("training", [True, False])
def test_bifpn_computes_in_its_own_precision(policy, training):
    layer = BiFPN(4, 1, levels=3, dtype=policy)
    for level in layer(_features([(4, 4), (2, 2)], (3, 5)), training=training):
        assert keras.backend.standardize_dtype(level.dtype) == layer.compute_dtype
        assert np.isfinite(_numpy(level)).all()


def test_bifpn_survives_saving(tmp_path):
    inputs = [keras.Input((None, None, 3)), keras.Input((None, None, 5))]
    model = keras.Model(inputs, BiFPN(4, 1, levels=2)(inputs))
    for variable in model.weights:
        variable.assign(RNG.uniform(0.5, 1, variable.shape))
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    features = _features([(4, 4), (2, 2)], (3, 5))
    for mine, wanted in zip(restored(features), model(features), strict=True):
        np.testing.assert_array_equal(_numpy(mine), _numpy(wanted))


def test_bifpn_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="`fusion` 'fastattn' is unknown; use 'fast', 'softmax' or 'sum'"):
        BiFPN(fusion="fastattn")
    with pytest.raises(ValueError, match="`padding` 'valid' is unknown; use 'same' or 'symmetric'"):
        BiFPN(padding="valid")
    with pytest.raises(ValueError, match="`repeats` 0 must be 1 or more, and `levels` 5 2 or more"):
        BiFPN(repeats=0)
    with pytest.raises(ValueError, match="got 3 levels, more than `levels` 2; raise that"):
        BiFPN(4, levels=2)(_features([(4, 4), (2, 2), (1, 1)], (4, 4, 4)))

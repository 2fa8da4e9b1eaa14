"""RoIAlign and level assignment: values by hand, odd boxes, properties."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerasvision.layers import RoIAlign
from kerasvision.ops import roi_align as module
from kerasvision.ops.roi_align import assign_levels, roi_align
from kerasvision.ops.roi_pool import roi_pool

# Features of one channel whose value is 10 y + x, which bilinear interpolation gives back.
RAMP = (10.0 * np.arange(6)[:, None] + np.arange(8)).reshape(1, 6, 8, 1).astype(np.float32)


def _align(features, boxes, **arguments):
    """Return (B, N, rows, columns, C) as NumPy."""
    to_tensor = ops.convert_to_tensor
    features = [to_tensor(level) for level in features] if isinstance(features, list) else to_tensor(features)
    arguments = {"output_size": 2, "strides": 1} | arguments
    return ops.convert_to_numpy(roi_align(features, to_tensor(np.asarray(boxes, np.float32)), **arguments))


@pytest.mark.parametrize("sampling_ratio", [1, 2, 3, None])
@pytest.mark.parametrize(("aligned", "shift"), [(False, 0), (True, -5.5)])
def test_ramp_by_hand(sampling_ratio, aligned, shift):
    # Bins of 2 x 1.5 cells around x 2, 4 and y 1.75, 3.25; samples lie evenly around the middle of a bin.
    found = _align(RAMP, [[[1, 1, 5, 4]]], sampling_ratio=sampling_ratio, aligned=aligned)
    assert found.shape == (1, 1, 2, 2, 1)
    expected = np.array([[17.5 + 2, 17.5 + 4], [32.5 + 2, 32.5 + 4]])
    np.testing.assert_allclose(found[0, 0, :, :, 0], expected + shift, rtol=1e-6)


def test_stride_divides_coordinates():
    found = _align(RAMP, [[[4, 4, 20, 16]]], strides=4)
    np.testing.assert_allclose(found, _align(RAMP, [[[1, 1, 5, 4]]]))


def test_rectangular_grid():
    found = _align(RAMP, [[[1, 1, 5, 4]]], output_size=(1, 4))[0, 0, :, :, 0]
    np.testing.assert_allclose(found, [[25 + 1.5, 25 + 2.5, 25 + 3.5, 25 + 4.5]], rtol=1e-6)


def test_boxes_of_each_image_read_their_own():
    features = np.concatenate([RAMP, -RAMP])
    boxes = [[[1, 1, 5, 4], [0, 0, 2, 2]], [[1, 1, 5, 4], [2, 2, 6, 4]]]
    found = _align(features, boxes)
    np.testing.assert_allclose(found[1, 0], -found[0, 0])
    np.testing.assert_allclose(found[1, 1], -_align(RAMP, [[[2, 2, 6, 4]]])[0, 0])


def test_samples_beyond_the_map_count_as_zero_and_the_last_cell_reaches_one_further():
    ones = np.ones((1, 4, 4, 1), np.float32)
    # One sample per bin, at x = -2.5, -1.5, -0.5, 0.5 in the row y = 0.5: those before -1 are outside.
    found = _align(ones, [[[-3, 0, 1, 1]]], output_size=(1, 4), sampling_ratio=1)[0, 0, 0, :, 0]
    np.testing.assert_array_equal(found, [0, 0, 1, 1])
    # At 2.5, 3.5, 4.5: up to 4, the number of cells, counts.
    found = _align(ones, [[[2, 0, 5, 1]]], output_size=(1, 3), sampling_ratio=1)[0, 0, 0, :, 0]
    np.testing.assert_array_equal(found, [1, 1, 0])


def test_a_box_without_size_is_one_cell_where_not_aligned():
    # One cell from (3, 2): samples around (3.5, 2.5).
    found = _align(RAMP, [[[3, 2, 3, 2], [3, 2, 1, 0]]], output_size=1)
    np.testing.assert_allclose(found[0, :, 0, 0, 0], [28.5, 28.5])
    # Aligned it is the point half a cell before: all samples at (2.5, 1.5).
    found = _align(RAMP, [[[3, 2, 3, 2]]], output_size=1, aligned=True)
    np.testing.assert_allclose(found[0, 0, 0, 0, 0], 17.5)
    found = _align(RAMP, [[[3, 2, 3, 2], [3, 2, 1, 0]]], output_size=1, aligned=True, sampling_ratio=None)
    np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize("sampling_ratio", [2, None])
@pytest.mark.parametrize("aligned", [False, True])
def test_padding_and_boxes_that_are_not_finite_give_zeros_even_over_nan(sampling_ratio, aligned):
    features = RAMP.copy()
    features[0, 0, 0] = np.nan
    boxes = [[[-1, -1, -1, -1], [np.nan, 1, 3, 3], [1, 1, np.inf, 3], [-np.inf, 1, 3, 3], [2, 2, 4, 4], [2, 2, 4, 4]]]
    options = {"sampling_ratio": sampling_ratio, "aligned": aligned}
    found = _align(features, boxes, **options)
    np.testing.assert_array_equal(found[0, :4], 0)
    assert (found[0, 4:] > 0).all()
    found = _align(features, boxes, valid=np.array([[1, 1, 0, 0, 0, 1]], bool), **options)
    # The mask decides alone: -1, -1, -1, -1 is read, and meets the NaN.
    assert np.isnan(found[0, 0]).any() or aligned
    np.testing.assert_array_equal(found[0, 1:5], 0)
    assert (found[0, 5] > 0).all()


@pytest.mark.parametrize("sampling_ratio", [2, None])
def test_huge_boxes_are_finite(sampling_ratio):
    found = _align(RAMP, [[[-3e38, -3e38, 3e38, 3e38], [1e30, 1e30, 2e30, 2e30]]], sampling_ratio=sampling_ratio)
    # The samples lie hundreds of millions of cells apart: none is on the map.
    np.testing.assert_array_equal(found, 0)


def test_no_boxes_give_an_empty_result():
    assert _align(RAMP, np.zeros((1, 0, 4)), output_size=(2, 3)).shape == (1, 0, 2, 3, 1)


def test_a_map_of_one_cell():
    found = _align(np.full((1, 1, 1, 3), 7, np.float32), [[[0, 0, 1, 1]]], output_size=2)
    np.testing.assert_array_equal(found, 7)


def test_adaptive_sampling_of_large_boxes_is_bounded():
    # A bin of 8 x 8 cells; 2 samples along each side at 2 and 6: 22, 26, 62, 66.
    ramp = (10.0 * np.arange(8)[:, None] + np.arange(8)).reshape(1, 8, 8, 1).astype(np.float32)
    spike = np.zeros_like(ramp)
    spike[0, 2, 6] = 4
    found = _align(spike, [[[0, 0, 8, 8]]], output_size=1, sampling_ratio=None, max_adaptive_samples=2)
    np.testing.assert_allclose(found.reshape(()), 1)
    # With enough samples, at 0.5 ... 7.5, the spike counts a quarter in four of 64.
    found = _align(spike, [[[0, 0, 8, 8]]], output_size=1, sampling_ratio=None, max_adaptive_samples=8)
    np.testing.assert_allclose(found.reshape(()), 4 * (4 / 4) / 64)


def test_pieces_equal_the_whole(monkeypatch):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 9, 7, 3)).astype(np.float32)
    corners = rng.uniform(0, 5, (2, 11, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0, 5, corners.shape)], -1)
    whole = _align(features, boxes)
    monkeypatch.setattr(module, "_GATHERED", 4 * 8 * 8 * 3)  # 4 boxes at a time, of 22
    np.testing.assert_allclose(_align(features, boxes), whole, atol=1e-6)


# --- levels


def test_levels_by_hand():
    # Sides of 112, 224, 448 are the first of levels 3, 4, 5 of strides 8, 16, 32.
    sides = [10, 111, 112, 223.9, 224, 447, 448, 5000]
    boxes = np.array([[[50, 50, 50 + side, 50 + side] for side in sides]], np.float32)
    found = ops.convert_to_numpy(assign_levels(boxes, (4, 8, 16, 32)))
    np.testing.assert_array_equal(found, [[0, 0, 1, 1, 2, 2, 3, 3]])
    assert found.dtype == np.int32
    found = ops.convert_to_numpy(assign_levels(boxes, (8, 16), canonical_size=448, canonical_level=4))
    np.testing.assert_array_equal(found, [[0, 0, 0, 0, 0, 0, 1, 1]])


def test_levels_of_boxes_without_area_are_the_finest():
    infinity = np.inf
    boxes = [[[5, 5, 5, 5], [9, 9, 2, 2], [np.nan, 0, 999, 999], [0, 0, infinity, infinity], [-infinity, 0, 999, 999]]]
    found = ops.convert_to_numpy(assign_levels(np.array(boxes, np.float32), (4, 8)))
    np.testing.assert_array_equal(found, [[0, 0, 0, 0, 0]])


def test_every_box_reads_its_level():
    levels = [np.full((2, 32 >> k, 32 >> k, 1), k + 1, np.float32) for k in range(4)]
    boxes = np.array([[[0, 0, side, side] for side in (8, 32, 64, 120)]] * 2, np.float32)
    options = {"strides": (4, 8, 16, 32), "canonical_size": 32, "canonical_level": 3}
    # 32 is level 3, 64 level 4, 120 still.
    np.testing.assert_array_equal(_align(levels, boxes, **options)[:, :, 0, 0, 0], [[1, 2, 3, 3]] * 2)
    found = _align(levels, boxes, levels=np.array([[3, 2, 1, 0], [0, 0, 0, 0]]), **options)
    np.testing.assert_array_equal(found[:, :, 0, 0, 0], [[4, 3, 2, 1], [1, 1, 1, 1]])


# --- precision, gradients, graphs


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_features_keep_exact_boxes(dtype):
    step = np.broadcast_to((np.arange(300) > 256).astype(np.float32)[None, None, :, None], (1, 4, 300, 2))
    features = ops.cast(ops.convert_to_tensor(step), dtype)
    # From 2049.5 / 8 = 256.1875, one cell wide: its one sample lies at 256.6875, between 0 and 1. Neither type has
    # 2049.5; at 2048 or 2050 the sample would lie elsewhere.
    boxes = ops.convert_to_tensor([[[2049.5, 0.0, 2057.5, 8.0]]])
    found = roi_align(features, boxes, output_size=1, strides=8, sampling_ratio=1)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    np.testing.assert_array_equal(ops.convert_to_numpy(ops.cast(found, "float32")), 0.6875)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="graphs of unknown shape are TensorFlow's")
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("sampling_ratio", [2, None])
def test_graph_of_unknown_sizes_equals_eager(sampling_ratio, jit_compile, monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(module, "_GATHERED", 4 * 20 * 20 * 2)
    options = {"output_size": 2, "strides": (8, 16), "sampling_ratio": sampling_ratio, "canonical_size": 64}
    shapes = [(2, 9, 7, 2), (2, 5, 4, 2), (2, 6, 4)] if jit_compile else [(None,) * 3 + (2,)] * 2 + [(None, None, 4)]

    @tf.function(input_signature=[tf.TensorSpec(shape) for shape in shapes], jit_compile=jit_compile)
    def graph(fine, coarse, boxes):
        with tf.GradientTape() as tape:
            tape.watch([fine, coarse])
            found = roi_align([fine, coarse], boxes, **options)
        return found, [tf.convert_to_tensor(slope) for slope in tape.gradient(found, [fine, coarse])]

    rng = np.random.default_rng(0)
    for batch, count in [(2, 6)] if jit_compile else [(2, 6), (1, 1), (3, 0)]:
        fine = rng.normal(size=(batch, 9, 7, 2)).astype(np.float32)
        coarse = rng.normal(size=(batch, 5, 4, 2)).astype(np.float32)
        corners = rng.uniform(-5, 50, (batch, count, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(1, 60, corners.shape)], -1).astype(np.float32)
        found, slopes = graph(fine, coarse, boxes)
        expected = roi_align([tf.constant(fine), tf.constant(coarse)], tf.constant(boxes), **options)
        np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=2e-5)
        assert [slope.shape for slope in slopes] == [fine.shape, coarse.shape]


# --- properties


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31), aligned=st.booleans(), sampling_ratio=st.sampled_from([1, 2, None]))
def test_properties(seed, aligned, sampling_ratio):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(1, 24, 20, 2)).astype(np.float32)
    features[:, 16:] = features[:, :, 14:] = 0
    corners = rng.integers(1, 5, (1, 6, 2))
    boxes = np.concatenate([corners, corners + rng.integers(1, 8, corners.shape)], -1).astype(np.float32)
    options = {"aligned": aligned, "sampling_ratio": sampling_ratio}
    found = _align(features, boxes, **options)
    # Constants stay constants inside the map.
    np.testing.assert_allclose(_align(np.full_like(features, 3), boxes, **options), 3, rtol=1e-6)
    # The order of the boxes does not matter.
    order = rng.permutation(6)
    np.testing.assert_array_equal(_align(features, boxes[:, order], **options), found[:, order])
    # Moving features and boxes together by whole cells changes nothing.
    moved = np.roll(features, (5, 3), axis=(1, 2))
    shift = np.array([3, 5, 3, 5], np.float32)
    np.testing.assert_allclose(_align(moved, boxes + shift, **options), found, atol=1e-5)
    # Linear in the features, and never beyond them.
    np.testing.assert_allclose(_align(2 * features, boxes, **options), 2 * found, atol=1e-5)
    assert np.abs(found).max() <= np.abs(features).max() + 1e-5


# --- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_size": 0}, "`output_size` 0 must be a number of bins of 1 or more"),
        ({"output_size": (2, 3, 4)}, r"`output_size` \(2, 3, 4\) must be"),
        ({"output_size": (2.0, 2.0)}, r"`output_size` \(2.0, 2.0\) must be a number of bins .* a whole number, or two"),
        ({"output_size": True}, "`output_size` True must be"),
        ({"sampling_ratio": -1}, "`sampling_ratio` -1 must be 1 or more, a whole number, or None"),
        ({"sampling_ratio": 2.5}, "`sampling_ratio` 2.5 must be 1 or more, a whole number, or None"),
        ({"max_adaptive_samples": 2.0}, "`max_adaptive_samples` 2.0 must be 1 or more, a whole number, or None"),
        ({"strides": (4, float("nan"))}, r"`strides` \[4, nan\] must be above 0"),
        ({"max_adaptive_samples": 0}, "`max_adaptive_samples` 0 must be 1 or more"),
        ({"strides": (8, 16)}, r"`strides` \[8, 16\] must have one number for each of the 1 maps"),
        ({"strides": 0}, r"`strides` \[0\] must be above 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        _align(RAMP, [[[0, 0, 1, 1]]], **arguments)


@pytest.mark.parametrize("strides", [(4, 16), (3, 6), (8, 4), (0, 1)])
def test_strides_that_are_no_pyramid_are_named(strides):
    with pytest.raises(ValueError, match=r"`strides` .* must be successive powers of 2"):
        assign_levels(np.zeros((1, 1, 4), np.float32), strides)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow has sizes unknown in a graph")
@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("name", ["map", "pyramid", "pool"])
def test_no_images_or_boxes_in_the_graph(name, xla):
    import tensorflow as tf

    def pool(features, boxes):
        if name == "pool":
            return roi_pool(features, boxes, output_size=2, stride=4)
        if name == "map":
            return roi_align(features, boxes, output_size=2, strides=4)
        return roi_align([features, features[:, ::2]], boxes, output_size=2, strides=(4, 8), sampling_ratio=None)

    signature = [tf.TensorSpec((None, 4, 4, 3)), tf.TensorSpec((None, None, 4))]
    function = tf.function(pool, jit_compile=xla, input_signature=signature)
    for batch, count in ((1, 0), (0, 5), (0, 0)):
        found = function(np.zeros((batch, 4, 4, 3), "float32"), np.zeros((batch, count, 4), "float32"))
        assert found.shape == (batch, count, 2, 2, 3)
    found = function(np.ones((1, 4, 4, 3), "float32"), np.array([[[2, 2, 9, 9]]], "float32"))
    np.testing.assert_allclose(found, np.ones((1, 1, 2, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize("name", ["align", "pool"])
def test_gradients_do_not_reach_the_boxes(name):
    features = np.random.default_rng(0).random((1, 8, 8, 2)).astype(np.float32)
    boxes = np.array([[[3.3, 4.2, 20.7, 25.1]]], np.float32)

    def total(features, boxes):
        if name == "align":
            return ops.sum(roi_align(features, boxes, output_size=2, strides=4))
        return ops.sum(roi_pool(features, boxes, output_size=2, stride=4))

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        variables = tf.Variable(features), tf.Variable(boxes)
        with tf.GradientTape() as tape:
            value = total(*variables)
        slopes = tape.gradient(value, variables)
    elif keras.backend.backend() == "jax":
        import jax

        slopes = jax.grad(total, argnums=(0, 1))(features, boxes)
    else:
        variables = [ops.convert_to_tensor(values).requires_grad_() for values in (features, boxes)]
        total(*variables).backward()
        slopes = [variable.grad for variable in variables]
    assert np.abs(ops.convert_to_numpy(slopes[0])).max() > 0
    assert slopes[1] is None or not ops.convert_to_numpy(slopes[1]).any()


def test_adaptive_samples_reach_over_the_whole_map():
    # Columns of value x^2 on 84 columns in 7 bins: each bin is the mean of its samples at 12 b + k + 0.5, of which
    # linear interpolation gives x^2 + x + 0.5 for x = 12 b + k; the bound for 56 cells would take 8 samples, not 12.
    features = np.broadcast_to((np.arange(85.0) ** 2)[None, None, :, None], (1, 50, 85, 1)).astype(np.float32)
    x = np.arange(84.0).reshape(7, 12)
    for maps, strides in ((features, 16), ([np.zeros((1, 9, 9, 1), np.float32), features], (8, 16))):
        found = _align(maps, [[[0, 0, 84 * 16, 48 * 16]]], output_size=7, strides=strides, sampling_ratio=None)
        np.testing.assert_allclose(found[0, 0, 3, :, 0], (x**2 + x + 0.5).mean(1), rtol=1e-5)


def test_layer_checks_its_strides_when_it_is_made():
    with pytest.raises(ValueError, match=r"`strides` \[0\] must be above 0"):
        RoIAlign(7, 0)
    with pytest.raises(ValueError, match="successive powers of 2"):
        RoIAlign(7, (4, 16))


def test_numbers_of_numpy_are_numbers():
    expected = _align([RAMP, RAMP[:, ::2, ::2]], [[[1, 1, 5, 4]]], strides=(1, 2), sampling_ratio=2)
    options = {"sampling_ratio": np.int32(2), "max_adaptive_samples": np.int64(3)}
    for size in (np.int64(2), np.array([2, 2]), [np.int32(2), 2]):
        found = _align(
            [RAMP, RAMP[:, ::2, ::2]], [[[1, 1, 5, 4]]], output_size=size, strides=np.array([1, 2]), **options
        )
        np.testing.assert_array_equal(found, expected)
    boxes = ops.convert_to_tensor(np.float32([[[1, 1, 5, 4]]]))
    found = roi_pool(ops.convert_to_tensor(RAMP), boxes, output_size=np.int64(2), stride=np.int64(1))
    expected = roi_pool(ops.convert_to_tensor(RAMP), boxes, output_size=2, stride=1)
    np.testing.assert_array_equal(ops.convert_to_numpy(found), ops.convert_to_numpy(expected))

"""RoIPool: values by hand, odd boxes."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.ops import roi_pool as module
from kerasvision.ops.roi_pool import roi_pool

# Cell (y, x) holds 10 y + x.
RAMP = (10.0 * np.arange(6)[:, None] + np.arange(8)).reshape(1, 6, 8, 1).astype(np.float32)


def _pool(features, boxes, **arguments):
    arguments = {"output_size": 2, "stride": 1} | arguments
    boxes = ops.convert_to_tensor(np.asarray(boxes, np.float32))
    return ops.convert_to_numpy(roi_pool(ops.convert_to_tensor(features), boxes, **arguments))


def test_by_hand():
    # Cells 1 to 5 and 1 to 3: 5 columns, 3 rows. Bins of 2.5 columns cover 1-3 and 3-5, of 1.5 rows 1-2 and 2-3.
    found = _pool(RAMP, [[[1, 1, 5, 3]]])[0, 0, :, :, 0]
    np.testing.assert_array_equal(found, [[23, 25], [33, 35]])


def test_corners_are_rounded_halves_away_from_zero():
    # 0.5, 1.5, 2.5 become 1, 2, 3, where rounding to even gives 0, 2, 2; -0.5 becomes -1, off the map.
    np.testing.assert_array_equal(_pool(RAMP, [[[0.5, 1.5, 0.5, 2.5]]], output_size=1).ravel(), [31])
    np.testing.assert_array_equal(_pool(RAMP, [[[-0.5, 0, -0.5, 0]]], output_size=1).ravel(), [0])
    np.testing.assert_array_equal(_pool(RAMP, [[[4, 12, 4, 20]]], output_size=1, stride=8).ravel(), [31])


def test_bins_outside_the_map_are_zero():
    # Columns -4 to 3 in four bins of two: the first two are off the map.
    found = _pool(RAMP + 1, [[[-4, 0, 3, 0]]], output_size=(1, 4))[0, 0, 0, :, 0]
    np.testing.assert_array_equal(found, [0, 0, 2, 4])


def test_negative_features_are_not_zero():
    np.testing.assert_array_equal(_pool(-1 - RAMP, [[[0, 0, 7, 5]]], output_size=1).ravel(), [-1])


def test_boxes_smaller_than_the_grid_repeat_cells():
    np.testing.assert_array_equal(_pool(RAMP, [[[3, 2, 3, 2], [3, 2, 1, 0]]], output_size=2)[0, :, :, :, 0], 23)


def test_padding_and_boxes_that_are_not_finite_give_zeros():
    features = np.full((1, 6, 8, 1), np.nan, np.float32)
    boxes = [[[-1, -1, -1, -1], [np.nan, 1, 3, 3], [1, 1, np.inf, 3], [0, 0, 2, 2]]]
    found = _pool(features, boxes)
    np.testing.assert_array_equal(found[0, :3], 0)
    assert np.isnan(found[0, 3]).all()
    np.testing.assert_array_equal(_pool(features, boxes, valid=np.zeros((1, 4), bool)), 0)


def test_a_huge_box_covers_the_map():
    found = _pool(RAMP, [[[-1e30, -1e30, 1e30, 1e30]]], output_size=1)
    np.testing.assert_array_equal(found.ravel(), [57])


def test_nothing_and_one_cell():
    assert _pool(RAMP, np.zeros((1, 0, 4)), output_size=(2, 3)).shape == (1, 0, 2, 3, 1)
    np.testing.assert_array_equal(_pool(RAMP[:, :1, :1] + 5, [[[0, 0, 0, 0]]]), 5)


def test_every_box_of_every_image_against_plain_maxima(monkeypatch):
    monkeypatch.setattr(module, "_GATHERED", 7 * 4 * 2 * 3 * 2)  # 7 boxes at a time
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 11, 13, 2)).astype(np.float32)
    corners = rng.integers(-3, 12, (2, 20, 2))
    boxes = np.concatenate([corners, corners + rng.integers(0, 14, corners.shape)], -1)
    found = _pool(features, boxes, output_size=(2, 3))
    for image, number in np.ndindex(2, 20):
        x1, y1, x2, y2 = boxes[image, number]
        for row, column in np.ndindex(2, 3):
            rows, columns = y2 - y1 + 1, x2 - x1 + 1
            top, bottom = y1 + row * rows // 2, y1 - (-(row + 1) * rows // 2)
            left, right = x1 + column * columns // 3, x1 - (-(column + 1) * columns // 3)
            cells = features[image, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)].reshape(-1, 2)
            expected = cells.max(axis=0) if len(cells) else 0
            np.testing.assert_array_equal(found[image, number, row, column], expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays(dtype):
    found = roi_pool(ops.cast(ops.convert_to_tensor(RAMP), dtype), np.array([[[1, 1, 5, 3]]]), output_size=2, stride=1)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    values = ops.convert_to_numpy(ops.cast(found, "float32"))
    np.testing.assert_array_equal(values[0, 0, :, :, 0], [[23, 25], [33, 35]])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="graphs of unknown shape are TensorFlow's")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_graph_of_unknown_batch_equals_eager(jit_compile):
    import tensorflow as tf

    shapes = [(2, 6, 8, 1), (2, 3, 4)] if jit_compile else [(None, 6, 8, 1), (None, None, 4)]

    @tf.function(input_signature=[tf.TensorSpec(shape) for shape in shapes], jit_compile=jit_compile)
    def graph(features, boxes):
        return roi_pool(features, boxes, output_size=2, stride=1)

    features = np.concatenate([RAMP, -RAMP])
    boxes = np.array([[[1, 1, 5, 3], [0, 0, 2, 2], [-1] * 4]] * 2, np.float32)
    np.testing.assert_array_equal(graph(features, boxes).numpy(), _pool(features, boxes))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_size": (0, 2)}, r"`output_size` \(0, 2\) must be a number of bins"),
        ({"stride": -2}, "`stride` -2 must be above 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        _pool(RAMP, [[[0, 0, 1, 1]]], **arguments)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="graphs of unknown shape are TensorFlow's")
@pytest.mark.parametrize("size_hw", [(1, 1), (3, 200), (50, 37)])
def test_graph_of_unknown_size_equals_eager(size_hw):
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 2)), tf.TensorSpec((None, None, 4))])
    def graph(features, boxes):
        return roi_pool(features, boxes, output_size=(2, 3), stride=1)

    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, *size_hw, 2)).astype(np.float32)
    corners = rng.uniform(-3, max(size_hw), (2, 30, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0, 100, corners.shape)], -1).astype(np.float32)
    np.testing.assert_array_equal(graph(features, boxes).numpy(), _pool(features, boxes, output_size=(2, 3)))

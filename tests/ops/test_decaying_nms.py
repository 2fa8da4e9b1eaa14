"""Soft, Fast and Matrix NMS by hand."""

from typing import get_args

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerasvision.ops.nms import Method, non_max_suppression

DECAYING = [method for method in get_args(Method) if method != "greedy"]
# IoU: 0 and 1 share 5 x 10 of 10 x 10, 0.5; 1 and 2 share 5 x 8 of 5 x 10, 0.8; 0 and 2 share 5 x 8 of 10 x 10, 0.4.
BOXES = np.array([[[0, 0, 10, 10], [0, 0, 5, 10], [0, 0, 5, 8]]], np.float32)
SCORES = np.array([[0.9, 0.8, 0.7]], np.float32)


def _run(boxes, scores, labels=None, **arguments):
    kept = non_max_suppression(
        ops.convert_to_tensor(np.asarray(boxes, np.float32)),
        ops.convert_to_tensor(np.asarray(scores, np.float32)),
        None if labels is None else ops.convert_to_tensor(np.asarray(labels, np.int32)),
        **{"max_detections": 4} | arguments,
    )
    indices, valid, final = map(ops.convert_to_numpy, kept)
    assert (indices.dtype, valid.dtype, final.dtype) == (np.int32, bool, np.float32)
    assert (indices[~valid] == 0).all() and (final[~valid] == 0).all()
    assert (np.diff(valid.astype(int), axis=1) <= 0).all()
    return [(list(index[mask]), list(score[mask])) for index, mask, score in zip(indices, valid, final, strict=True)]


def _check(found, indices, scores):
    assert found[0] == indices
    np.testing.assert_allclose(found[1], scores, rtol=1e-6)


def test_soft_linear_by_hand():
    # After 0: 1 has IoU 0.5 > 0.45 and gets 0.8 (1 - 0.5) = 0.4; 2 has 0.4 and stays at 0.7. After 2: 0.4 (1 - 0.8).
    _check(_run(BOXES, SCORES, method="soft_linear", iou_threshold=0.45)[0], [0, 2, 1], [0.9, 0.7, 0.08])


def test_soft_gaussian_by_hand():
    # After 0: 0.8 exp(-0.25 / 0.5), 0.7 exp(-0.16 / 0.5) = 0.4852, 0.5083. After 2: 0.4852 exp(-0.64 / 0.5).
    second, third = 0.7 * np.exp(-0.32), 0.8 * np.exp(-0.5) * np.exp(-1.28)
    _check(_run(BOXES, SCORES, method="soft_gaussian")[0], [0, 2, 1], [0.9, second, third])
    _check(_run(BOXES, SCORES, method="soft_gaussian", score_threshold=0.2)[0], [0, 2], [0.9, second])


def test_fast_lets_a_dropped_box_drop():
    # Greedy NMS drops 1 for 0 and keeps 2, as 1 is gone; here 1 drops 2.
    _check(_run(BOXES, SCORES, method="fast", iou_threshold=0.45)[0], [0], [0.9])
    _check(_run(BOXES, SCORES, method="greedy", iou_threshold=0.45)[0], [0, 2], [0.9, 0.7])


def test_fast_keeps_a_pair_exactly_on_the_threshold():
    _check(_run(BOXES[:, :2], SCORES[:, :2], method="fast", iou_threshold=0.5)[0], [0, 1], [0.9, 0.8])


def test_matrix_linear_by_hand():
    # 1: (1 - 0.5) / 1 from 0. 2: the least of (1 - 0.4) / 1 from 0 and (1 - 0.8) / (1 - 0.5) = 0.4 from 1.
    _check(_run(BOXES, SCORES, method="matrix_linear")[0], [0, 1, 2], [0.9, 0.8 * 0.5, 0.7 * 0.4])


def test_matrix_gaussian_by_hand():
    # 2: exp(-0.16 / 0.5) from 0, exp(-(0.64 - 0.25) / 0.5) from 1, which is less.
    _check(
        _run(BOXES, SCORES, method="matrix_gaussian")[0],
        [0, 1, 2],
        [0.9, 0.8 * np.exp(-0.5), 0.7 * np.exp(-0.78)],
    )


@pytest.mark.parametrize("method", ["matrix_linear", "matrix_gaussian"])
def test_matrix_sorts_by_decayed_score(method):
    boxes = np.concatenate([BOXES[:, :1], BOXES[:, :1], [[[50, 50, 60, 60]]]], axis=1)
    ((indices, scores),) = _run(boxes, [[0.9, 0.8, 0.3]], method=method)
    # The double: 0.8 x 0, or 0.8 exp(-2) = 0.11.
    assert indices == [0, 2, 1]
    np.testing.assert_allclose(scores[2], 0.8 * {"matrix_linear": 0, "matrix_gaussian": np.exp(-2)}[method], rtol=1e-6)


def test_matrix_linear_of_three_equal_boxes_is_finite():
    # 1 is covered wholly by 0, and so has nothing to say about 2; 0 has.
    _check(_run(np.repeat(BOXES[:, :1], 3, 1), SCORES, method="matrix_linear")[0], [0, 1, 2], [0.9, 0, 0])


@pytest.mark.parametrize("method", DECAYING)
class TestEveryMethod:
    def test_classes_leave_each_other_alone(self, method):
        _check(_run(BOXES, SCORES, [[2, 0, 1]], method=method)[0], [0, 1, 2], SCORES[0])

    def test_boxes_apart_keep_their_scores(self, method):
        boxes = [[[20 * i, 0, 20 * i + 10, 10] for i in range(6)]]
        ((indices, scores),) = _run(boxes, [[0.1, 0.6, 0.2, 0.5, 0.3, 0.4]], method=method)
        assert indices == [1, 3, 5, 4]
        np.testing.assert_allclose(scores, [0.6, 0.5, 0.4, 0.3])

    def test_what_does_not_count_neither_shows_nor_decays(self, method):
        boxes = np.repeat(BOXES[:, :1], 4, axis=1)
        boxes[0, 3, 2] = np.nan
        _check(_run(boxes, [[-np.inf, np.nan, 0.5, 0.9]], method=method)[0], [2], [0.5])
        assert _run(boxes[:, :2], [[-np.inf, np.nan]], method=method) == [([], [])]

    def test_nothing_gives_padding(self, method):
        assert _run(np.zeros((2, 0, 4)), np.zeros((2, 0)), method=method) == [([], [])] * 2

    def test_boxes_without_area_overlap_nothing(self, method):
        _check(_run([[[5, 5, 5, 5], [5, 5, 5, 5]]], [[0.9, 0.8]], method=method)[0], [0, 1], [0.9, 0.8])

    def test_images_of_a_batch_do_not_meet(self, method):
        boxes = np.concatenate([BOXES, BOXES + 100])
        scores = np.concatenate([SCORES, SCORES[:, ::-1]])
        together = _run(boxes, scores, method=method)
        for image in (0, 1):
            (alone,) = _run(boxes[image : image + 1], scores[image : image + 1], method=method)
            _check(together[image], *alone)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision_scores_decay_in_float32(self, method, dtype):
        boxes, scores = ops.cast(ops.convert_to_tensor(BOXES), dtype), ops.cast(ops.convert_to_tensor(SCORES), dtype)
        kept = non_max_suppression(boxes, scores, max_detections=4, method=method)
        ((indices, final),) = _run(BOXES, ops.convert_to_numpy(ops.cast(scores, "float32")), method=method)
        assert ops.convert_to_numpy(kept.indices)[0, : len(indices)].tolist() == indices
        np.testing.assert_array_equal(ops.convert_to_numpy(kept.scores)[0, : len(final)], np.array(final))

    @settings(max_examples=6, deadline=None)
    @given(seed=st.integers(0, 2**31))
    def test_properties(self, method, seed):
        rng = np.random.default_rng(seed)
        corners = rng.integers(0, 60, (1, 30, 2))
        boxes = np.concatenate([corners, corners + rng.integers(1, 40, corners.shape)], -1)
        scores = rng.permutation(np.linspace(0.1, 0.9, 30))[None]
        labels = rng.integers(0, 2, (1, 30))
        options = {"method": method, "max_detections": 30}
        ((indices, final),) = _run(boxes, scores, labels, **options)
        assert (np.diff(final) <= 0).all()
        assert (np.asarray(final) <= scores[0, indices] + 1e-6).all()
        order = rng.permutation(30)
        ((shuffled, final_shuffled),) = _run(boxes[:, order], scores[:, order], labels[:, order], **options)
        assert list(order[shuffled]) == indices
        np.testing.assert_allclose(final_shuffled, final, rtol=1e-5, atol=1e-7)
        ((moved, _),) = _run(boxes + 512, scores, labels, **options)
        assert moved == indices


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="graphs of unknown shape are TensorFlow's")
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("method", [*get_args(Method), "exportable"])
def test_graph_of_unknown_size_equals_eager(method, jit_compile):
    import tensorflow as tf

    options = {"exportable": True} if method == "exportable" else {"method": method}
    shapes = [(None, None, 4), (None, None), (None, None)]
    if jit_compile:  # XLA compiles for each size; the graph is still traced without it
        shapes = [(2, 200, 4), (2, 200), (2, 200)]
    specs = [tf.TensorSpec(shape, dtype) for shape, dtype in zip(shapes, ("float32", "float32", "int32"), strict=True)]

    @tf.function(input_signature=specs, jit_compile=jit_compile)
    def graph(boxes, scores, labels):
        return tuple(non_max_suppression(boxes, scores, labels, max_detections=20, **options))

    rng = np.random.default_rng(0)
    for batch, count in [(2, 200)] if jit_compile else [(2, 200), (1, 3), (3, 1)]:
        corners = rng.uniform(0, 60, (batch, count, 2))
        boxes = np.concatenate([corners, corners + 20], -1).astype(np.float32)
        scores, labels = rng.random((batch, count), np.float32), rng.integers(0, 3, (batch, count)).astype(np.int32)
        expected = non_max_suppression(boxes, scores, labels, max_detections=20, **options)
        for mine, wanted in zip(graph(boxes, scores, labels), expected, strict=True):
            np.testing.assert_allclose(mine.numpy(), wanted.numpy(), rtol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX's own compiler")
@pytest.mark.parametrize("method", get_args(Method))
def test_jit_equals_eager(method):
    import jax

    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (2, 150, 2))
    boxes = np.concatenate([corners, corners + 20], -1).astype(np.float32)
    scores = rng.random((2, 150), np.float32)

    def run(boxes, scores):
        return tuple(non_max_suppression(boxes, scores, max_detections=20, method=method))

    for mine, wanted in zip(jax.jit(run)(boxes, scores), run(boxes, scores), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-5)

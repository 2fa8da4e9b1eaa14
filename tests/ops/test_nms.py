"""Non-maximum suppression: cases by hand, and a plain greedy loop over random boxes."""

from typing import get_args

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import ops

from kerasvision.layers import NonMaxSuppression
from kerasvision.ops import greedy_nms, nms
from kerasvision.ops.nms import Method, non_max_suppression

BOX = [0, 0, 10, 10]


def _nms(boxes, scores, labels=None, *, iou_threshold=0.5, max_detections=5, score_threshold=None):
    """Return the kept indices of each image as lists, having checked the padding."""
    boxes = np.asarray(boxes, np.float32).reshape(*np.shape(scores), 4)
    indices, valid, kept_scores = non_max_suppression(
        ops.convert_to_tensor(boxes),
        ops.convert_to_tensor(np.asarray(scores, np.float32)),
        None if labels is None else ops.convert_to_tensor(np.asarray(labels, np.int32)),
        iou_threshold=iou_threshold,
        max_detections=max_detections,
        score_threshold=score_threshold,
    )
    indices, valid = ops.convert_to_numpy(indices), ops.convert_to_numpy(valid)
    assert indices.dtype == np.int32 and valid.dtype == bool
    assert indices.shape == valid.shape == (len(boxes), max_detections)
    assert (indices[~valid] == 0).all()
    expected_scores = np.take_along_axis(np.asarray(scores, np.float32), indices, 1) if np.size(scores) else 0
    np.testing.assert_array_equal(ops.convert_to_numpy(kept_scores), np.where(valid, expected_scores, 0))
    assert (np.diff(valid.astype(int), axis=1) <= 0).all()  # valid ones first
    return [list(image[kept]) for image, kept in zip(indices, valid, strict=True)]


def _greedy(boxes, scores, labels, iou_threshold, max_detections):
    """The textbook algorithm, in float64."""
    boxes = boxes.astype(np.float64)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    for index in np.argsort(-scores, kind="stable"):
        if len(kept) == max_detections or not scores[index] > -np.inf:
            break
        for other in kept:
            width = min(boxes[index, 2], boxes[other, 2]) - max(boxes[index, 0], boxes[other, 0])
            height = min(boxes[index, 3], boxes[other, 3]) - max(boxes[index, 1], boxes[other, 1])
            shared = max(width, 0) * max(height, 0)
            if labels[index] == labels[other] and shared > iou_threshold * (area[index] + area[other] - shared):
                break
        else:
            kept.append(index)
    return kept


# Each backend has one way of its own; its tests run the two others that it can.
_WAYS = ["native", "host", "tiled"] if keras.backend.backend() == "tensorflow" else ["host", "tiled"]


@pytest.fixture(params=_WAYS)
def way(request, monkeypatch):
    chosen = {"native": greedy_nms.native, "host": greedy_nms.on_host, "tiled": greedy_nms.tiled}[request.param]
    for name in ("native", "on_host", "tiled"):
        monkeypatch.setattr(greedy_nms, name, chosen)
    if request.param != "tiled":
        monkeypatch.setattr(nms, "compiled_once", lambda function, constants: function)


@pytest.mark.usefixtures("way")
class TestNonMaxSuppression:
    def test_drops_the_weaker_of_two_overlapping(self):
        # Boxes 0 and 1 share 9 x 10 = 90 of 110: IoU 0.82; box 2 is apart.
        assert _nms([[BOX, [1, 0, 11, 10], [50, 50, 60, 60]]], [[0.6, 0.9, 0.1]]) == [[1, 2]]

    def test_keeps_a_pair_exactly_on_the_threshold(self):
        # 5 x 10 of 10 x 10: IoU 0.5, not above 0.5.
        assert _nms([[BOX, [0, 0, 5, 10]]], [[0.9, 0.8]]) == [[0, 1]]

    def test_a_suppressed_box_suppresses_nothing(self):
        # 0-1 and 1-2 overlap by 6/14 = 0.43, 0-2 by 2/18; 1 falls to 0, so 2 stays.
        boxes = [[BOX, [4, 0, 14, 10], [8, 0, 18, 10]]]
        assert _nms(boxes, [[0.9, 0.8, 0.7]], iou_threshold=0.4) == [[0, 2]]

    def test_two_classes_keep_one_box_each(self):
        assert _nms([[BOX, BOX, BOX]], [[0.7, 0.9, 0.8]], [[0, 1, 0]]) == [[1, 2]]

    def test_without_labels_all_classes_compete(self):
        assert _nms([[BOX, BOX, BOX]], [[0.7, 0.9, 0.8]]) == [[1]]

    def test_many_classes_on_one_box_are_all_kept(self):
        count = 30
        scores = np.linspace(1, 0.5, count)[None]
        found = _nms([[BOX] * count], scores, np.arange(count)[None], max_detections=40)
        assert found == [list(range(count))]

    def test_one_class_of_negative_coordinates_still_suppresses(self):
        boxes = [[[-50, -50, -40, -40], [-50, -50, -40, -40], [-20, -20, -10, -10]]]
        assert _nms(boxes, [[0.5, 0.6, 0.4]], [[7, 7, 7]]) == [[1, 2]]

    def test_all_overlapping_keeps_the_best_alone(self):
        scores = np.linspace(0.1, 0.9, 500)[None]
        assert _nms(np.tile(BOX, (1, 500, 1)), scores, max_detections=300) == [[499]]

    def test_more_survivors_than_detections_keeps_the_best(self):
        boxes = [[[20 * i, 0, 20 * i + 10, 10] for i in range(8)]]
        assert _nms(boxes, [[1, 2, 3, 4, 5, 6, 7, 8]], max_detections=3) == [[7, 6, 5]]

    def test_fewer_boxes_than_detections_are_padded(self):
        assert _nms([[BOX]], [[0.5]], max_detections=300) == [[0]]

    def test_minus_infinity_and_nan_are_never_kept(self):
        boxes = [[BOX, [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]]]
        assert _nms(boxes, [[-np.inf, 0.5, np.nan, -3.0]]) == [[1, 3]]

    def test_nan_score_on_top_of_a_box_does_not_suppress_it(self):
        assert _nms([[BOX, BOX]], [[np.nan, 0.1]]) == [[1]]

    def test_only_dropped_scores_give_nothing(self):
        assert _nms([[BOX, BOX]] * 2, [[-np.inf, np.nan]] * 2) == [[], []]

    def test_score_threshold_is_exclusive(self):
        boxes = [[BOX, [20, 0, 30, 10], [40, 0, 50, 10]]]
        assert _nms(boxes, [[0.05, 0.06, 0.04]], score_threshold=np.float32(0.05)) == [[1]]

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("labels", [None, [[0, 1, 1], [0, 1, 1]]])
    def test_a_box_that_is_not_finite_is_dropped_and_harms_no_other(self, bad, labels):
        boxes = np.array([[BOX, BOX, [1, 0, 11, 10]]] * 2, np.float32)
        boxes[0, 0, 1] = bad
        found = _nms(boxes, [[0.9, 0.8, 0.7]] * 2, labels)
        assert found == [[1], [0] if labels is None else [0, 1]]

    def test_a_huge_box_harms_no_other(self):
        huge = [-1e30, -1e30, 1e30, 1e30]
        # The two others share 45 x 40 of 55 x 40: IoU 0.82; a huge box covers next to none of itself with them.
        boxes = [[huge, [0, 0, 50, 40], [5, 0, 55, 40], huge]]
        assert _nms(boxes, [[0.9, 0.8, 0.7, 0.6]], [[0, 1, 1, 1]]) == [[0, 1, 3]]

    def test_boxes_of_negative_size_overlap_nothing(self):
        assert _nms([[[10, 10, 0, 0], [10, 10, 0, 0], BOX]], [[0.9, 0.8, 0.7]]) == [[0, 1, 2]]

    def test_equal_scores_are_taken_in_order(self):
        assert _nms([[BOX, BOX, [20, 0, 30, 10]]], [[0.5, 0.5, 0.5]]) == [[0, 2]]

    def test_boxes_that_take_several_tiles(self):
        # 40 places, 10 boxes each, all of one place before the next in score: a tile of 128 keeps 13.
        places = np.repeat(np.arange(40), 10)
        boxes = np.stack([20 * places, 0 * places, 20 * places + 10, 0 * places + 10], 1)[None]
        scores = np.linspace(1, 0.5, 400)[None]
        assert _nms(boxes, scores, max_detections=35) == [list(range(0, 350, 10))]
        assert _nms(boxes, scores, max_detections=60) == [list(range(0, 400, 10))]

    def test_images_that_end_at_different_tiles(self):
        places = np.stack([np.arange(200), np.zeros(200), np.repeat(np.arange(20), 10)])
        boxes = np.stack([20 * places, 0 * places, 20 * places + 10, 0 * places + 10], -1)
        scores = np.tile(np.linspace(1, 0.5, 200), (3, 1))
        found = _nms(boxes, scores, max_detections=150)
        assert found == [list(range(150)), [0], list(range(0, 200, 10))]

    def test_boxes_without_area_neither_suppress_nor_fall(self):
        assert _nms([[[5, 5, 5, 5], [5, 5, 5, 5], BOX]], [[0.9, 0.8, 0.7]]) == [[0, 1, 2]]

    def test_images_of_a_batch_do_not_meet(self):
        boxes = [[BOX, [1, 0, 11, 10]], [BOX, [50, 0, 60, 10]], [BOX, BOX]]
        assert _nms(boxes, [[0.9, 0.8], [0.1, 0.2], [-np.inf, 0.3]]) == [[0], [1, 0], [1]]

    @pytest.mark.parametrize("batch", [1, 2])
    @pytest.mark.parametrize("per_class", [True, False])
    def test_no_boxes_give_only_padding(self, batch, per_class):
        scores = np.zeros((batch, 0))
        assert _nms(np.zeros((batch, 0, 4)), scores, scores if per_class else None) == [[]] * batch

    def test_one_box_is_kept(self):
        assert _nms([[BOX]], [[0.3]], [[4]]) == [[0]]

    def test_all_labels_of_padding_do_no_harm(self):
        assert _nms([[BOX, BOX]], [[-np.inf, -np.inf]], [[-1, -1]]) == [[]]

    @settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.integers(0, 2**31), st.sampled_from([0.0, 0.3, 0.5, 0.75, 1.0]), st.sampled_from([1, 3, 90]))
    def test_equals_the_greedy_loop(self, seed, iou_threshold, classes):
        rng = np.random.default_rng(seed)
        batch, count = 2, 40
        corners = rng.uniform(-20, 80, (batch, count, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(5, 60, corners.shape)], -1).astype(np.float32)
        scores = rng.permuted(np.tile(np.linspace(0.01, 0.99, count, dtype=np.float32), (batch, 1)), axis=1)
        scores[rng.random(scores.shape) < 0.1] = -np.inf
        labels = rng.integers(0, classes, scores.shape)
        found = _nms(boxes, scores, labels, iou_threshold=iou_threshold, max_detections=15)
        for image in range(batch):
            expected = _greedy(boxes[image], scores[image], labels[image], iou_threshold, 15)
            assert found[image] == expected

    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.integers(0, 2**31), st.sampled_from([0.3, 0.5, 0.7]), st.sampled_from([1, 4]))
    def test_properties(self, seed, iou_threshold, classes):
        rng = np.random.default_rng(seed)
        count, limit = 40, 50
        corners = rng.integers(0, 60, (1, count, 2))  # whole pixels: moving them rounds nothing
        boxes = np.concatenate([corners, corners + rng.integers(1, 40, corners.shape)], -1).astype(np.float32)
        scores = rng.permutation(np.linspace(0.1, 0.9, count, dtype=np.float32))[None]
        labels = rng.integers(0, classes, (1, count))
        options = {"iou_threshold": iou_threshold, "max_detections": limit}
        (kept,) = _nms(boxes, scores, labels, **options)
        # Idempotent: what is kept does not suppress itself.
        left = np.where(np.isin(np.arange(count), kept), scores[0], -np.inf)[None]
        assert _nms(boxes, left, labels, **options) == [kept]
        # Permutation: the order of the input does not matter.
        order = rng.permutation(count)
        (shuffled,) = _nms(boxes[:, order], scores[:, order], labels[:, order], **options)
        assert list(order[shuffled]) == kept
        # Translation, and scores through a growing function.
        assert _nms(boxes + np.float32(512), scores, labels, **options) == [kept]
        (doubled,) = _nms(boxes, 2 * scores, labels, **options)
        assert doubled == kept


def test_greedy_way_of_each_backend(monkeypatch):
    called = []
    for name in ("native", "on_host", "tiled"):
        monkeypatch.setattr(greedy_nms, name, lambda *args, name=name: called.append(name) or (args[1][:, :1],) * 2)
    monkeypatch.setattr(greedy_nms, "take_rows", lambda scores, indices: scores[:, :1])
    for exportable in (False, True):
        greedy_nms.greedy_nms(ops.zeros((1, 1, 4)), ops.ones((1, 1)), None, 0.5, 1, exportable=exportable)
    own = {"tensorflow": "native", "torch": "on_host", "jax": "tiled"}[keras.backend.backend()]
    assert called == [own, "tiled"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "hard"}, "`method` 'hard' is unknown; use one of 'greedy', 'soft_linear'"),
        ({"iou_threshold": 1.5}, r"`iou_threshold` 1.5 must be in \[0, 1\]"),
        ({"max_detections": 0}, "`max_detections` 0 must be 1 or more"),
        ({"sigma": 0.0}, "`sigma` 0.0 must be above 0"),
        ({"max_candidates": 0}, "`max_candidates` 0 must be 1 or more"),
        ({"max_detections": 5.0}, "`max_detections` 5.0 must be 1 or more, a whole number; 100 is usual"),
        ({"max_candidates": 5.0}, "`max_candidates` 5.0 must be 1 or more, a whole number, or None for the default"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        non_max_suppression(np.zeros((1, 1, 4)), np.zeros((1, 1)), **{"max_detections": 1} | arguments)


def test_max_candidates_takes_the_best():
    boxes = np.array([[[20 * i, 0, 20 * i + 10, 10] for i in range(5)]], np.float32)
    scores = np.array([[0.1, 0.5, 0.3, 0.4, 0.2]], np.float32)
    for method in get_args(Method):
        kept = non_max_suppression(boxes, scores, max_detections=5, max_candidates=3, method=method)
        assert ops.convert_to_numpy(kept.indices)[0].tolist() == [1, 3, 2, 0, 0]
        assert ops.convert_to_numpy(kept.valid)[0].tolist() == [True, True, True, False, False]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow has sizes unknown in a graph")
@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("exportable", [False, True])
@pytest.mark.parametrize("with_labels", [False, True])
def test_nms_of_a_number_of_boxes_unknown_in_the_graph(with_labels, exportable, xla):
    import tensorflow as tf

    def suppress(boxes, scores, labels):
        labels = labels if with_labels else None
        return non_max_suppression(boxes, scores, labels, max_detections=3, exportable=exportable)

    signature = [tf.TensorSpec((None, None, 4)), tf.TensorSpec((None, None)), tf.TensorSpec((None, None), tf.int32)]
    function = tf.function(suppress, jit_compile=xla, input_signature=signature)
    for count in (2, 0):
        boxes = np.tile(np.float32(BOX), (2, count, 1))
        kept = function(boxes, np.ones((2, count), "float32"), np.zeros((2, count), "int32"))
        np.testing.assert_array_equal(kept.valid.numpy(), [[count > 0, False, False]] * 2)
        np.testing.assert_array_equal(kept.indices.numpy(), np.zeros((2, 3)))
        np.testing.assert_array_equal(kept.scores.numpy(), kept.valid.numpy().astype("float32"))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow has sizes unknown in a graph")
@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("method", [method for method in get_args(Method) if method != "greedy"])
def test_nms_that_decays_of_no_boxes_in_the_graph(method, xla):
    import tensorflow as tf

    function = tf.function(
        lambda boxes, scores: non_max_suppression(boxes, scores, max_detections=3, method=method),
        jit_compile=xla,
        input_signature=[tf.TensorSpec((None, None, 4)), tf.TensorSpec((None, None))],
    )
    kept = function(np.zeros((2, 0, 4), "float32"), np.zeros((2, 0), "float32"))
    assert not kept.valid.numpy().any() and not kept.indices.numpy().any() and not kept.scores.numpy().any()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow has sizes unknown in a graph")
@pytest.mark.parametrize("xla", [False, True])
def test_nms_layer_takes_a_number_of_boxes_that_turns_out_to_be_none(xla):
    inputs = keras.Input((None, 4)), keras.Input((None,)), keras.Input((None,), dtype="int32")
    model = keras.Model(inputs, NonMaxSuppression(iou_threshold=0.5, max_detections=3)(*inputs))
    model.compile(jit_compile=xla)
    found = model.predict_on_batch([np.zeros((2, 0, 4)), np.zeros((2, 0)), np.zeros((2, 0), "int32")])
    np.testing.assert_array_equal(found["num_detections"], [0, 0])
    np.testing.assert_array_equal(found["boxes"], np.full((2, 3, 4), -1))

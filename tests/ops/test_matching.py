"""Assignment of boxes to anchors by IoU, with matrices whose answer can be read off."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerasvision.ops.boxes import pairwise_iou
from kerasvision.ops.matching import (
    BACKGROUND,
    BETWEEN_THRESHOLDS,
    match_atss,
    match_best_prior,
    match_by_iou,
    match_simota,
    simota_cost,
)


def _match(iou, valid=None, **options):
    iou = np.asarray(iou, np.float32)
    valid = np.ones(iou.shape[:-1], bool) if valid is None else np.asarray(valid)
    options = {"foreground_iou": 0.5, "background_iou": 0.4, **options}
    matches = match_by_iou(ops.convert_to_tensor(iou), ops.convert_to_tensor(valid), **options)
    matches = ops.convert_to_numpy(matches)
    assert matches.dtype == np.int32
    return matches


def test_match_by_iou_by_thresholds():
    iou = [
        [0.9, 0.5, 0.45, 0.39, 0.0],
        [0.1, 0.6, 0.40, 0.10, 0.0],
    ]
    # Best: 0.9 of 0, 0.6 of 1, 0.45 between, 0.39 under 0.4, none.
    expected = [0, 1, BETWEEN_THRESHOLDS, BACKGROUND, BACKGROUND]
    np.testing.assert_array_equal(_match(iou, force_best=False), expected)


def test_match_by_iou_on_the_thresholds_is_foreground_and_ignored():
    np.testing.assert_array_equal(_match([[0.5, 0.25]], background_iou=0.25, force_best=False), [0, -2])


def test_match_by_iou_force_best_gives_each_box_its_best_anchors():
    iou = [
        [0.9, 0.0, 0.0, 0.0],
        [0.0, 0.2, 0.2, 0.1],  # never reaches 0.5; ties at 0.2: both anchors
    ]
    np.testing.assert_array_equal(_match(iou), [0, 1, 1, BACKGROUND])
    np.testing.assert_array_equal(_match(iou, force_best=False), [0, -1, -1, -1])


def test_match_by_iou_forced_anchor_takes_the_box_it_overlaps_most():
    # Anchor 0 is the best of both boxes, but overlaps box 1 more (torchvision: set_low_quality_matches_).
    np.testing.assert_array_equal(_match([[0.2, 0.1], [0.3, 0.0]]), [1, BACKGROUND])


def test_match_by_iou_never_matches_padding():
    iou = [[0.3, 0.0], [0.9, 0.9]]
    np.testing.assert_array_equal(_match(iou, [True, False]), [0, BACKGROUND])


def test_match_by_iou_padding_that_overlaps_nothing_stays_unmatched():
    # A padded row of zeros is "best" everywhere at IoU 0: it must not force matches.
    np.testing.assert_array_equal(_match([[0.0, 0.0]], [False]), [BACKGROUND, BACKGROUND])


def test_match_by_iou_a_box_that_misses_every_anchor_matches_none():
    np.testing.assert_array_equal(_match([[0.0, 0.0, 0.0]]), [BACKGROUND] * 3)


def test_match_by_iou_of_only_padding_is_background():
    np.testing.assert_array_equal(_match(np.full((2, 3, 4), 0.9), np.zeros((2, 3), bool)), np.full((2, 4), BACKGROUND))


@pytest.mark.parametrize("force_best", [True, False])
def test_match_by_iou_of_no_boxes_is_background(force_best):
    found = _match(np.zeros((2, 0, 5)), np.zeros((2, 0), bool), force_best=force_best)
    np.testing.assert_array_equal(found, np.full((2, 5), BACKGROUND))


def test_match_by_iou_ties_go_to_the_first_box():
    np.testing.assert_array_equal(_match([[0.7], [0.7]]), [0])


def test_match_by_iou_works_on_a_batch_and_on_one_image():
    batch = np.stack([np.eye(3), np.zeros((3, 3))])
    np.testing.assert_array_equal(_match(batch), [[0, 1, 2], [-1, -1, -1]])
    np.testing.assert_array_equal(_match(batch[0]), [0, 1, 2])


def test_match_by_iou_takes_nan_for_no_overlap():
    np.testing.assert_array_equal(_match([[np.nan, 0.9, np.nan], [np.nan, np.nan, 0.3]]), [BACKGROUND, 0, 1])


def _best_prior(iou, valid=None, **options):
    iou = np.asarray(iou, np.float32)
    valid = np.ones(iou.shape[:-1], bool) if valid is None else np.asarray(valid)
    return ops.convert_to_numpy(match_best_prior(ops.convert_to_tensor(iou), ops.convert_to_tensor(valid), **options))


def test_match_best_prior_takes_its_anchor_from_a_box_that_overlaps_it_more():
    iou = [
        [0.9, 0.8, 0.2],  # best: anchor 0
        [0.3, 0.6, 0.0],  # best: anchor 1, which overlaps box 0 more
    ]
    np.testing.assert_array_equal(_best_prior(iou), [0, 1, BACKGROUND])
    np.testing.assert_array_equal(_match(iou), [0, 0, BACKGROUND])


def test_match_best_prior_of_one_anchor_for_two_boxes():
    iou = [[0.3, 0.1], [0.2, 0.1]]
    np.testing.assert_array_equal(_best_prior(iou), [1, BACKGROUND])
    np.testing.assert_array_equal(_best_prior(iou, prefer="first"), [0, BACKGROUND])


def test_match_best_prior_between_thresholds():
    iou = [[0.9, 0.45, 0.3]]
    np.testing.assert_array_equal(_best_prior(iou, background_iou=0.4), [0, BETWEEN_THRESHOLDS, BACKGROUND])


def test_match_best_prior_padding_and_boxes_that_miss_match_none():
    iou = [[0.0, 0.0], [0.9, 0.9], [0.2, 0.0]]
    np.testing.assert_array_equal(_best_prior(iou, [True, False, True]), [2, BACKGROUND])
    np.testing.assert_array_equal(_best_prior(np.zeros((2, 0, 3)), np.zeros((2, 0))), np.full((2, 3), BACKGROUND))


def test_match_best_prior_with_an_unknown_preference():
    with pytest.raises(ValueError, match="`prefer` 'best' must be 'last' or 'first'"):
        _best_prior([[0.5]], prefer="best")


# Five anchors of 10 x 10 in a row, at 0, 10, ... 40.
ROW = np.array([[10 * i, 0, 10 * i + 10, 10] for i in range(5)], np.float32)


def _atss(boxes, valid=None, **options):
    boxes = np.asarray(boxes, np.float32)
    valid = np.ones(boxes.shape[:-1], bool) if valid is None else np.asarray(valid)
    options = {"level_sizes": (5,), "candidates_per_level": 3, **options}
    found = ops.convert_to_numpy(match_atss(boxes, valid, ROW, **options))
    assert found.dtype == np.int32
    return found


def test_match_atss_by_hand():
    # Box 8-22 x 0-10, area 140, centre 15: candidates 1, 0 and 2 with IoU 100 / 140 = 0.714, 20 / 220 = 0.091 twice.
    # Mean 0.299, unbiased standard deviation 0.360: threshold 0.659. Only anchor 1.
    np.testing.assert_array_equal(_atss([[[8, 0, 22, 10]]]), [[-1, 0, -1, -1, -1]])


def test_match_atss_wants_centres_inside():
    # Box 6-14: anchors 0 and 1 overlap 4 x 10, IoU 40 / 140 = 0.286. Their centres 5 and 15 are outside.
    np.testing.assert_array_equal(_atss([[[6, 0, 14, 10]]]), [[-1] * 5])


def test_match_atss_gives_an_anchor_to_the_box_it_overlaps_most():
    np.testing.assert_array_equal(_atss([[[8, 0, 22, 10], [9, 0, 21, 10]]]), [[-1, 1, -1, -1, -1]])


def test_match_atss_of_padding_and_of_nothing_is_background():
    boxes = [[[8, 0, 22, 10]], [[np.nan] * 4]]
    np.testing.assert_array_equal(_atss(boxes, [[False], [False]]), np.full((2, 5), BACKGROUND))
    np.testing.assert_array_equal(_atss(np.zeros((2, 0, 4))), np.full((2, 5), BACKGROUND))
    np.testing.assert_array_equal(_atss([[[8, 0, 22, 10], [np.nan] * 4]], [[True, False]]), [[-1, 0, -1, -1, -1]])


def test_match_atss_wants_all_levels():
    with pytest.raises(ValueError, match=r"`level_sizes` \(3, 1\) sum to 4; there are 5 anchors"):
        _atss([[[8, 0, 22, 10]]], level_sizes=(3, 1))


CENTERS = (ROW[:, :2] + ROW[:, 2:]) / 2


def _simota(cost, iou, boxes, valid=None, strides=4.0, **options):
    cost, iou, boxes = (np.asarray(values, np.float32)[None] for values in (cost, iou, boxes))
    valid = np.ones((1, boxes.shape[1]), bool) if valid is None else np.asarray(valid)[None]
    strides = np.full(5, strides, np.float32)
    found = ops.convert_to_numpy(match_simota(cost, iou, valid, boxes, CENTERS, strides, **options))
    assert found.dtype == np.int32
    return found[0]


def test_match_simota_takes_as_many_as_its_ious_sum_to():
    box = [[0, 0, 50, 10]]
    # Centre 25, reach 2.5 * 4 = 10: only anchor 2 is inside and near (15 and 35 are at 10, not under it).
    # IoUs sum to 2.3: two. First anchor 2, dear as it is, then the cheapest other.
    cost, iou = [[4, 3, 9, 1, 2]], [[0.6, 0.5, 0.5, 0.5, 0.2]]
    np.testing.assert_array_equal(_simota(cost, iou, box), [-1, -1, 0, 0, -1])
    np.testing.assert_array_equal(_simota(cost, np.full((1, 5), 0.1), box), [-1, -1, 0, -1, -1])  # at least one
    np.testing.assert_array_equal(_simota(cost, iou, box, candidates=3), [-1, -1, 0, -1, -1])  # 1.6: one


def test_match_simota_takes_only_predictions_near_or_inside_some_box():
    # Box 0-10: only the first centre is inside; reach 10 does not get to 15.
    np.testing.assert_array_equal(_simota([[9, 0, 0, 0, 0]], np.ones((1, 5)), [[0, 0, 10, 10]]), [0, -1, -1, -1, -1])


def test_match_simota_gives_a_prediction_to_the_cheapest_box():
    boxes = [[0, 0, 50, 10], [2, 0, 48, 10]]
    cost = [[5, 5, 2, 5, 5], [5, 5, 1, 5, 5]]
    np.testing.assert_array_equal(_simota(cost, np.full((2, 5), 0.1), boxes), [-1, -1, 1, -1, -1])


def test_match_simota_keeps_small_differences_between_predictions_outside():
    # Nothing is near and inside; with 1e5 added in float32 these costs would be equal, and the first taken.
    boxes = [[0, 0, 50, 10]]
    cost = [[2.003, 2.002, 2.001, 2.0005, 2.004]]
    np.testing.assert_array_equal(_simota(cost, np.zeros((1, 5)), boxes, strides=1e-3), [-1, -1, 0, -1, -1])
    cost[0][2] = np.nan
    np.testing.assert_array_equal(_simota(cost, np.zeros((1, 5)), boxes, strides=1e-3), [-1, -1, -1, 0, -1])


def test_match_simota_of_padding_and_of_nothing_is_background():
    boxes = [[0, 0, 50, 10], [np.nan] * 4]
    nothing = np.full((2, 5), np.nan)
    np.testing.assert_array_equal(_simota(nothing, nothing, boxes, [False, False]), [BACKGROUND] * 5)
    np.testing.assert_array_equal(_simota(np.zeros((0, 5)), np.zeros((0, 5)), np.zeros((0, 4))), [BACKGROUND] * 5)


def test_simota_cost_by_hand():
    # Probability 0.25: scores of 0.5; IoU 0.5; class 1 of 2. -2 log 0.5 - 3 log 0.5.
    cost, iou = simota_cost(
        np.array([[1]]),
        np.array([[[0, 0, 10, 10]]], np.float32),
        np.full((1, 1, 2), 0.25, np.float32),
        np.array([[[0, 0, 10, 5]]], np.float32),
    )
    np.testing.assert_allclose(ops.convert_to_numpy(iou), [[[0.5]]])
    np.testing.assert_allclose(ops.convert_to_numpy(cost), [[[5 * np.log(2)]]], rtol=1e-5)


def test_simota_cost_of_certain_probabilities_is_finite():
    certain = np.array([[[0.0, 1.0], [1.0, 0.0]]], np.float32)
    none = np.zeros((1, 2, 4), np.float32)
    cost, _ = simota_cost(np.array([[0, -1]]), none, certain, none)
    assert np.isfinite(ops.convert_to_numpy(cost)).all()


def _random_case(seed, boxes=6, anchors=40):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 100, (boxes + anchors, 2))
    both = np.concatenate([corners, corners + rng.uniform(5, 50, (boxes + anchors, 2))], axis=1).astype(np.float32)
    return rng, both[:boxes], both[boxes:]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["iou", "prior", "atss"]))
def test_matching_follows_a_shuffle_of_boxes_and_a_move_of_everything(seed, kind):
    rng, truth, anchors = _random_case(seed)
    valid = rng.random(len(truth)) < 0.8

    def match(truth, valid, anchors):
        truth, valid = ops.convert_to_tensor(truth), ops.convert_to_tensor(valid)
        if kind == "atss":
            return ops.convert_to_numpy(match_atss(truth[None], valid[None], anchors, level_sizes=(25, 15)))[0]
        iou = pairwise_iou(truth, ops.convert_to_tensor(anchors))
        if kind == "prior":
            return ops.convert_to_numpy(match_best_prior(iou, valid))
        return ops.convert_to_numpy(match_by_iou(iou, valid, foreground_iou=0.5, background_iou=0.4))

    expected = match(truth, valid, anchors)
    assert valid[expected[expected >= 0]].all()
    np.testing.assert_array_equal(match(truth * 2, valid, anchors * 2), expected)  # exact in binary
    if kind == "prior":
        return  # two boxes with one best anchor are told apart by their order
    order = rng.permutation(len(truth))
    shuffled = match(truth[order], valid[order], anchors)
    np.testing.assert_array_equal(np.where(shuffled >= 0, order[np.maximum(shuffled, 0)], shuffled), expected)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch runs eagerly")
def test_matchers_in_compiled_code():
    _, truth, anchors = _random_case(0)
    truth, valid = np.stack([truth, truth[::-1]]), np.arange(6) < np.array([[6], [4]])
    strides = np.full(40, 8, np.float32)

    def all_of_them(truth, valid):
        iou = pairwise_iou(truth, anchors)
        return (
            match_by_iou(iou, valid, foreground_iou=0.5, background_iou=0.4),
            match_best_prior(iou, valid),
            match_atss(truth, valid, anchors, level_sizes=(25, 15)),
            match_simota(1 - iou, iou, valid, truth, (anchors[:, :2] + anchors[:, 2:]) / 2, strides),
        )

    expected = [ops.convert_to_numpy(found) for found in all_of_them(*map(ops.convert_to_tensor, (truth, valid)))]
    if keras.backend.backend() == "jax":
        import jax

        compiled = [jax.jit(all_of_them)]
    else:
        import tensorflow as tf

        signature = [tf.TensorSpec((None, None, 4)), tf.TensorSpec((None, None), tf.bool)]
        compiled = [tf.function(all_of_them, input_signature=signature), tf.function(all_of_them, jit_compile=True)]
    for function in compiled:
        for found, wanted in zip(function(truth, valid), expected, strict=True):
            np.testing.assert_array_equal(np.asarray(found), wanted)


def _simota_by_anchors(iou, valid, boxes, anchors):
    centers = 0.5 * (anchors[:, :2] + anchors[:, 2:])
    return match_simota(1 - iou, iou, valid, boxes, centers, ops.ones_like(centers[:, 0]) * 8.0)


# From the boxes (B, M, 4), whether they are valid, and anchors (A, 4).
_MATCHERS = {
    "iou": lambda boxes, valid, anchors: match_by_iou(
        pairwise_iou(boxes, anchors), valid, foreground_iou=0.5, background_iou=0.4
    ),
    "best_prior": lambda boxes, valid, anchors: match_best_prior(pairwise_iou(boxes, anchors), valid),
    "first_prior": lambda boxes, valid, anchors: match_best_prior(pairwise_iou(boxes, anchors), valid, prefer="first"),
    "simota": lambda boxes, valid, anchors: _simota_by_anchors(pairwise_iou(boxes, anchors), valid, boxes, anchors),
}


def _match_atss(boxes, valid, anchors):
    return match_atss(boxes, valid, anchors, level_sizes=[int(anchors.shape[0])])


@pytest.mark.parametrize("name", [*_MATCHERS, "atss"])
@pytest.mark.parametrize(("boxes", "anchors"), [(3, 0), (0, 5), (0, 0)])
def test_matching_without_boxes_or_anchors(name, boxes, anchors):
    matcher = _MATCHERS.get(name, _match_atss)
    boxes = ops.ones((2, boxes, 4))
    found = ops.convert_to_numpy(matcher(boxes, boxes[..., 0] > 0, ops.ones((anchors, 4))))
    np.testing.assert_array_equal(found, np.full((2, anchors), BACKGROUND))
    assert found.dtype == np.int32


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow has sizes unknown in a graph")
@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("name", [*_MATCHERS, "atss"])
def test_matching_of_numbers_unknown_in_the_graph(name, xla):
    import tensorflow as tf

    anchors = np.array([[0, 0, 8, 8], [8, 0, 16, 8], [0, 8, 8, 16], [2, 2, 9, 9]], np.float32)
    boxes = np.array([[[1, 0, 8, 8], [8, 1, 17, 9]], [[0, 7, 9, 16], [np.nan] * 4]], np.float32)
    valid = np.array([[True, True], [True, False]])
    if name == "atss":  # whose level sizes make A static
        matcher = lambda boxes, valid, anchors: match_atss(boxes, valid, anchors, level_sizes=[4])  # noqa: E731
        anchor_counts = (4,)
    else:
        matcher, anchor_counts = _MATCHERS[name], (4, 3, 0)
    types = [tf.TensorSpec((None, None, 4)), tf.TensorSpec((None, None), tf.bool), tf.TensorSpec((None, 4))]
    function = tf.function(matcher, jit_compile=xla, input_signature=types)
    for count in anchor_counts:
        expected = ops.convert_to_numpy(matcher(boxes, valid, anchors[:count]))
        assert count == 0 or (expected >= 0).any()
        np.testing.assert_array_equal(function(boxes, valid, anchors[:count]).numpy(), expected)
        found = function(boxes[:, :0], valid[:, :0], anchors[:count]).numpy()
        np.testing.assert_array_equal(found, np.full((2, count), BACKGROUND))

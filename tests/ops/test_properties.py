"""Laws that hold for any input, which hypothesis draws: degenerate, huge and NaN boxes too."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import ops

from kerasvision.ops import boxes as box_ops
from kerasvision.ops.hungarian import assign
from kerasvision.ops.matching import match_atss, match_best_prior, match_by_iou, match_simota
from kerasvision.ops.nms import non_max_suppression
from kerasvision.ops.roi_align import roi_align
from kerasvision.ops.roi_pool import roi_pool
from kerasvision.ops.sampling import mine_hard_negatives, sample_balanced

FEW = settings(max_examples=20, deadline=None, derandomize=True)
# Eighths are exact in float32, so that moved boxes are exactly as large as before.
COORDINATES = st.integers(-800, 800).map(lambda eighths: eighths / 8)


def _numpy(tensor):
    return ops.convert_to_numpy(tensor)


def _boxes(count, *, smallest=0, coordinates=COORDINATES):
    """Strategy of float32 (count, 4) boxes, of no area too."""
    sizes = st.integers(8 * smallest, 400).map(lambda eighths: eighths / 8)

    def join(drawn):
        corners, sides = drawn
        return np.concatenate([corners, corners + sides], axis=1).astype(np.float32)

    corners, sides = (arrays(np.float64, (count, 2), elements=numbers) for numbers in (coordinates, sizes))
    return st.tuples(corners, sides).map(join)


OVERLAPS = [box_ops.iou, box_ops.giou, box_ops.diou, box_ops.ciou]


@FEW
@given(_boxes(4), _boxes(4), COORDINATES, st.sampled_from([0.25, 2.0, 4.0]))
def test_overlaps_are_symmetric_and_do_not_change_when_all_moves_or_grows(a, b, move, scale):
    for overlap in OVERLAPS:
        found = _numpy(overlap(a, b))
        np.testing.assert_allclose(_numpy(overlap(b, a)), found, atol=1e-5)
        np.testing.assert_allclose(_numpy(overlap(a + np.float32(move), b + np.float32(move))), found, atol=1e-4)
        np.testing.assert_allclose(_numpy(overlap(a * np.float32(scale), b * np.float32(scale))), found, atol=1e-5)


@FEW
@given(_boxes(4, smallest=1))
def test_a_box_overlaps_itself_fully(a):
    for overlap in OVERLAPS:
        np.testing.assert_allclose(_numpy(overlap(a, a)), np.ones(4), atol=1e-5)


@FEW
@given(arrays(np.float32, (4, 4), elements=st.floats(width=32)), _boxes(4))
def test_iou_of_any_floats_is_between_0_and_1_or_nan(a, b):
    with np.errstate(all="ignore"):
        found = _numpy(box_ops.iou(a, b))
    assert (np.isnan(found) | ((found >= 0) & (found <= 1))).all()
    # Finite boxes whose areas do not overflow have a number.
    assert not np.isnan(found[(np.abs(a) < 1e9).all(1)]).any()


@FEW
@given(_boxes(4, smallest=1), _boxes(4, smallest=1))
def test_deltas_decode_to_the_boxes_they_were_encoded_from(a, b):
    for weights in ((1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)):
        found = _numpy(box_ops.decode_deltas(box_ops.encode_deltas(a, b, weights), b, weights))
        np.testing.assert_allclose(found, a, atol=2e-3)


@FEW
@given(_boxes(3), _boxes(5, smallest=1), st.permutations(range(3)))
def test_permuted_boxes_are_matched_as_before_and_padding_changes_nothing(boxes, anchors, order):
    boxes, order = boxes + np.array([[0.0], [0.015625], [0.03125]], np.float32), np.array(order)  # few ties
    iou = _numpy(box_ops.pairwise_iou(boxes, anchors))
    positive = iou[iou > 0]
    if len(set(positive.tolist())) < len(positive):
        return  # of equally good ones the first wins, which depends on the order
    centers, strides = 0.5 * (anchors[:, :2] + anchors[:, 2:]), np.full(5, 8, np.float32)
    cost = (1 - iou + 1e-3 * np.arange(5) + 1e-2 * boxes[:, :1] % 1e-2).astype(np.float32)

    def match(rows, valid):
        taken_boxes, overlaps = boxes[np.maximum(rows, 0)], iou[np.maximum(rows, 0)]
        taken_boxes[rows < 0], overlaps[rows < 0] = np.nan, 0.9
        costs = cost[np.maximum(rows, 0)]
        found = [
            match_by_iou(overlaps, valid, foreground_iou=0.5, background_iou=0.4)[None],
            match_best_prior(overlaps, valid)[None],
            match_atss(taken_boxes[None], valid[None], anchors, level_sizes=[5]),
            match_simota(costs[None], overlaps[None], valid[None], taken_boxes[None], centers, strides),
        ]
        return np.concatenate([_numpy(matches) for matches in found])

    plain = match(np.arange(3), np.ones(3, bool))
    permuted = match(order, np.ones(3, bool))
    checked = [0, 2]
    if len(set(iou.argmax(axis=1).tolist())) == 3:  # of two boxes with one best prior, the last in order wins
        checked.append(1)
    if len(np.unique(cost)) == cost.size:
        checked.append(3)
    np.testing.assert_array_equal(np.where(permuted < 0, permuted, order[permuted])[checked], plain[checked])
    padded = match(np.array([0, 1, 2, -1, -1]), np.array([True] * 3 + [False] * 2))
    np.testing.assert_array_equal(padded, plain)


def _kept(boxes, scores, threshold=0.5):
    found = non_max_suppression(boxes[None], scores[None], iou_threshold=threshold, max_detections=8)
    return _numpy(found.indices)[0][_numpy(found.valid)[0]]


@FEW
@given(
    _boxes(8, coordinates=st.integers(0, 300).map(lambda eighths: eighths / 8)),
    st.permutations(range(8)),
    st.sampled_from([None, np.nan, np.inf]),
)
def test_nms_twice_is_nms_once_and_the_order_of_boxes_does_not_matter(boxes, order, odd):
    scores, order = np.linspace(0.9, 0.2, 8).astype(np.float32), np.array(order)
    if odd is not None:
        boxes[2, 1] = odd
    kept = _kept(boxes, scores)
    assert odd is None or 2 not in kept
    again = np.full(8, -np.inf, np.float32)
    again[kept] = scores[kept]
    np.testing.assert_array_equal(_kept(boxes, again), kept)
    np.testing.assert_array_equal(order[_kept(boxes[order], scores[order])], kept)


# Boxes of 9 x 9 cells, well inside the map of 12 x 12 and larger than a cell.
INSIDE = arrays(np.float64, (3, 4), elements=st.integers(0, 32)).map(
    lambda x: np.concatenate([16 + x[:, :2], 24 + x[:, :2] + x[:, 2:] / 2], 1).astype(np.float32)
)


@FEW
@given(INSIDE, st.integers(0, 2**31))
def test_roi_align_is_linear_in_the_features_and_keeps_constants(boxes, seed):
    first, second = np.random.default_rng(seed).normal(size=(2, 1, 12, 12, 2)).astype(np.float32)

    def pool(features, moved=0):
        return _numpy(roi_align(features, boxes[None] + np.float32(moved), output_size=2, strides=8))

    np.testing.assert_allclose(pool(np.full((1, 12, 12, 2), 7, np.float32)), np.full((1, 3, 2, 2, 2), 7), rtol=1e-5)
    np.testing.assert_allclose(pool(2 * first - second), 2 * pool(first) - pool(second), atol=1e-5)
    # One cell further down and right.
    moved = np.roll(first, (1, 1), axis=(1, 2))
    np.testing.assert_allclose(pool(moved, 8), pool(first), atol=1e-5)


@FEW
@given(INSIDE, st.integers(0, 2**31))
def test_roi_pool_takes_features_of_the_box_and_its_largest_among_them(boxes, seed):
    features = np.random.default_rng(seed).permutation(144).reshape(1, 12, 12, 1).astype(np.float32)
    found = _numpy(roi_pool(features, boxes[None], output_size=2, stride=8))[0, ..., 0]
    for bins, box in zip(found, boxes, strict=True):
        x1, y1, x2, y2 = np.floor(box / 8 + 0.5).astype(int)
        cells = features[0, y1 : y2 + 1, x1 : x2 + 1, 0]
        assert bins.max() == cells.max()
        assert np.isin(bins, cells).all()


@FEW
@given(arrays(np.float32, (2, 3, 5), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_both_assignment_solvers_find_the_lowest_total(cost):
    for image, rows in enumerate(_numpy(assign(cost, solver="graph"))):
        (columns,) = np.nonzero(rows >= 0)
        assert sorted(rows[columns]) == [0, 1, 2]
        values = cost[image].astype(np.float64)
        best = min(values[range(3), list(choice)].sum() for choice in itertools.permutations(range(5), 3))
        assert abs(values[rows[columns], columns].sum() - best) <= 1e-5 * np.ptp(values)


@FEW
@given(
    arrays(np.int8, (2, 9), elements=st.integers(-1, 1)),
    arrays(np.float32, (2, 9), elements=st.floats(width=32)),
)
def test_sampling_never_takes_more_than_it_may(labels, values):
    positives, negatives = labels == 1, labels == 0
    taken = sample_balanced(positives, negatives, size=4, positive_fraction=0.5, priorities=values)
    taken_positives, taken_negatives = (_numpy(mask) for mask in taken)
    assert not (taken_positives & ~positives).any() and not (taken_negatives & ~negatives).any()
    wanted = np.minimum(positives.sum(1), 2)
    np.testing.assert_array_equal(taken_positives.sum(1), wanted)
    np.testing.assert_array_equal(taken_negatives.sum(1), np.minimum(negatives.sum(1), 4 - wanted))
    hard = _numpy(mine_hard_negatives(values, positives, negatives, ratio=3.0))
    assert not (hard & ~negatives).any()
    np.testing.assert_array_equal(hard.sum(1), np.minimum(3 * positives.sum(1), negatives.sum(1)))

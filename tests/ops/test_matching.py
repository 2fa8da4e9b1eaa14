"""Assignment of boxes to anchors by IoU, with matrices whose answer can be read off."""

import numpy as np
import pytest
from keras import ops

from kerasvision.ops.matching import BACKGROUND, BETWEEN_THRESHOLDS, match_by_iou


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

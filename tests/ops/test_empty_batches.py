"""Batches of no image: every operation gives results of no image, in the shapes of others."""

from typing import get_args

import numpy as np
import pytest
from keras import ops

from kerasvision.ops.hungarian import assign
from kerasvision.ops.matching import match_atss, match_best_prior, match_by_iou
from kerasvision.ops.nms import Method, non_max_suppression
from kerasvision.ops.roi_align import roi_align
from kerasvision.ops.roi_pool import roi_pool
from kerasvision.ops.rows import take_rows

BOXES = np.zeros((0, 5, 4), np.float32)


def _shapes(outputs):
    return [tuple(output.shape) for output in outputs]


@pytest.mark.parametrize("exportable", [False, True])
@pytest.mark.parametrize("method", get_args(Method))
def test_nms_of_no_image(method, exportable):
    kept = non_max_suppression(
        BOXES, np.zeros((0, 5), np.float32), max_detections=3, method=method, exportable=exportable
    )
    assert _shapes(kept) == [(0, 3)] * 3


def test_matching_of_no_image():
    iou, valid = np.zeros((0, 2, 7), np.float32), np.zeros((0, 2), bool)
    assert tuple(match_by_iou(iou, valid, foreground_iou=0.5, background_iou=0.4).shape) == (0, 7)
    assert tuple(match_best_prior(iou, valid).shape) == (0, 7)
    anchors = np.array([[0, 0, 4, 4], [4, 0, 8, 4]], np.float32)
    assert tuple(match_atss(BOXES, np.zeros((0, 5), bool), anchors, level_sizes=(2,)).shape) == (0, 2)


@pytest.mark.parametrize("solver", ["host", "graph"])
@pytest.mark.parametrize("shape", [(0, 4, 3), (0, 3, 4)])
def test_assignment_of_no_image(solver, shape):
    assert tuple(assign(np.zeros(shape, np.float32), solver=solver).shape) == (0, shape[2])


def test_pooling_of_no_image():
    features = np.zeros((0, 8, 8, 2), np.float32)
    assert tuple(roi_align(features, BOXES, output_size=2, strides=4).shape) == (0, 5, 2, 2, 2)
    assert tuple(roi_pool(features, BOXES, output_size=2, stride=4).shape) == (0, 5, 2, 2, 2)


def test_rows_of_no_image():
    rows = take_rows(ops.zeros((0, 3, 5)), np.zeros((0, 2), np.int32))
    assert tuple(rows.shape) == (0, 2, 5)

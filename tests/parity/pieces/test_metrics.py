"""Metrics against pycocotools, Keras, and plain transcriptions of the VOC development kit and of boundary F1.

The transcriptions of the kit and of boundary F1 stand in the unit tests, which need no other package.
"""

import keras
import numpy as np
import pytest
import torch
from keras import ops

from kerasvision.metrics import BoundaryF1, CocoAP, SegmentationMetrics, VocAP
from tests.metrics.test_boundary import plain_boundary_f1, random_masks
from tests.metrics.test_coco_ap import _pycocotools, _random
from tests.metrics.test_voc_ap import devkit, random_boxes
from tests.parity.pieces.compare import check


@pytest.mark.parametrize("seed", [0, 1])
def test_coco_ap_equals_pycocotools(seed):
    detections, targets = _random(seed)

    def ours(*_):
        metric = CocoAP(all_statistics=True)
        metric.add(detections, targets)
        return np.array(list(metric.result().values()))

    def theirs(*_):
        expected = _pycocotools(detections, targets)
        return np.where(expected < 0, np.nan, expected)

    check("metrics.CocoAP", "pycocotools", ours, theirs, [targets["boxes"]], numpy_reference=True)


@pytest.mark.parametrize("seed", [0, 1])
def test_voc_ap_equals_the_development_kit(seed):
    detections, targets = random_boxes(seed)

    def ours(*_):
        metric = VocAP()
        metric.add(detections, targets)
        return np.array([list(figures.values()) for figures in metric.per_class().values()])

    def theirs(*_):
        return np.array([list(devkit(detections, targets, label).values()) for label in range(3)])

    check("metrics.VocAP", "VOC devkit, transcribed", ours, theirs, [targets["boxes"]], numpy_reference=True)


@pytest.mark.parametrize("tolerance", [0.03, 0.08])
def test_boundary_f1_equals_all_pairs(tolerance):
    pairs = [random_masks(seed) for seed in (5, 6)]

    def ours(truth, predictions):
        metric = BoundaryF1(4, tolerance=tolerance)
        metric.update_state(truth, ops.one_hot(predictions, 4))
        return metric.result()

    def theirs(truth, predictions):
        figures = [plain_boundary_f1(*pair, 4, tolerance, 255) for pair in zip(truth, predictions, strict=True)]
        return np.nanmean(figures, axis=1).mean()

    arrays = [np.stack(part).astype(np.int32) for part in zip(*pairs, strict=True)]
    check("metrics.BoundaryF1", "Csurka 2013, all pairs", ours, theirs, arrays, numpy_reference=True)


# Keras's own metric asks for int64, which JAX does not have by default.
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64")
def test_segmentation_metrics_equal_keras_and_sums_over_pixels():
    pairs = [random_masks(seed) for seed in (5, 6)]

    def ours(truth, predictions):
        metric = SegmentationMetrics(4, all_statistics=True)
        metric.update_state(truth, ops.one_hot(predictions, 4))
        return list(metric.result().values())

    def theirs(truth, predictions):
        iou = keras.metrics.MeanIoU(4, ignore_class=255)
        iou.update_state(truth, predictions)
        counted = torch.from_numpy(truth != 255)
        truth, predictions = torch.from_numpy(truth)[counted], torch.from_numpy(predictions)[counted]
        overlap = torch.tensor([((truth == c) & (predictions == c)).sum() for c in range(4)], dtype=torch.float64)
        true, found = (torch.bincount(part, minlength=4).double() for part in (truth, predictions))
        present, per_class = true > 0, overlap / (true + found - overlap)
        return [
            float(iou.result()),
            (truth == predictions).double().mean(),
            (2 * overlap / (true + found)).mean(),
            (overlap / true)[present].mean(),
            (true / len(truth) * per_class).sum(),
        ]

    arrays = [np.stack(part).astype(np.int32) for part in zip(*pairs, strict=True)]
    check("metrics.SegmentationMetrics", "keras.metrics.MeanIoU, torch", ours, theirs, arrays, numpy_reference=True)

"""How many objects a set of proposals could find at best."""

import numpy as np
from keras import ops

from kerasvision.ops.boxes import pairwise_iou


def best_overlaps(boxes, proposals):
    """Return the IoU of each box with the proposal that fits it best.

    Args:
        boxes: (N, 4) `xyxy` of the objects.
        proposals: (P, 4) `xyxy`; rows of negative coordinates are padding.

    Returns:
        NumPy float32 (N,) in [0, 1]; 0 without proposals. The share of values of at least t is the recall at t; their
        mean is the average best overlap of Uijlings et al. 2013, section 4.
    """
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    proposals = np.asarray(proposals, np.float32).reshape(-1, 4)
    proposals = proposals[proposals[:, 0] >= 0]
    if not len(boxes) or not len(proposals):
        return np.zeros(len(boxes), np.float32)
    overlaps = pairwise_iou(ops.convert_to_tensor(boxes), ops.convert_to_tensor(proposals))  # (N, P)
    return np.asarray(ops.convert_to_numpy(ops.max(overlaps, axis=1)), np.float32)

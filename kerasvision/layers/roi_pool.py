"""The largest features of boxes, on whole cells."""

import keras
import numpy as np
from keras import ops

from kerasvision.layers.roi_align import pooled_shape
from kerasvision.ops.arguments import plain_number
from kerasvision.ops.roi_align import check_numbers
from kerasvision.ops.roi_pool import roi_pool


@keras.saving.register_keras_serializable("kerasvision")
class RoIPool(keras.layers.Layer):
    """Take the maximum of the features in the bins of a grid over each box (Fast R-CNN).

    Args:
        output_size: P, or (rows, columns), bins per box.
        stride: Pixels per cell.

    Call: features (B, H, W, C); boxes (B, N, 4) `xyxy` pixels; optionally valid (B, N) bool, by default all boxes but
    those of -1, -1, -1, -1. Returns (B, N, rows, columns, C), zeros for padding and for bins outside the map. Other odd
    boxes, maps of unknown size, and memory: see `kerasvision.ops.roi_pool.roi_pool`.

    Raises:
        ValueError: A number out of range.
    """

    def __init__(self, output_size, stride, **kwargs):
        # Half precision cannot hold pixel coordinates: features are cast by hand, boxes are not.
        super().__init__(autocast=False, **kwargs)
        grid, *_ = check_numbers(output_size)
        self.output_size = grid if np.ndim(output_size) else grid[0]
        self.stride = plain_number(stride)

    def build(self, *shapes):
        """Nothing to create."""

    def call(self, features, boxes, valid=None):
        """Pool the features of every box."""
        features = ops.cast(features, self.compute_dtype)
        return roi_pool(features, boxes, output_size=self.output_size, stride=self.stride, valid=valid)

    def compute_output_shape(self, features_shape, boxes_shape, valid_shape=None):
        """Return (B, N, rows, columns, C)."""
        return pooled_shape(features_shape, boxes_shape, self.output_size)

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "output_size": self.output_size, "stride": self.stride}

"""Features of boxes by bilinear interpolation."""

import keras
import numpy as np
from keras import ops

from kerasvision.ops.arguments import plain_number
from kerasvision.ops.roi_align import check_numbers, check_strides, level_exponents, roi_align


@keras.saving.register_keras_serializable("kerasvision")
class RoIAlign(keras.layers.Layer):
    """Average bilinear samples in the bins of a grid over each box, on the pyramid level that suits the box.

    Args:
        output_size: P, or (rows, columns), bins per box.
        strides: Pixels per cell: one number for one map, or one per map of a pyramid, successive powers of 2.
        sampling_ratio: Samples along each side of a bin; ``None`` to adapt their number to each box.
        aligned: Place the centre of cell 0 at half a stride (Detectron2) instead of at pixel 0 (torchvision's models).
        canonical_size: Side in pixels of a box that belongs to level `canonical_level`, of stride
            2^`canonical_level`.
        canonical_level: See above.
        max_adaptive_samples: Bound of the samples along each side of a bin that ``sampling_ratio=None`` takes;
            ``None`` for what boxes over the whole (coarsest) map need.

    Call: features, one map (B, H, W, C) or a list of them, finest first; boxes (B, N, 4) `xyxy` pixels; optionally
    valid (B, N) bool, by default all boxes but those of -1, -1, -1, -1. Returns (B, N, rows, columns, C), zeros for
    padding. Boxes that are not finite, degenerate or huge: see `kerasvision.ops.roi_align.roi_align`.

    Raises:
        ValueError: A number out of range, or as many strides as there are not maps.
    """

    def __init__(
        self,
        output_size,
        strides,
        *,
        sampling_ratio=2,
        aligned=False,
        canonical_size=224,
        canonical_level=4,
        max_adaptive_samples=None,
        **kwargs,
    ):
        # Half precision cannot hold pixel coordinates: features are cast by hand, boxes are not.
        super().__init__(autocast=False, **kwargs)
        grid, self.sampling_ratio, self.max_adaptive_samples = check_numbers(
            output_size, sampling_ratio, max_adaptive_samples
        )
        self.output_size = grid if np.ndim(output_size) else grid[0]
        checked = check_strides(strides)
        if len(checked) > 1:
            level_exponents(checked)
        self.strides = tuple(checked) if np.ndim(strides) else checked[0]
        self.aligned = aligned
        self.canonical_size = plain_number(canonical_size)
        self.canonical_level = plain_number(canonical_level)

    def build(self, *shapes):
        """Nothing to create."""

    def call(self, features, boxes, valid=None):
        """Pool the features of every box."""
        features = keras.tree.map_structure(lambda level: ops.cast(level, self.compute_dtype), features)
        return roi_align(
            features,
            boxes,
            output_size=self.output_size,
            strides=self.strides,
            sampling_ratio=self.sampling_ratio,
            aligned=self.aligned,
            valid=valid,
            canonical_size=self.canonical_size,
            canonical_level=self.canonical_level,
            max_adaptive_samples=self.max_adaptive_samples,
        )

    def compute_output_shape(self, features_shape, boxes_shape, valid_shape=None):
        """Return (B, N, rows, columns, C)."""
        return pooled_shape(features_shape, boxes_shape, self.output_size)

    def compute_output_spec(self, features, boxes, valid=None):
        """Return the shape and type of the output."""
        shapes = keras.tree.map_structure(lambda level: level.shape, features)
        return keras.KerasTensor(self.compute_output_shape(shapes, boxes.shape), self.compute_dtype)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "output_size": self.output_size,
            "strides": self.strides,
            "sampling_ratio": self.sampling_ratio,
            "aligned": self.aligned,
            "canonical_size": self.canonical_size,
            "canonical_level": self.canonical_level,
            "max_adaptive_samples": self.max_adaptive_samples,
        }


def pooled_shape(features_shape, boxes_shape, output_size):
    """Return (B, N, rows, columns, C) for the shape, or list of shapes, of feature maps, and that of boxes."""
    first = features_shape[0] if isinstance(features_shape[0], list | tuple) else features_shape
    grid = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    return (boxes_shape[0], boxes_shape[1], *grid, first[-1])

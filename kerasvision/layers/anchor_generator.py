"""Anchors of a feature pyramid."""

import keras

from kerasvision.ops.anchors import cell_anchors, grid_anchors


@keras.saving.register_keras_serializable("kerasvision")
class AnchorGenerator(keras.layers.Layer):
    """The anchors of every cell of every pyramid level.

    Args:
        sizes: For each level, the anchors' sizes (square roots of their areas) in pixels.
        aspect_ratios: Height divided by width, the same for all levels.

    Call: a list of (rows, columns), one a level, and the image's (height, width); returns a list of
    float32 (rows * columns * K, 4) `xyxy` anchors. A level's stride is the image size divided by the grid
    size, rounded down, separately for both axes, as in torchvision: an 800x1344 image has
    a P6 of 13x21 cells with strides 61x64.

    Reference: torchvision/models/detection/anchor_utils.py.
    """

    def __init__(self, sizes, aspect_ratios=(0.5, 1.0, 2.0), **kwargs):
        super().__init__(**kwargs)
        self.sizes = tuple(tuple(level) for level in sizes)
        self.aspect_ratios = tuple(aspect_ratios)
        if len({len(level) for level in self.sizes}) != 1:
            raise ValueError(f"`sizes` {self.sizes!r} must list equally many sizes for each level")
        self._cells = [cell_anchors(level, self.aspect_ratios) for level in self.sizes]

    @property
    def anchors_per_cell(self):
        """K, the number of anchors of one cell."""
        return len(self.sizes[0]) * len(self.aspect_ratios)

    def call(self, grids_hw, image_hw):
        """Return the anchors of every level."""
        if len(grids_hw) != len(self._cells):
            raise ValueError(f"`grids_hw` has {len(grids_hw)} levels, but `sizes` describes {len(self._cells)}")
        return [
            grid_anchors(grid, (image_hw[0] // grid[0], image_hw[1] // grid[1]), cell)
            for grid, cell in zip(grids_hw, self._cells, strict=True)
        ]

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "sizes": self.sizes, "aspect_ratios": self.aspect_ratios}

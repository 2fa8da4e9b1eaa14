"""Anchors of every cell of every level, in the conventions of RPN and RetinaNet, EfficientDet, SSD and YOLO.

All four layers are called alike: a list of (rows, columns), one a level, and the image's (height, width), integers or
scalar tensors; they return a list of float32 (rows * columns * K, 4) `xyxy` pixels, row by row, all anchors of
a cell together; (0, 4) of a level without a cell. They have no weights.
"""

import keras
from keras import ops

from kerasvision.ops.anchors import (
    cell_anchors,
    default_box_cells,
    default_box_scales,
    grid_anchors,
    octave_cells,
    prior_cells,
)
from kerasvision.ops.arguments import all_positive, is_count, plain_number


class _LevelAnchors(keras.layers.Layer):
    """What the four have in common; `_cells` holds one cell's anchors for each level."""

    def __call__(self, grids_hw, image_hw):
        """Return the anchors of every level; see the module."""
        # Keras takes no numbers by position.
        return super().__call__(grids_hw=grids_hw, image_hw=image_hw)

    def _check_levels(self, grids_hw, argument):
        if len(grids_hw) != len(self._cells):
            raise ValueError(f"`grids_hw` has {len(grids_hw)} levels, but `{argument}` describes {len(self._cells)}")

    def compute_output_shape(self, grids_hw, image_hw=None):
        """Return (rows * columns * K, 4) of each level, ``None`` where a grid's size is not known."""
        shapes = []
        for (rows, columns), cell in zip(grids_hw, self._cells, strict=True):
            known = isinstance(rows, int) and isinstance(columns, int)
            shapes.append((rows * columns * len(cell) if known else None, 4))
        return shapes


@keras.saving.register_keras_serializable("kerasvision")
class AnchorGenerator(_LevelAnchors):
    """The anchors of RPN and RetinaNet, as torchvision has them.

    Args:
        sizes: For each level, the anchors' sizes (square roots of their areas) in pixels; one a level for RPN.
        aspect_ratios: Height divided by width, the same for all levels.

    A level's stride is the image size divided by the grid size, rounded down, separately for both axes: an 800x1344
    image has a P6 of 13x21 cells with strides 61x64. Anchors are centred on the cells' upper left corners.

    Raises:
        ValueError: Levels of differently many sizes, no size or ratio, or one that is not above 0.

    Reference: torchvision/models/detection/anchor_utils.py, `AnchorGenerator`.
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
        self._check_levels(grids_hw, "sizes")
        return [
            grid_anchors(grid, [side // _at_least_1(cells) for side, cells in zip(image_hw, grid, strict=True)], cell)
            for grid, cell in zip(grids_hw, self._cells, strict=True)
        ]

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "sizes": self.sizes, "aspect_ratios": self.aspect_ratios}


def _exact_strides(grid, image_hw):
    """Return the image's size divided by the grid's, not rounded."""
    return [ops.cast(image_hw[axis], "float32") / ops.cast(_at_least_1(grid[axis]), "float32") for axis in (0, 1)]


def _at_least_1(cells):
    """Return a number of rows or columns to divide by; an empty grid has no anchors, whatever their distance."""
    return max(cells, 1) if isinstance(cells, int) else ops.maximum(cells, 1)


@keras.saving.register_keras_serializable("kerasvision")
class OctaveAnchorGenerator(_LevelAnchors):
    """EfficientDet's anchors: the same for all levels, in units of the stride.

    Args:
        levels: Number of levels: 5, from P3 to P7.
        octaves: Sizes a level, from one power of two to the next.
        aspect_ratios: Factors (width, height) of the size, or single numbers: width divided by height.
        anchor_scale: Smallest size, in strides: 4; 5 in EfficientDet-D7.

    A level's stride is the image size divided by the grid size, not rounded. Anchors are centred in the cells.

    Raises:
        ValueError: No ratio, or a number that is not above 0.

    Reference: effdet/anchors.py, `Anchors` (which takes `yxyx`).
    """

    def __init__(
        self,
        levels=5,
        octaves=3,
        aspect_ratios=((1.0, 1.0), (1.4, 0.7), (0.7, 1.4)),
        anchor_scale=4.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not is_count(levels):
            raise ValueError(f"`levels` {levels!r} must be 1 or more, a whole number; 5 is usual")
        self.levels = int(levels)
        self.octaves = plain_number(octaves)
        self.aspect_ratios = tuple(tuple(r) if isinstance(r, list | tuple) else r for r in aspect_ratios)
        self.anchor_scale = anchor_scale
        self._cells = [octave_cells(octaves, self.aspect_ratios, anchor_scale)] * self.levels

    @property
    def anchors_per_cell(self):
        """K, the number of anchors of one cell."""
        return self.octaves * len(self.aspect_ratios)

    def call(self, grids_hw, image_hw):
        """Return the anchors of every level."""
        self._check_levels(grids_hw, "levels")
        levels = []
        for grid, cell in zip(grids_hw, self._cells, strict=True):
            y, x = _exact_strides(grid, image_hw)
            levels.append(grid_anchors(grid, (y, x), ops.stack([x, y, x, y]) * cell, offset=0.5))
        return levels

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "levels": self.levels,
            "octaves": self.octaves,
            "aspect_ratios": self.aspect_ratios,
            "anchor_scale": self.anchor_scale,
        }


@keras.saving.register_keras_serializable("kerasvision")
class DefaultBoxGenerator(_LevelAnchors):
    """SSD's default boxes.

    Args:
        aspect_ratios: For each level, ratios of the longer to the shorter side: ``[[2], [2, 3], ...]``.
        scales: One more than levels, as fractions of the image; ``None``: `default_box_scales` of the next two.
        smallest: Scale of the first level, if `scales` is ``None``.
        largest: Scale of the last level, if `scales` is ``None``.
        steps: For each level, the pixels from one cell to the next; ``None``: image size divided by grid size.
        clipped: Whether widths and heights are cut to the image's.

    Raises:
        ValueError: If `scales` or `steps` do not fit the number of levels, or a number is not above 0.

    Reference: torchvision/models/detection/anchor_utils.py, `DefaultBoxGenerator`; SSD300 there has
    ratios [2], [2, 3] x 3, [2] x 2, scales .07 .15 .33 .51 .69 .87 1.05 and steps 8 16 32 64 100 300.
    """

    def __init__(self, aspect_ratios, *, scales=None, smallest=0.15, largest=0.9, steps=None, clipped=True, **kwargs):
        super().__init__(**kwargs)
        self.aspect_ratios = tuple(tuple(level) for level in aspect_ratios)
        self.scales = None if scales is None else tuple(scales)
        self.smallest = smallest
        self.largest = largest
        self.steps = None if steps is None else tuple(steps)
        self.clipped = clipped
        if self.steps is not None and len(self.steps) != len(self.aspect_ratios):
            raise ValueError(
                f"`steps` {self.steps!r} must have one number for each of {len(self.aspect_ratios)} levels"
            )
        if self.steps is not None and not all_positive(self.steps):
            raise ValueError(f"`steps` {self.steps!r} must be numbers of pixels above 0")
        scales = self.scales or default_box_scales(len(self.aspect_ratios), smallest, largest)
        self._cells = default_box_cells(scales, self.aspect_ratios, clipped=clipped)

    @property
    def anchors_per_cell(self):
        """K of each level, a tuple."""
        return tuple(len(cell) for cell in self._cells)

    def call(self, grids_hw, image_hw):
        """Return the default boxes of every level."""
        self._check_levels(grids_hw, "aspect_ratios")
        height, width = (ops.cast(side, "float32") for side in image_hw)
        image = ops.stack([width, height, width, height])
        levels = []
        for level, (grid, cell) in enumerate(zip(grids_hw, self._cells, strict=True)):
            strides = _exact_strides(grid, image_hw) if self.steps is None else [self.steps[level]] * 2
            levels.append(grid_anchors(grid, strides, image * cell, offset=0.5))
        return levels

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "aspect_ratios": self.aspect_ratios,
            "scales": self.scales,
            "smallest": self.smallest,
            "largest": self.largest,
            "steps": self.steps,
            "clipped": self.clipped,
        }


@keras.saving.register_keras_serializable("kerasvision")
class PriorBoxGenerator(_LevelAnchors):
    """YOLO's priors: boxes of given widths and heights in the centre of every cell.

    Args:
        priors_wh: For each level, (width, height) pairs in pixels of the network's input, such as
            `kerasvision.data.anchor_clustering.cluster_anchors` finds.

    Raises:
        ValueError: A level without a pair, or a width or height that is not above 0.

    `kerasvision.ops.anchors.decode_yolo` turns a head's outputs for them into boxes.

    Source: Redmon and Farhadi 2018, https://arxiv.org/abs/1804.02767.
    """

    def __init__(self, priors_wh, **kwargs):
        super().__init__(**kwargs)
        self.priors_wh = tuple(tuple((float(w), float(h)) for w, h in level) for level in priors_wh)
        if not all(map(all_positive, self.priors_wh)):
            raise ValueError(
                f"`priors_wh` {self.priors_wh!r} must be widths and heights above 0 pixels, a pair or more for each "
                "level"
            )
        self._cells = [prior_cells(level) for level in self.priors_wh]

    @property
    def anchors_per_cell(self):
        """K of each level, a tuple."""
        return tuple(len(cell) for cell in self._cells)

    def call(self, grids_hw, image_hw):
        """Return the priors of every level."""
        self._check_levels(grids_hw, "priors_wh")
        return [
            grid_anchors(grid, _exact_strides(grid, image_hw), cell, offset=0.5)
            for grid, cell in zip(grids_hw, self._cells, strict=True)
        ]

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "priors_wh": self.priors_wh}

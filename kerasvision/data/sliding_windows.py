"""Exhaustive search: windows of a few sizes and shapes at every place, which object proposals replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from kerasvision.data.selective_search import check_count, checked_image


@dataclass(frozen=True)
class SlidingWindows:
    """Windows of every size and shape, moved over the image: a function from an image to boxes.

    ```python
    boxes = SlidingWindows(sizes=(64, 128, 256), max_proposals=5000)(image)
    ```

    Args:
        sizes: Square roots of the windows' areas, in pixels.
        aspect_ratios: Height divided by width.
        step: How far a window moves, as a share of its own width and height, above 0.
        max_proposals: Most boxes to return, 1 or more; of more windows, as many are taken at equal distances in their
            order.

    Raises:
        ValueError: An argument out of range.
    """

    sizes: Sequence[float] = (32, 64, 128, 256)
    aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0)
    step: float = 0.25
    max_proposals: int = 10_000

    def __post_init__(self):
        for name in ("sizes", "aspect_ratios"):
            values = tuple(getattr(self, name))
            if not values or min(values) <= 0:
                raise ValueError(f"`{name}` {values!r} must be one or more numbers above 0")
            object.__setattr__(self, name, values)
        if not self.step > 0:
            raise ValueError(f"`step` {self.step!r} must be above 0; 0.25 is a quarter of the window")
        check_count("max_proposals", self.max_proposals)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the windows that fit into an image, the whole image first, then the largest sizes.

        Args:
            image: (H, W, 3), whose values do not matter.

        Returns:
            (N, 4) float32 `xyxy` pixels, 1 <= N <= `max_proposals`. The last window of a row or column is moved back
            to end at the image's edge.

        Raises:
            ValueError: Something that is no image.
        """
        height, width = checked_image(image).shape[:2]
        windows = [np.array([[0, 0, width, height]], np.float64)]
        for size in sorted(self.sizes, reverse=True):
            for ratio in self.aspect_ratios:
                high, wide = size * np.sqrt(ratio), size / np.sqrt(ratio)
                if high > height or wide > width:
                    continue
                tops, lefts = self._starts(height, high), self._starts(width, wide)
                y1, x1 = (grid.ravel() for grid in np.meshgrid(tops, lefts, indexing="ij"))
                windows.append(np.stack([x1, y1, x1 + wide, y1 + high], axis=1))
        boxes = np.concatenate(windows)
        if len(boxes) > self.max_proposals:
            boxes = boxes[np.linspace(0, len(boxes) - 1, self.max_proposals).astype(int)]
        return boxes.astype(np.float32)

    def _starts(self, length: float, side: float) -> np.ndarray:
        """Return where windows of a side begin along an axis, the last ending at its end."""
        starts = np.arange(0, length - side, self.step * side)
        return np.append(starts, length - side)

    def get_config(self) -> dict:
        """Return the arguments."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> SlidingWindows:
        """Return one with the arguments that `get_config` returned."""
        return cls(**config)

"""How an image of any size becomes the size a network expects, and how results come back.

A resize rule belongs to a set of weights, not to the network: it is what the weights saw in training.
`kerasvision.inference`, the data pipeline and the exporter all apply the same rule.
"""

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

ResizeMode = Literal["none", "stretch", "shortest_side", "letterbox"]


@dataclass(frozen=True)
class ResizeRule:
    """A resize rule: what happens to an image before the network sees it.

    Args:
        mode: ``"none"`` keeps the image; ``"stretch"`` resizes to exactly ``size_hw``;
            ``"shortest_side"`` scales so that the short side is ``shortest`` and the long side at most
            ``longest``, keeping the aspect ratio (torchvision's ``GeneralizedRCNNTransform``);
            ``"letterbox"`` scales to fit inside ``size_hw``, keeping the aspect ratio, and pads the
            bottom and the right.
        size_hw: (height, width) in pixels, for ``"stretch"`` and ``"letterbox"``.
        shortest: Short side in pixels, for ``"shortest_side"``.
        longest: Upper bound of the long side in pixels, for ``"shortest_side"``; ``None`` for no bound.
        antialias: Low-pass filter before shrinking, as Pillow's bilinear resizing does and the segmentation weights of
            torchvision expect; the detection weights do not. uint8 images stay whole numbers then, as there.

    Raises:
        ValueError: A mode without the sizes it needs, or a size below 1.
    """

    mode: ResizeMode = "none"
    size_hw: tuple[int, int] | None = None
    shortest: int | None = None
    longest: int | None = None
    antialias: bool = False

    def __post_init__(self):
        if self.mode not in ("none", "stretch", "shortest_side", "letterbox"):
            raise ValueError(f"`mode` {self.mode!r} is unknown; use 'none', 'stretch', 'shortest_side' or 'letterbox'")
        if self.mode in ("stretch", "letterbox"):
            if self.size_hw is None or len(self.size_hw) != 2 or min(self.size_hw) < 1:
                raise ValueError(f"`size_hw` {self.size_hw!r} must be (height, width) in pixels for mode {self.mode!r}")
            object.__setattr__(self, "size_hw", (int(self.size_hw[0]), int(self.size_hw[1])))
        if self.mode == "shortest_side" and (self.shortest is None or self.shortest < 1):
            raise ValueError(f"`shortest` {self.shortest!r} must be a positive number of pixels")
        if self.mode == "shortest_side" and self.longest is not None and self.longest < 1:
            raise ValueError(f"`longest` {self.longest!r} must be a positive number of pixels, or None for no bound")

    def scaled_hw(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) in pixels that an image of this size is resized to, padding excluded."""
        if self.mode == "none":
            return height, width
        if self.mode == "stretch":
            assert self.size_hw is not None
            return self.size_hw
        if self.mode == "letterbox":
            assert self.size_hw is not None
            canvas_height, canvas_width = self.size_hw
            # Exact, as `ops.letterbox` has it: in floating point some halves would round the other way.
            if width * canvas_height > height * canvas_width:
                rounded = round(Fraction(height * canvas_width, width)), canvas_width
            else:
                rounded = canvas_height, round(Fraction(width * canvas_height, height))
        else:
            assert self.shortest is not None
            scale = self.shortest / min(height, width)
            if self.longest is not None:
                scale = min(scale, self.longest / max(height, width))
            # torchvision interpolates with recompute_scale_factor=True, which floors the product of two doubles:
            # 194 * (800 / 194) is just under 800, so it resizes 256x194 to 1055x799, and so do we.
            rounded = int(height * scale), int(width * scale)
        return max(1, rounded[0]), max(1, rounded[1])

    def canvas_hw(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) in pixels of the network's input, padding included."""
        if self.mode == "letterbox":
            assert self.size_hw is not None
            return self.size_hw
        return self.scaled_hw(height, width)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Resize one image bilinearly, without padding.

        Args:
            image: (H, W, 3) or (H, W), uint8 or float, 0-255.

        Returns:
            float32 (h, w, 3) or (h, w) of size `scaled_hw`, 0-255.
        """
        import cv2

        height, width = self.scaled_hw(*image.shape[:2])
        if (height, width) == image.shape[:2]:
            return np.asarray(image, np.float32)
        if self.antialias:
            return _antialiased(image, height, width)
        return cv2.resize(np.asarray(image, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)

    def apply_to_mask(self, mask: np.ndarray) -> np.ndarray:
        """Resize one integer mask (H, W) by nearest neighbour to `scaled_hw`, without padding."""
        import cv2

        height, width = self.scaled_hw(*mask.shape[:2])
        if (height, width) == mask.shape[:2]:
            return mask
        return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)

    def get_config(self) -> dict:
        """Return the arguments as a dict that `ResizeRule(**config)` takes and JSON can hold."""
        return asdict(self)


def _antialiased(image, height, width):
    """Resize as Pillow does, whose filter widens when an image shrinks: torchvision's `resize(antialias=True)`."""
    from PIL import Image

    def resized(array):
        return np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR), np.float32)

    if image.dtype == np.uint8:
        return resized(image)
    image = np.asarray(image, np.float32)
    if image.ndim == 2:
        return resized(image)
    return np.stack([resized(np.ascontiguousarray(channel)) for channel in np.moveaxis(image, -1, 0)], axis=-1)

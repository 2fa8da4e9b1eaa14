"""Selective search: boxes that probably hold objects (Uijlings et al. 2013, Selective Search for Object Recognition).

```
image -> colour space -> graph-based segmentation -> regions
         merge the two neighbours that are most alike, until one region is left -> the box of every region on the way
```

Several colour spaces, segmentations and notions of alikeness give several hierarchies, whose boxes are put together,
largest regions first but shuffled, and without repetition (sections 3 to 3.4).

The graph-based segmentation is that of Felzenszwalb and Huttenlocher 2004, as scikit-image has it.
"""

from __future__ import annotations

import heapq
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

ColourSpace = Literal["hsv", "lab", "grey", "hue", "rgi"]
Mode = Literal["fast", "quality"]

# Section 3.2. C: colour, T: texture, S: size, F: fill.
_STRATEGIES = {"fast": ("CTSF", "TSF"), "quality": ("CTSF", "TSF", "F", "S")}
_COLOUR_SPACES: dict[str, tuple[ColourSpace, ...]] = {
    "fast": ("hsv", "lab"),
    "quality": ("hsv", "lab", "rgi", "hue", "grey"),
}
_SCALES = {"fast": (50, 100), "quality": (50, 100, 150, 300)}  # section 5.1: k, the segmentation's threshold
_LEAST_REGION = 10  # pixels: of fewer, no histogram can be told from noise
_COLOUR_BINS = 25
_TEXTURE_BINS = 10
_ORIENTATIONS = 8
_SMOOTHING = 0.8  # of the segmentation; section 5.1
# The response of a derivative of a Gaussian (sigma 1) to an edge of one level of grey: 1 / sqrt(2 pi).
_STEP_RESPONSE = 0.39894228


@dataclass(frozen=True)
class SelectiveSearch:
    """Selective search with fixed settings: a function from an image to boxes.

    ```python
    boxes = SelectiveSearch("fast", max_proposals=2000)(image)
    ```

    Args:
        mode: ``"fast"``: 2 colour spaces, 2 similarities and 2 segmentations, 8 hierarchies; ``"quality"``: 5, 4 and
            4, 80 hierarchies.
        max_proposals: Most boxes to return, 1 or more.
        longest: Images with a longer side are searched at this size, in pixels: it bounds the time.
        min_region: Area of the smallest region of the segmentation, as a share of the image's, above 0 and below 1;
            never less than 10 pixels.
        min_size: Boxes with a side of fewer pixels are left out; the whole image never is.
        seed: Of the shuffling: the same image always gives the same boxes.

    Raises:
        ValueError: An argument out of range.

    Differs from the paper: images are searched at a bounded size, as R-CNN's authors did at a width of 500; responses
    to texture are divided into bins of equal width of their square root, so that weak textures count.
    """

    mode: Mode = "fast"
    max_proposals: int = 2000
    longest: int = 500
    min_region: float = 4e-4
    min_size: float = 6.0
    seed: int = 0

    def __post_init__(self):
        if self.mode not in _STRATEGIES:
            raise ValueError(f"`mode` {self.mode!r} is unknown; use 'fast' or 'quality'")
        for name in ("max_proposals", "longest"):
            check_count(name, getattr(self, name))
        if not 0 < self.min_region < 1:
            raise ValueError(f"`min_region` {self.min_region!r} must be above 0 and below 1, a share of the image")
        if self.min_size < 0:
            raise ValueError(f"`min_size` {self.min_size!r} must not be negative; 0 keeps all boxes")
        if self.seed < 0:
            raise ValueError(f"`seed` {self.seed!r} must not be negative")

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the boxes of an image, those of larger regions first but shuffled.

        Args:
            image: (H, W, 3) RGB, uint8 or float, 0-255, of any size.

        Returns:
            (N, 4) float32 `xyxy` pixels of `image`, all different, 1 <= N <= `max_proposals`.

        Raises:
            ValueError: Something that is no such image.
            ImportError: Without scikit-image.
        """
        image = checked_image(image)
        height, width = image.shape[:2]
        small = _shrunk(image, self.longest)
        least = max(_LEAST_REGION, round(self.min_region * small.shape[0] * small.shape[1]))
        boxes, ranks = [], []
        rng = np.random.default_rng(self.seed)
        for space in _COLOUR_SPACES[self.mode]:
            planes = _converted(small, space)
            bins = _colour_bins(planes), _texture_bins(planes)
            for scale in _SCALES[self.mode]:
                regions = Regions.of(segment(planes, scale, least), *bins)
                for strategy in _STRATEGIES[self.mode]:
                    found = regions.hierarchy(strategy)[::-1]  # the whole image comes first
                    boxes.append(found)
                    ranks.append(rng.random(len(found)) * np.arange(1, len(found) + 1))  # section 3.4
        ordered = np.concatenate(boxes)[np.argsort(np.concatenate(ranks), kind="stable")]
        scale_xy = np.array([width / small.shape[1], height / small.shape[0]] * 2)
        ordered = _first_of_each(ordered) * scale_xy
        sides = ordered[:, 2:] - ordered[:, :2]
        large = (sides >= self.min_size).all(axis=1) | (sides >= (width, height)).all(axis=1)
        return ordered[large][: self.max_proposals].astype(np.float32)

    def get_config(self) -> dict:
        """Return the arguments."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> SelectiveSearch:
        """Return one with the arguments that `get_config` returned."""
        return cls(**config)


def segment(planes: np.ndarray, scale: float, min_region: int) -> np.ndarray:
    """Divide an image into regions by the graph-based method of Felzenszwalb and Huttenlocher.

    Args:
        planes: (H, W, C) float32, 0-255.
        scale: k: larger values give larger regions.
        min_region: Pixels of the smallest region.

    Returns:
        (H, W) int64, numbered from 0; ones that only touch are one region.
    """
    try:
        from skimage.segmentation import felzenszwalb
    except ImportError as error:
        raise ImportError("selective search needs scikit-image: pip install scikit-image") from error
    # scikit-image divides `scale` by 255, to go with values up to 1.
    return felzenszwalb(planes / 255.0, scale=scale, sigma=_SMOOTHING, min_size=min_region, channel_axis=-1)


class Regions:
    """The regions of one segmentation: what tells how alike two of them are.

    Args:
        boxes: (R, 4) `xyxy` of each.
        sizes: (R,) pixels of each.
        colours: (R, K) histograms that sum to 1.
        textures: (R, L) histograms that sum to 1.
        neighbours: For each, the set of those that it touches.
        image_size: Pixels of the image.
    """

    def __init__(self, boxes, sizes, colours, textures, neighbours, image_size):
        self.boxes = boxes
        self.sizes = sizes
        self.colours = colours
        self.textures = textures
        self.neighbours = neighbours
        self.image_size = image_size

    @classmethod
    def of(cls, labels: np.ndarray, colour_bins: np.ndarray, texture_bins: np.ndarray) -> Regions:
        """Measure the regions of a segmentation.

        Args:
            labels: (H, W) of `segment`.
            colour_bins: (C, H, W) integers below 25.
            texture_bins: (8 C, H, W) integers below 10.
        """
        count = int(labels.max()) + 1
        sizes = np.bincount(labels.ravel(), minlength=count)
        return cls(
            _boxes_of(labels, count),
            sizes,
            _histograms(labels, count, colour_bins, _COLOUR_BINS),
            _histograms(labels, count, texture_bins, _TEXTURE_BINS),
            _neighbours_of(labels, count),
            labels.size,
        )

    def hierarchy(self, strategy: str) -> np.ndarray:
        """Merge the two most alike neighbours again and again; return the boxes of all regions there ever were.

        Args:
            strategy: Letters of the similarities that are added up: C, T, S, F.

        Returns:
            (2 R - 1, 4) `xyxy`: those of the R regions, then of each merged one, the whole image last.
        """
        count = len(self.boxes)
        total = 2 * count - 1
        boxes = np.zeros((total, 4), np.float64)
        sizes = np.zeros(total, np.float64)
        features = self._features(strategy)
        histograms = np.zeros((total, features.shape[1]), np.float32)
        boxes[:count], sizes[:count], histograms[:count] = self.boxes, self.sizes, features
        neighbours = [set(near) for near in self.neighbours] + [set() for _ in range(count - 1)]
        by_size, by_fill = "S" in strategy, "F" in strategy

        def likeness(first, others):
            """Return how alike region or regions `first` are to `others` (N,)."""
            value = np.minimum(histograms[first], histograms[others]).sum(axis=1)  # (N,)
            both = sizes[first] + sizes[others]
            if by_size:
                value = value + (1 - both / self.image_size)
            if by_fill:
                low = np.minimum(boxes[first, ..., :2], boxes[others, :2])
                high = np.maximum(boxes[first, ..., 2:], boxes[others, 2:])
                value = value + (1 - ((high - low).prod(axis=-1) - both) / self.image_size)
            return (-value).tolist()

        firsts = [one for one in range(count) for other in neighbours[one] if other > one]
        seconds = [other for one in range(count) for other in neighbours[one] if other > one]
        # The smallest comes first: the most alike, and among equals the older regions.
        queue = list(zip(likeness(np.array(firsts, int), np.array(seconds, int)), firsts, seconds, strict=True))
        heapq.heapify(queue)
        alive = bytearray(b"\1" * count + b"\0" * (count - 1))
        for merged in range(count, total):
            _, one, other = heapq.heappop(queue)
            while not (alive[one] and alive[other]):
                _, one, other = heapq.heappop(queue)
            alive[one] = alive[other] = 0
            alive[merged] = 1
            size = sizes[one] + sizes[other]
            sizes[merged] = size
            boxes[merged, :2] = np.minimum(boxes[one, :2], boxes[other, :2])
            boxes[merged, 2:] = np.maximum(boxes[one, 2:], boxes[other, 2:])
            histograms[merged] = (sizes[one] * histograms[one] + sizes[other] * histograms[other]) / size
            near = (neighbours[one] | neighbours[other]) - {one, other}
            for region in near:
                beside = neighbours[region]
                beside.discard(one)
                beside.discard(other)
                beside.add(merged)
            neighbours[merged] = near
            if near:
                ordered = sorted(near)
                for value, region in zip(likeness(merged, np.array(ordered)), ordered, strict=True):
                    heapq.heappush(queue, (value, region, merged))
        return boxes

    def _features(self, strategy: str) -> np.ndarray:
        """Return the histograms (R, K) whose intersection the strategy adds up."""
        parts = [part for letter, part in (("C", self.colours), ("T", self.textures)) if letter in strategy]
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(self.boxes), 0), np.float32)


def check_count(name: str, value: int) -> None:
    """Raises ValueError unless an argument is a whole number of at least 1."""
    if int(value) != value or value < 1:
        raise ValueError(f"`{name}` {value!r} must be a whole number of at least 1")


def checked_image(image: np.ndarray) -> np.ndarray:
    """Returns an image (H, W, 3) as uint8; ValueError if it is none, or holds values that are not finite."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"`image` of shape {image.shape} must be (height, width, 3); add or convert its channels")
    if image.dtype == np.uint8:
        return image
    if not np.isfinite(image).all():
        raise ValueError("`image` holds NaN or infinite pixels; give finite values in 0-255")
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def _shrunk(image: np.ndarray, longest: int) -> np.ndarray:
    import cv2

    height, width = image.shape[:2]
    if max(height, width) <= longest:
        return image
    factor = longest / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _converted(image: np.ndarray, space: ColourSpace) -> np.ndarray:
    """Return an image in a colour space of section 3.2, as (H, W, 3) or (H, W, 1) float32, each channel in 0-255."""
    import cv2

    if space == "lab":
        return cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    if space == "grey":
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None].astype(np.float32)
    if space == "rgi":  # normalised red and green, and intensity
        values = image.astype(np.float32)
        chroma = 255 * values[:, :, :2] / np.maximum(values.sum(axis=2, keepdims=True), 1)
        return np.concatenate([chroma, values.mean(axis=2, keepdims=True)], axis=2)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL).astype(np.float32)
    return hsv if space == "hsv" else hsv[:, :, :1]


def _colour_bins(planes: np.ndarray) -> np.ndarray:
    """Return the bin of each pixel's colour, (C, H, W)."""
    bins = (planes * (_COLOUR_BINS / 256)).astype(np.uint8)
    return np.moveaxis(bins, -1, 0)


def _texture_bins(planes: np.ndarray) -> np.ndarray:
    """Return the bins of the responses of Gaussian derivatives in eight directions, (8 C, H, W)."""
    import cv2

    at = np.arange(-3, 4, dtype=np.float64)
    gauss = np.exp(-(at**2) / 2)
    gauss /= gauss.sum()
    slope = at * gauss
    bins = []
    for channel in range(planes.shape[2]):
        plane = np.ascontiguousarray(planes[:, :, channel])
        across = cv2.sepFilter2D(plane, cv2.CV_32F, slope, gauss)
        down = cv2.sepFilter2D(plane, cv2.CV_32F, gauss, slope)
        for step in range(_ORIENTATIONS // 2):
            angle = 2 * np.pi * step / _ORIENTATIONS
            along = (np.cos(angle) * across + np.sin(angle) * down) / (255 * _STEP_RESPONSE)
            for response in (along, -along):  # and the opposite direction
                level = np.sqrt(np.maximum(response, 0)) * _TEXTURE_BINS
                bins.append(np.minimum(level, _TEXTURE_BINS - 1).astype(np.uint8))
    return np.stack(bins)


def _histograms(labels: np.ndarray, count: int, bins: np.ndarray, levels: int) -> np.ndarray:
    """Return, for each region, the histograms of all planes side by side, summing to 1: (R, planes * levels)."""
    starts = labels.ravel() * levels
    counts = [np.bincount(starts + plane.ravel(), minlength=count * levels).reshape(count, levels) for plane in bins]
    joined = np.concatenate(counts, axis=1).astype(np.float32)
    return joined / joined.sum(axis=1, keepdims=True)


def _boxes_of(labels: np.ndarray, count: int) -> np.ndarray:
    """Return the `xyxy` box of each region, (R, 4)."""
    height, width = labels.shape
    boxes = np.zeros((count, 4), np.int64)
    # Written in order, the last one stays: rows and columns from the far end leave the smallest.
    flat = labels.ravel()
    rows = np.repeat(np.arange(height), width)
    boxes[flat, 3] = rows + 1
    boxes[flat[::-1], 1] = rows[::-1]
    turned = labels.T.ravel()
    columns = np.repeat(np.arange(width), height)
    boxes[turned, 2] = columns + 1
    boxes[turned[::-1], 0] = columns[::-1]
    return boxes


def _neighbours_of(labels: np.ndarray, count: int) -> list[set[int]]:
    """Return, for each region, those that one of its pixels touches, at a side or a corner."""
    height, width = labels.shape
    pairs = []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        one = labels[: height - down, max(0, -right) : width - max(0, right)]
        other = labels[down:, max(0, right) : width - max(0, -right)]
        apart = one != other
        pairs.append(one[apart] * count + other[apart])
    neighbours: list[set[int]] = [set() for _ in range(count)]
    for pair in np.unique(np.concatenate(pairs)).tolist():
        one, other = divmod(pair, count)
        neighbours[one].add(other)
        neighbours[other].add(one)
    return neighbours


def _first_of_each(boxes: np.ndarray) -> np.ndarray:
    """Return the rows without repetition, each where it first occurs."""
    _, first = np.unique(boxes, axis=0, return_index=True)
    return boxes[np.sort(first)]

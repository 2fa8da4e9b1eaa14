"""Spatial pyramid pooling: the maxima of windows of several sizes side by side.

`SPP` and `SPPF` keep the map's size and have stride 1, as in YOLO; `SpatialPyramidPooling` makes a vector of fixed
length of a map of any size, as in the paper that the name comes from. None of them has weights.
"""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kerasvision")
class SPP(keras.layers.Layer):
    """The input and its maxima over square windows of several sizes, concatenated (YOLOv3-SPP, YOLOv4, YOLOX).

    Args:
        kernel_sizes: Sides of the windows, odd.
        input_first: Whether the input's channels come first; last with ``kernel_sizes=(13, 9, 5)`` in darknet.

    Call: (B, H, W, C), any H and W; returns (B, H, W, C * (1 + number of kernel sizes)). Pixels outside the map do
    not count. What comes of NaN is up to the backend's max-pooling.

    Each window grows out of the next smaller one, since maxima of maxima are maxima: 5, 9, 13 cost three windows of 5.

    Raises:
        ValueError: No kernel size, or one that is not odd and positive.

    Source: Huang and Wang 2019, https://arxiv.org/abs/1903.08589, figure 2; darknet's cfg/yolov3-spp.cfg.
    """

    def __init__(self, kernel_sizes=(5, 9, 13), *, input_first=True, **kwargs):
        super().__init__(**kwargs)
        self.kernel_sizes = tuple(kernel_sizes)
        self.input_first = input_first
        if not self.kernel_sizes:
            raise ValueError("`kernel_sizes` is empty; give at least one odd number")
        for size in self.kernel_sizes:
            _check_odd("kernel_sizes", size, self.kernel_sizes)

    def call(self, inputs):
        """Concatenate the input and its maxima."""
        pooled, grown, previous = {}, inputs, 1
        for size in sorted(set(self.kernel_sizes)):
            # A window of k over maxima of windows of m is one of m + k - 1.
            grown = _max_pool(grown, size - previous + 1)
            pooled[size], previous = grown, size
        parts = [pooled[size] for size in self.kernel_sizes]
        return ops.concatenate([inputs, *parts] if self.input_first else [*parts, inputs], axis=-1)

    def compute_output_shape(self, input_shape):
        """Return (B, H, W, C * (1 + number of kernel sizes))."""
        return (*input_shape[:-1], input_shape[-1] * (1 + len(self.kernel_sizes)))

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "kernel_sizes": self.kernel_sizes, "input_first": self.input_first}


@keras.saving.register_keras_serializable("kerasvision")
class SPPF(keras.layers.Layer):
    """The input and its maxima over a window applied once, twice and so on, concatenated (YOLOv5).

    Equals `SPP` with kernel sizes k, 2k - 1, 3k - 2 and so on: 5, 9, 13 by default.

    Args:
        kernel_size: Side of the window, odd.
        repeats: How many times it is applied.

    Call: as `SPP`; returns (B, H, W, C * (1 + repeats)).

    Raises:
        ValueError: `kernel_size` is not odd and positive, or `repeats` is below 1.

    Source: https://github.com/ultralytics/yolov5, release 6.0.
    """

    def __init__(self, kernel_size=5, *, repeats=3, **kwargs):
        super().__init__(**kwargs)
        _check_odd("kernel_size", kernel_size, kernel_size)
        if repeats < 1:
            raise ValueError(f"`repeats` {repeats!r} must be 1 or more")
        self.kernel_size = kernel_size
        self.repeats = repeats

    def call(self, inputs):
        """Concatenate the input and its maxima."""
        parts = [inputs]
        for _ in range(self.repeats):
            parts.append(_max_pool(parts[-1], self.kernel_size))
        return ops.concatenate(parts, axis=-1)

    def compute_output_shape(self, input_shape):
        """Return (B, H, W, C * (1 + repeats))."""
        return (*input_shape[:-1], input_shape[-1] * (1 + self.repeats))

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "kernel_size": self.kernel_size, "repeats": self.repeats}


@keras.saving.register_keras_serializable("kerasvision")
class SpatialPyramidPooling(keras.layers.Layer):
    """A vector of fixed length of a map of any size: its maxima in grids of n by n bins (He et al. 2014).

    Args:
        bins: n of each grid. The paper's network for detection has 1, 2, 3 and 6.

    Bin i of n covers rows floor(i H / n) to ceil((i + 1) H / n), so that bins overlap by a row where n does not divide
    H, and a map smaller than the grid fills it by repetition.

    Call: (B, H, W, C), none of them 0; returns (B, C * sum of n^2), grid by grid, row by row, the C channels of a
    bin together.

    Raises:
        ValueError: `bins` is empty, or one is below 1.

    Reference: https://arxiv.org/abs/1406.4729, section 2.3; `torch.nn.functional.adaptive_max_pool2d`.
    """

    def __init__(self, bins=(1, 2, 3, 6), **kwargs):
        super().__init__(**kwargs)
        self.bins = tuple(bins)
        if not self.bins or min(self.bins) < 1:
            raise ValueError(f"`bins` {self.bins!r} must be one or more positive numbers")

    def call(self, inputs):
        """Pool `inputs`."""
        channels = inputs.shape[-1]
        vectors = []
        for count in self.bins:
            rows = _bin_maxima(inputs, count, axis=1)  # n of (B, W, C)
            grid = [maxima for row in rows for maxima in _bin_maxima(row, count, axis=1)]  # n * n of (B, C)
            vectors.append(ops.reshape(ops.stack(grid, axis=1), (-1, count * count * channels)))  # (B, nnC)
        return ops.concatenate(vectors, axis=-1)  # (B, C * sum of nn)

    def compute_output_shape(self, input_shape):
        """Return (B, C * sum of n^2)."""
        return (input_shape[0], input_shape[-1] * sum(count * count for count in self.bins))

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "bins": self.bins}


def _bin_maxima(features, count, *, axis):
    """Return the list of maxima over each of `count` bins of an axis, which goes."""
    size = features.shape[axis]
    if not isinstance(size, int):
        size = ops.shape(features)[axis]
    edges = [(index * size // count, ((index + 1) * size + count - 1) // count) for index in range(count)]
    return [ops.max(features[:, first:last], axis=axis) for first, last in edges]


def _max_pool(features, size):
    """Return maxima over windows of `size` by `size` around each pixel."""
    if size == 1:
        return features
    return ops.max_pool(features, size, strides=1, padding="same", data_format="channels_last")


def _check_odd(argument, size, received):
    if not isinstance(size, int) or size < 1 or size % 2 == 0:
        raise ValueError(f"`{argument}` {received!r}: a window of side {size!r} has no middle; use odd numbers")

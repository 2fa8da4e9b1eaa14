"""Maximum pooling that pads and rounds as PyTorch and Caffe do, where Keras's "same" and "valid" cannot."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kerasvision")
class MaxPooling(keras.layers.Layer):
    """The largest value of each window.

    Args:
        pool_size: Side of the window.
        strides: Pixels from one window to the next.
        padding: Pixels of minus infinity on each side, less than `pool_size` and than all of it with `strides`.
        ceil_mode: Round the size of the result up, as Caffe does, rather than down: the last window may reach beyond
            the padding at the bottom and right.

    Call: (B, H, W, C); returns (B, H', W', C), H' = (H + 2 padding - pool_size) / strides + 1, rounded.

    Raises:
        ValueError: `padding + strides` above `pool_size`: pixels would be in no window, or windows in padding only.

    Reference: torch.nn.MaxPool2d; Caffe, pooling_layer.cpp.
    """

    def __init__(self, pool_size=2, strides=2, *, padding=0, ceil_mode=False, **kwargs):
        super().__init__(**kwargs)
        if padding < 0 or strides < 1 or padding + strides > pool_size:
            raise ValueError(
                f"`padding` {padding} and `strides` {strides} must be at least 0 and 1, and at most `pool_size` "
                f"{pool_size} together; enlarge the window"
            )
        self.pool_size = pool_size
        self.strides = strides
        self.padding = padding
        self.ceil_mode = ceil_mode

    @property
    def _margin(self):
        """Pixels of padding before and after; where they are too many, the last row is in no window."""
        return self.padding, self.padding + (self.strides - 1 if self.ceil_mode else 0)

    def call(self, inputs):
        """Pool `inputs`."""
        before, after = self._margin
        in_place = self.strides == 1 and before == after == (self.pool_size - 1) / 2
        halving = self.pool_size == self.strides == 2 and self.ceil_mode
        # What Keras pads by itself needs no copy of the map.
        padding = "same" if in_place or halving else "valid"
        if after and padding == "valid":
            margin = (before, after)
            inputs = ops.pad(inputs, ((0, 0), margin, margin, (0, 0)), constant_values=-float("inf"))
        return ops.max_pool(inputs, self.pool_size, self.strides, padding, data_format="channels_last")

    def compute_output_shape(self, input_shape):
        """Return (B, H', W', C)."""
        margin = sum(self._margin)

        def pooled(size):
            return None if size is None else (size + margin - self.pool_size) // self.strides + 1

        return (input_shape[0], *map(pooled, input_shape[1:3]), input_shape[-1])

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "strides": self.strides,
            "padding": self.padding,
            "ceil_mode": self.ceil_mode,
        }

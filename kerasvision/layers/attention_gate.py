"""Attention U-Net's gate: a coarser level says which pixels of a skip connection matter."""

import keras
from keras import ops

from kerasvision.layers.convolution import ConvolutionBlock
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.ops.interpolation import resize_bilinear


@keras.saving.register_keras_serializable("kerasvision")
class AttentionGate(keras.layers.Layer):
    """Additive attention over the pixels of a skip connection.

    ```
    skip x --- 2x2 convolution /2 --+
                                    + -- ReLU -- 1x1 to one channel -- sigmoid -- enlarged bilinearly --- times x
    gate g --- 1x1 convolution -----+
    ```

    Args:
        filters: Channels that both are mapped to; default: as many as the skip connection has.

    Call: a skip connection (B, H, W, S) and the gating features (B, h, w, G) of the coarser level; returns
    (B, H, W, S): the skip connection times a coefficient between 0 and 1 of each pixel. Where an odd H was not halved
    to h = ceil(H / 2), the gating features are resized.

    Source: Oktay et al. 2018, https://arxiv.org/abs/1804.03999, equations 1 and 2 and figure 2, in two dimensions: the
    skip connection is subsampled by its linear map, which has no bias, and the coefficients are interpolated.
    """

    def __init__(self, filters=None, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters

    def build(self, skip_shape, gate_shape):
        """Build the maps of the skip connection, of the gating features, and of their sum."""
        filters = self.filters or skip_shape[-1]
        options = {"dtype": self.dtype_policy}
        self.theta = ConvolutionBlock(filters, 2, strides=2, padding="same", use_bias=False, name="theta", **options)
        self.phi = ConvolutionBlock(filters, 1, name="phi", **options)
        self.psi = ConvolutionBlock(1, 1, name="psi", **options)
        self.theta.build(skip_shape)
        self.phi.build(gate_shape)
        self.psi.build((*gate_shape[:-1], filters))
        pass_on_frozen(self)

    def call(self, skip, gate):
        """Weigh the pixels of `skip`."""
        keys, queries = self.theta(skip), self.phi(gate)
        if tuple(queries.shape[1:3]) != tuple(keys.shape[1:3]) or None in keys.shape[1:3]:
            queries = resize_bilinear(queries, tuple(ops.shape(keys)[1:3]))
        scores = self.psi(ops.relu(keys + queries))  # (B, ceil(H / 2), ceil(W / 2), 1)
        coefficients = resize_bilinear(ops.sigmoid(scores), tuple(ops.shape(skip)[1:3]))  # (B, H, W, 1)
        return skip * coefficients

    def compute_output_shape(self, skip_shape, gate_shape):
        """Return the skip connection's shape."""
        return tuple(skip_shape)

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "filters": self.filters}

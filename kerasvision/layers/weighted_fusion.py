"""A sum of feature maps whose weights are learned."""

from typing import Literal

import keras
from keras import ops

Fusion = Literal["fast", "softmax", "sum"]

# EfficientDet's paper, section 3.3.
_SMALL = 1e-4


@keras.saving.register_keras_serializable("kerasvision")
class WeightedFusion(keras.layers.Layer):
    """Add feature maps, each with a learned weight (EfficientDet, Tan et al. 2020, section 3.3).

    Args:
        method: ``"fast"``: weights w below 0 count as 0, then w_i / (0.0001 + sum of w), "fast normalized fusion";
            ``"softmax"``: exp(w_i) / sum of exp(w); ``"sum"``: a plain sum, nothing to learn. In automl's
            configurations: ``fastattn``, ``attn`` and ``sum``. All w start from 1.

    Call: list of N tensors of one shape; returns that shape. If all w are 0 or below, ``"fast"`` gives zeros.

    Raises:
        ValueError: `method` is unknown.

    Reference: https://arxiv.org/abs/1911.09070; effdet/efficientdet.py, `FpnCombine`.
    """

    def __init__(self, method: Fusion = "fast", **kwargs):
        super().__init__(**kwargs)
        if method not in ("fast", "softmax", "sum"):
            raise ValueError(f"`method` {method!r} is unknown; use 'fast', 'softmax' or 'sum'")
        self.method = method

    def build(self, input_shapes):
        """Create the weights (N,), if any."""
        self.edge_weights = None
        if self.method != "sum":
            self.edge_weights = self.add_weight(
                name="edge_weights", shape=(len(input_shapes),), initializer="ones", autocast=False
            )

    def call(self, features):
        """Add `features`."""
        if self.edge_weights is None:
            return sum(features[1:], features[0])
        if self.method == "fast":
            positive = ops.relu(self.edge_weights)
            shares = positive / (ops.sum(positive) + _SMALL)
        else:
            shares = ops.softmax(self.edge_weights)
        shares = ops.cast(shares, features[0].dtype)
        weighted = [feature * shares[index] for index, feature in enumerate(features)]
        return sum(weighted[1:], weighted[0])

    def compute_output_shape(self, input_shapes):
        """Return the shape of the first input."""
        return input_shapes[0]

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "method": self.method}

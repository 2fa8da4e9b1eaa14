"""The second stage of region-based detectors: from the pooled features of a box to its class and its corners."""

import keras
from keras import ops

from kerasvision.layers.convolution import ConvolutionBlock
from kerasvision.layers.normalization import check_normalization
from kerasvision.layers.trainability import pass_on_frozen

# PyTorch's default for dense layers: uniform within sqrt(1 / fan_in).
_DENSE = {"scale": 1 / 3, "mode": "fan_in", "distribution": "uniform"}
_CONVOLUTION = {"scale": 2.0, "mode": "fan_out", "distribution": "untruncated_normal"}


@keras.saving.register_keras_serializable("kerasvision")
class BoxHead(keras.layers.Layer):
    """Hidden layers over the pooled features of each box: 3x3 convolutions, then dense layers with ReLU.

    Args:
        units: Outputs of each dense layer: (1024, 1024) over a feature pyramid, (4096, 4096) on VGG-16.
        convolutions: Number of 3x3 convolutions before them: 0, or 4 in torchvision's second Faster R-CNN.
        filters: Channels of the convolutions.
        normalization: After every convolution, which has no bias then, as in `ConvolutionBlock`.
        epsilon: Added to the variance by the normalisation.
        momentum: Share of the old moving average that batch normalisation keeps at each step.
        dropout: Share of the dense layers' outputs that training drops: 0.5 in Fast R-CNN on VGG-16.

    Call: (B, N, P, P, C), pooled features of N boxes an image; returns (B, N, units[-1]).

    Raises:
        ValueError: No dense layer, or an unknown normalisation.

    Reference: torchvision/models/detection/faster_rcnn.py, `TwoMLPHead` and `FastRCNNConvFCHead`.
    """

    def __init__(
        self,
        units=(1024, 1024),
        *,
        convolutions=0,
        filters=256,
        normalization=None,
        epsilon=1e-5,
        momentum=0.9,
        dropout=0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = tuple(units)
        if not self.units:
            raise ValueError("`units` () must name one dense layer or more; (1024, 1024) is usual")
        check_normalization(normalization)
        self.convolutions = convolutions
        self.filters = filters
        self.normalization = normalization
        self.epsilon = epsilon
        self.momentum = momentum
        self.dropout = dropout
        self.hidden = [
            ConvolutionBlock(
                filters,
                3,
                normalization=normalization,
                epsilon=epsilon,
                momentum=momentum,
                activation="relu",
                kernel_initializer=keras.initializers.VarianceScaling(**_CONVOLUTION),
                name=f"conv{index}",
                dtype=self.dtype_policy,
            )
            for index in range(convolutions)
        ]
        self.dense = [
            keras.layers.Dense(
                count,
                activation="relu",
                kernel_initializer=keras.initializers.VarianceScaling(**_DENSE),
                name=f"fc{index}",
                dtype=self.dtype_policy,
            )
            for index, count in enumerate(self.units)
        ]
        self.drop = [
            keras.layers.Dropout(dropout, name=f"drop{index}", dtype=self.dtype_policy) for index in range(len(units))
        ]

    def build(self, input_shape):
        """Create the weights of all layers."""
        _, _, rows, columns, channels = input_shape
        for convolution in self.hidden:
            convolution.build((None, rows, columns, channels))
            channels = self.filters
        width = rows * columns * channels
        for dense in self.dense:
            dense.build((None, width))
            width = dense.units
        pass_on_frozen(self)

    def call(self, pooled, training=None):
        """Apply the hidden layers to every box by itself."""
        batch, count, *grid = ops.shape(pooled)
        x = ops.reshape(pooled, (-1, *grid))  # (B N, P, P, C)
        for convolution in self.hidden:
            x = convolution(x, training=training)
        x = ops.reshape(x, (-1, self.dense[0].kernel.shape[0]))  # (B N, P P C)
        for dense, drop in zip(self.dense, self.drop, strict=True):
            x = drop(dense(x), training=training)
        return ops.reshape(x, (batch, count, self.units[-1]))

    def compute_output_shape(self, input_shape):
        """Return (B, N, units[-1])."""
        return (*input_shape[:2], self.units[-1])

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "convolutions": self.convolutions,
            "filters": self.filters,
            "normalization": self.normalization,
            "epsilon": self.epsilon,
            "momentum": self.momentum,
            "dropout": self.dropout,
        }


@keras.saving.register_keras_serializable("kerasvision")
class BoxPredictor(keras.layers.Layer):
    """Two linear layers: class logits of a box, and for each class the deltas to a better box.

    Args:
        num_classes: Number of foreground classes.

    Call: (B, N, F); returns logits (B, N, 1 + num_classes), background first, and deltas (B, N, num_classes, 4).

    Differs from torchvision's `FastRCNNPredictor`: the background has no deltas, which nothing would ever read.

    Source: Girshick 2015, Fast R-CNN, https://arxiv.org/abs/1504.08083, section 2.1.
    """

    def __init__(self, num_classes, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.classifier = self._linear(1 + num_classes, "classifier")
        self.regressor = self._linear(4 * num_classes, "regressor")

    def _linear(self, units, name):
        initializer = keras.initializers.VarianceScaling(**_DENSE)
        return keras.layers.Dense(units, kernel_initializer=initializer, name=name, dtype=self.dtype_policy)

    def build(self, input_shape):
        """Create the weights of both layers."""
        self.classifier.build(input_shape)
        self.regressor.build(input_shape)
        pass_on_frozen(self)

    def call(self, features):
        """Return logits and deltas."""
        deltas = self.regressor(features)  # (B, N, 4 C)
        batch, count = ops.shape(features)[:2]
        return self.classifier(features), ops.reshape(deltas, (batch, count, self.num_classes, 4))

    def compute_output_shape(self, input_shape):
        """Return the shapes of logits and deltas."""
        batch, count, _ = input_shape
        return (batch, count, 1 + self.num_classes), (batch, count, self.num_classes, 4)

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "num_classes": self.num_classes}

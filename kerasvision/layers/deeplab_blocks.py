"""DeepLab's blocks: atrous spatial pyramid pooling, version 2's classifier, and the decoder of version 3+."""

import keras
from keras import ops

from kerasvision.layers.convolution import ConvolutionBlock
from kerasvision.layers.normalization import check_normalization
from kerasvision.layers.separable_convolution import SeparableConvolutionBlock
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.ops.interpolation import resize_bilinear


def _check_rates(rates):
    if not rates or any(not isinstance(rate, int) or rate < 1 for rate in rates):
        raise ValueError(f"`rates` {rates!r} must be whole numbers of 1 or more, such as (12, 24, 36)")
    return tuple(rates)


@keras.saving.register_keras_serializable("kerasvision")
class ASPP(keras.layers.Layer):
    """Atrous spatial pyramid pooling: the same map seen through several dilations and as a whole.

    ```
          +-- 1x1 ------------------------+
          +-- 3x3, dilation rates[0] -----+
    x ----+-- 3x3, dilation rates[1] -----+-- concatenated -- 1x1 -- dropout
          +-- 3x3, dilation rates[2] -----+
          +-- mean over the map -- 1x1 ---+
    ```

    Args:
        filters: Channels of every branch, and of the result.
        rates: Dilations: (12, 24, 36) where the features have a stride of 8, half of that at 16.
        separable: Make the 3x3 convolutions separable, as DeepLabV3+ does.
        dropout: Share of the result that is dropped in training, in [0, 1).
        normalization: After every convolution, each followed by ReLU; as in `ConvolutionBlock`.
        epsilon: Added to the variance by the normalisation.
        momentum: Share of the old moving average that batch normalisation keeps at each step.

    Call: (B, H, W, C); returns (B, H, W, filters). A dilation larger than the map leaves a 3x3 convolution its middle
    tap. In training the branch of the mean has one pixel an image: batch normalisation needs two images or more,
    as a single one would make all its channels `beta`.

    Raises:
        ValueError: Rates that are not positive integers, a dropout outside [0, 1), an unknown normalisation.

    Source: Chen et al. 2017, section 3.3, https://arxiv.org/abs/1706.05587; torchvision/models/segmentation/
    deeplabv3.py. Differs from the paper: dropout after the projection, as in torchvision.
    """

    def __init__(
        self,
        filters=256,
        rates=(12, 24, 36),
        *,
        separable=False,
        dropout=0.5,
        normalization="batch",
        epsilon=1e-5,
        momentum=0.9,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_normalization(normalization)
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` {dropout!r} must be in [0, 1); 0.5 is usual")
        self.filters = filters
        self.rates = _check_rates(rates)
        self.separable = separable
        self.dropout = dropout
        self.normalization = normalization
        self.epsilon = epsilon
        self.momentum = momentum
        common = {
            "normalization": normalization,
            "epsilon": epsilon,
            "momentum": momentum,
            "activation": "relu",
            "dtype": self.dtype_policy,
        }
        atrous = SeparableConvolutionBlock if separable else ConvolutionBlock
        self.point = ConvolutionBlock(filters, 1, name="point", **common)
        self.atrous = [
            atrous(filters, 3, dilation=rate, name=f"atrous_{index}", **common) for index, rate in enumerate(self.rates)
        ]
        self.whole = ConvolutionBlock(filters, 1, name="whole", **common)
        self.projection = ConvolutionBlock(filters, 1, name="projection", **common)
        self.drop = keras.layers.Dropout(dropout, name="drop", dtype=self.dtype_policy)

    def build(self, input_shape):
        """Build the branches and the projection."""
        for branch in (self.point, *self.atrous):
            branch.build(input_shape)
        self.whole.build((input_shape[0], 1, 1, input_shape[-1]))
        self.projection.build((*input_shape[:-1], self.filters * (len(self.rates) + 2)))
        pass_on_frozen(self)

    def call(self, inputs, training=None):
        """Look at `inputs` through all branches."""
        branches = [branch(inputs, training=training) for branch in (self.point, *self.atrous)]
        # In float32: half precision would neither hold nor resolve the sum over a map.
        mean = ops.mean(ops.cast(inputs, "float32"), axis=(1, 2), keepdims=True)  # (B, 1, 1, C)
        whole = self.whole(ops.cast(mean, self.compute_dtype), training=training)
        branches.append(ops.broadcast_to(whole, ops.shape(branches[0])))
        outputs = ops.concatenate(branches, axis=-1)  # (B, H, W, filters * (R + 2))
        return self.drop(self.projection(outputs, training=training), training=training)

    def compute_output_shape(self, input_shape):
        """Return (B, H, W, filters)."""
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "rates": self.rates,
            "separable": self.separable,
            "dropout": self.dropout,
            "normalization": self.normalization,
            "epsilon": self.epsilon,
            "momentum": self.momentum,
        }


@keras.saving.register_keras_serializable("kerasvision")
class AtrousPyramidClassifier(keras.layers.Layer):
    """DeepLabV2's classifier: atrous 3x3 convolutions straight to classes, side by side, added up.

    Args:
        num_classes: Number of classes.
        rates: Dilations: (6, 12, 18, 24), ASPP-L; (2, 4, 8, 12) is ASPP-S.

    Call: features (B, H, W, C); returns logits (B, H, W, num_classes). Each branch has a bias.

    Raises:
        ValueError: Rates that are not positive integers.

    Source: Chen et al. 2017, section 4.1.2, https://arxiv.org/abs/1606.00915. Differs from the paper where that has
    VGG-16: its fc7 and fc8 of each branch belong to the backbone; with ResNet-101 it is this. Initialised as there,
    from a normal distribution of deviation 0.01.
    """

    def __init__(self, num_classes, rates=(6, 12, 18, 24), **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.rates = _check_rates(rates)
        self.branches = [
            ConvolutionBlock(
                num_classes,
                3,
                dilation=rate,
                kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
                name=f"branch_{index}",
                dtype=self.dtype_policy,
            )
            for index, rate in enumerate(self.rates)
        ]

    def build(self, input_shape):
        """Build the branches."""
        for branch in self.branches:
            branch.build(input_shape)
        pass_on_frozen(self)

    def call(self, inputs):
        """Add up what the branches say."""
        logits = self.branches[0](inputs)
        for branch in self.branches[1:]:
            logits = logits + branch(inputs)
        return logits

    def compute_output_shape(self, input_shape):
        """Return (B, H, W, num_classes)."""
        return (*input_shape[:-1], self.num_classes)

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "num_classes": self.num_classes, "rates": self.rates}


@keras.saving.register_keras_serializable("kerasvision")
class DeepLabV3PlusDecoder(keras.layers.Layer):
    """DeepLabV3+: atrous spatial pyramid pooling, enlarged and joined with features of a finer level.

    ```
    coarse -- ASPP -- `before` 3x3 -- enlarged --+
                                                 +-- concatenated -- `after` 3x3
    fine ---- 1x1 -------------------------------+
    ```

    Args:
        filters: Channels of all but the fine features, and of the result.
        rates: Dilations of the pyramid, as in `ASPP`.
        low_level_filters: Channels that the fine features are reduced to.
        before: Number of 3x3 convolutions after the pyramid: 1 in segmentation_models.pytorch, 0 in the paper.
        after: Number of 3x3 convolutions after joining: 1 in segmentation_models.pytorch, 2 in the paper.
        separable: Make all 3x3 convolutions separable.
        dropout: As in `ASPP`.
        align_corners: How the coarse features are enlarged; see `kerasvision.ops.interpolation.resize_bilinear`.
        normalization: As in `ASPP`.
        epsilon: As in `ASPP`.
        momentum: As in `ASPP`.

    Call: a list of fine features (B, H, W, F), of stride 4, and coarse ones (B, h, w, C), of stride 8 or 16; returns
    (B, H, W, filters). The coarse features are enlarged to H x W, whatever the factor.

    Raises:
        ValueError: As `ASPP`; a list of other than two maps.

    Source: Chen et al. 2018, section 3.2, https://arxiv.org/abs/1802.02611; segmentation_models_pytorch/decoders/
    deeplabv3/decoder.py, whose defaults these are.
    """

    def __init__(
        self,
        filters=256,
        rates=(12, 24, 36),
        *,
        low_level_filters=48,
        before=1,
        after=1,
        separable=True,
        dropout=0.5,
        align_corners=True,
        normalization="batch",
        epsilon=1e-5,
        momentum=0.9,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.low_level_filters = low_level_filters
        self.before = before
        self.after = after
        self.separable = separable
        self.dropout = dropout
        self.align_corners = align_corners
        self.normalization = normalization
        self.epsilon = epsilon
        self.momentum = momentum
        common = {
            "normalization": normalization,
            "epsilon": epsilon,
            "momentum": momentum,
            "dtype": self.dtype_policy,
        }
        self.pyramid = ASPP(filters, rates, separable=separable, dropout=dropout, name="pyramid", **common)
        self.rates = self.pyramid.rates
        convolution = SeparableConvolutionBlock if separable else ConvolutionBlock
        self.refinements, self.fusions = (
            [convolution(filters, 3, activation="relu", name=f"{name}_{index}", **common) for index in range(count)]
            for name, count in (("refinement", before), ("fusion", after))
        )
        self.low_level = ConvolutionBlock(low_level_filters, 1, activation="relu", name="low_level", **common)

    def build(self, input_shapes):
        """Build the pyramid and the convolutions."""
        fine, coarse = _two_maps(input_shapes)
        self.pyramid.build(coarse)
        self.low_level.build(fine)
        for block in self.refinements:
            block.build((*coarse[:-1], self.filters))
        channels = self.filters + self.low_level_filters
        for block in self.fusions:
            block.build((*fine[:-1], channels))
            channels = self.filters
        pass_on_frozen(self)

    def call(self, features, training=None):
        """Decode fine and coarse `features`."""
        fine, coarse = _two_maps(features)
        outputs = self.pyramid(coarse, training=training)
        for block in self.refinements:
            outputs = block(outputs, training=training)
        outputs = resize_bilinear(outputs, ops.shape(fine)[1:3], align_corners=self.align_corners)
        fine = self.low_level(fine, training=training)
        outputs = ops.concatenate([outputs, fine], axis=-1)  # (B, H, W, filters + low_level_filters)
        for block in self.fusions:
            outputs = block(outputs, training=training)
        return outputs

    def compute_output_shape(self, input_shapes):
        """Return (B, H, W, filters); without convolutions `after` joining, `low_level_filters` more."""
        fine, _ = _two_maps(input_shapes)
        return (*fine[:-1], self.filters if self.after else self.filters + self.low_level_filters)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "rates": self.rates,
            "low_level_filters": self.low_level_filters,
            "before": self.before,
            "after": self.after,
            "separable": self.separable,
            "dropout": self.dropout,
            "align_corners": self.align_corners,
            "normalization": self.normalization,
            "epsilon": self.epsilon,
            "momentum": self.momentum,
        }


def _two_maps(features):
    if len(features) != 2:
        raise ValueError(f"`features` are {len(features)} maps; give two, of the fine and the coarse level")
    return features

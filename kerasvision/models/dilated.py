"""Segmenters that keep their resolution by dilation: a backbone, a head on its last features, and enlarged logits.

```
image -> backbone -> features of stride 8 or 16 -> head ----------> enlarged bilinearly -> logits
                      | of an earlier stage
                      +--> auxiliary FCN head (training's losses) -> enlarged bilinearly
```

What FCN, DeepLab and others of torchvision have in common; each has a file of its own with its head.
"""

import keras
from keras import ops

from kerasvision.layers import FCNHead
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.models.auxiliary import attach_auxiliary
from kerasvision.models.base import Segmenter, split_inputs
from kerasvision.ops.interpolation import resize_bilinear


class DilatedSegmenter(Segmenter):
    """Base of segmenters with one head on the last features of a backbone.

    Args:
        backbone: A model that maps normalised images to a list of features, from fine to coarse, such as `ResNet`
            with an `output_stride`.
        head: A layer that maps the last features (B, h, w, F) to logits (B, h, w, num_classes).
        num_classes: Number of classes, the background included where there is one.
        auxiliary: Whether there is an auxiliary head.
        auxiliary_feature: Position in the backbone's list of the features that the auxiliary head classifies.
        align_corners: How logits are enlarged; see `kerasvision.ops.interpolation.resize_bilinear`.
        **kwargs: As in `Segmenter`.
    """

    loss_names = ("cross_entropy",)

    def __init__(
        self, backbone, head, num_classes, *, auxiliary=False, auxiliary_feature=-2, align_corners=False, **kwargs
    ):
        if auxiliary:
            self.loss_names = (*self.loss_names, "auxiliary_cross_entropy")
        super().__init__(num_classes, **kwargs)
        features = len(backbone.outputs)
        if not -features <= auxiliary_feature < features:
            raise ValueError(
                f"`auxiliary_feature` {auxiliary_feature!r} must be the position of one of the backbone's {features} "
                f"features, {-features} to {features - 1}"
            )
        self.backbone = backbone
        self.auxiliary = auxiliary
        self.auxiliary_feature = auxiliary_feature
        self.align_corners = align_corners
        self.head = head
        if auxiliary:
            self.auxiliary_head = FCNHead(num_classes, name="auxiliary_head", dtype=self.dtype_policy)
        self.build()

    def build(self, input_shape=None):
        """Create the weights of the heads."""
        if not self.built:
            shapes = [feature.shape for feature in self.backbone.outputs]
            self.head.build(self.head_features(shapes))
            if self.auxiliary:
                self.auxiliary_head.build(shapes[self.auxiliary_feature])
            pass_on_frozen(self)

    def call(self, inputs, training=None):
        """Return logits (B, H, W, num_classes) of images (B, H, W, 3)."""
        features = self.backbone(self.prepare(inputs), training=training)
        logits = self.enlarge(self.head(self.head_features(features), training=training), inputs)
        if not self.auxiliary:
            return logits

        def auxiliary():
            coarse = self.auxiliary_head(features[self.auxiliary_feature], training=training)
            return [self.enlarge(coarse, inputs)]

        return attach_auxiliary(logits, auxiliary)

    def head_features(self, features):
        """Return those of the backbone's features (or of their shapes) that the head takes: the last."""
        return features[-1]

    def enlarge(self, logits, inputs):
        """Resize logits (B, h, w, C) to the size of the input's images."""
        images, _ = split_inputs(inputs)
        return resize_bilinear(logits, tuple(ops.shape(images)[1:3]), align_corners=self.align_corners)

    def get_config(self):
        """Return the constructor's arguments, without the head."""
        return {
            **super().get_config(),
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "auxiliary": self.auxiliary,
            "auxiliary_feature": self.auxiliary_feature,
            "align_corners": self.align_corners,
        }

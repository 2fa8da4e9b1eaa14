"""RetinaNet: focal loss for dense object detection (Lin et al. 2017, https://arxiv.org/abs/1708.02002).

```
image -> backbone -> C3 C4 C5 -> FPN -> P3 P4 P5 P6 P7 --+-- classification head -> (B, A, num_classes) logits
                                                         +-- box head ------------> (B, A, 4) deltas
```

Both heads are small convolutional networks shared by all levels; A counts nine anchors for each cell of each
level. Every anchor is classified, so nearly all are background: the focal loss keeps these easy negatives
from drowning the rest.

Differs from the paper as torchvision's `retinanet_resnet50_fpn` does, whose outputs, losses and gradients it equals:
plain L1 instead of smooth L1 on boxes, P6 computed from P5 instead of C5, anchor corners rounded to pixels, and the
top 1000 (anchor, class) pairs of each level kept before NMS.
"""

import math

import keras
from keras import ops

from kerasvision.backbones.resnet import resnet10, resnet50
from kerasvision.layers import AnchorGenerator, ConvolutionBlock, FeaturePyramid, NonMaxSuppression
from kerasvision.layers.feature_pyramid import CoarseLevels
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.losses.focal import sigmoid_focal_loss
from kerasvision.models.base import Detector, valid_sizes_hw
from kerasvision.models.recipe import SMALL_DETECTOR, Recipe
from kerasvision.models.targets import trained_boxes
from kerasvision.ops import boxes
from kerasvision.ops.matching import BETWEEN_THRESHOLDS, match_by_iou
from kerasvision.ops.resizing import ResizeRule
from kerasvision.ops.rows import take_rows, top_rows

# Rate of positives that the classification head starts from, so that the first losses stay small (section 4.1).
PRIOR = 0.01


def octave_sizes(smallest, levels=5):
    """Return anchor sizes for each level: three a level, a third of an octave apart, doubling with each level."""
    bases = [smallest * 2**level for level in range(levels)]
    return tuple((base, int(base * 2 ** (1 / 3)), int(base * 2 ** (2 / 3))) for base in bases)


ANCHOR_SIZES = octave_sizes(32)


@keras.saving.register_keras_serializable("kerasvision")
class DenseHead(keras.layers.Layer):
    """The small convolutional network that RetinaNet slides over every level.

    Args:
        outputs_per_anchor: Number of channels for each anchor: the classes, or 4 deltas.
        anchors_per_cell: Number of anchors of each cell.
        filters: Channels of the hidden convolutions.
        convolutions: Number of hidden 3x3 convolutions.
        initial_bias: Bias that the output convolution starts from.

    Call: (B, H, W, C); returns (B, H * W * anchors_per_cell, outputs_per_anchor).
    """

    def __init__(
        self, outputs_per_anchor, anchors_per_cell, *, filters=256, convolutions=4, initial_bias=0.0, **kwargs
    ):
        super().__init__(**kwargs)
        self.outputs_per_anchor = outputs_per_anchor
        self.anchors_per_cell = anchors_per_cell
        self.filters = filters
        self.initial_bias = initial_bias
        self.hidden = [self._convolution(filters, f"conv{i}", activation="relu") for i in range(convolutions)]
        self.output_convolution = self._convolution(
            outputs_per_anchor * anchors_per_cell,
            "output",
            bias_initializer=keras.initializers.Constant(initial_bias),
        )

    def _convolution(self, filters, name, **options):
        initializer = keras.initializers.RandomNormal(stddev=0.01)
        return ConvolutionBlock(
            filters, 3, kernel_initializer=initializer, name=name, dtype=self.dtype_policy, **options
        )

    def build(self, input_shape):
        """Build all convolutions."""
        for convolution in [*self.hidden, self.output_convolution]:
            convolution.build(input_shape)
            input_shape = convolution.compute_output_shape(input_shape)
        pass_on_frozen(self)

    def call(self, features):
        """Apply the head to one level."""
        for convolution in self.hidden:
            features = convolution(features)
        outputs = self.output_convolution(features)  # (B, H, W, K * outputs)
        return ops.reshape(outputs, (ops.shape(outputs)[0], -1, self.outputs_per_anchor))  # (B, HWK, outputs)

    def compute_output_shape(self, input_shape):
        """Return (B, H * W * anchors_per_cell, outputs_per_anchor)."""
        batch, height, width, _ = input_shape
        cells = None if height is None or width is None else height * width * self.anchors_per_cell
        return (batch, cells, self.outputs_per_anchor)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "outputs_per_anchor": self.outputs_per_anchor,
            "anchors_per_cell": self.anchors_per_cell,
            "filters": self.filters,
            "convolutions": len(self.hidden),
            "initial_bias": self.initial_bias,
        }


@keras.saving.register_keras_serializable("kerasvision")
class RetinaNet(Detector):
    """RetinaNet on any backbone that returns features of strides 2 to 32.

    Args:
        backbone: A model that maps normalised images to the list C1 to C5, such as `ResNet`.
        num_classes: Number of classes, each with a sigmoid of its own; there is no background class.
        anchor_sizes: For each of P3 to P7, the anchors' sizes in pixels.
        aspect_ratios: Height divided by width of the anchors.
        pyramid_filters: Channels of the pyramid and of the heads.
        head_convolutions: Hidden convolutions of each head.
        coarse_levels: Where P6 comes from; see `FeaturePyramid`.
        foreground_iou: IoU from which an anchor is trained as an object.
        background_iou: IoU under which it is trained as background.
        score_threshold: Detections must score more than this.
        candidates_per_level: Most (anchor, class) pairs of each level that enter NMS.
        iou_threshold: Overlap at which NMS drops the lower-scored box.
        max_detections: D, the number of detections of each image.
        **kwargs: As in `VisionModel`.
    """

    size_divisor = 32
    loss_names = ("classification", "box_regression")
    default_recipe = Recipe(
        optimizer="sgd",
        learning_rate=0.01,
        batch_size=16,
        weight_decay=1e-4,
        warmup_steps=1000,
        decay="step",
        milestones=(16 / 26, 22 / 26),
        epochs=26,
        source="torchvision references/detection, retinanet_resnet50_fpn",
    )

    def __init__(
        self,
        backbone,
        num_classes,
        *,
        anchor_sizes=ANCHOR_SIZES,
        aspect_ratios=(0.5, 1.0, 2.0),
        pyramid_filters=256,
        head_convolutions=4,
        coarse_levels: CoarseLevels = "p6p7_from_p5",
        foreground_iou=0.5,
        background_iou=0.4,
        score_threshold=0.05,
        candidates_per_level=1000,
        iou_threshold=0.5,
        max_detections=300,
        name="retinanet",
        **kwargs,
    ):
        super().__init__(num_classes, name=name, **kwargs)
        self.backbone = backbone
        self.foreground_iou = foreground_iou
        self.background_iou = background_iou
        self.score_threshold = score_threshold
        self.candidates_per_level = candidates_per_level
        self.pyramid = FeaturePyramid(
            pyramid_filters, coarse_levels=coarse_levels, name="pyramid", dtype=self.dtype_policy
        )
        self.anchor_generator = AnchorGenerator(
            anchor_sizes, aspect_ratios, name="anchor_generator", dtype=self.dtype_policy
        )
        head_options = {
            "anchors_per_cell": self.anchor_generator.anchors_per_cell,
            "filters": pyramid_filters,
            "convolutions": head_convolutions,
            "dtype": self.dtype_policy,
        }
        self.classification_head = DenseHead(
            num_classes,
            initial_bias=-math.log((1 - PRIOR) / PRIOR),
            name="classification_head",
            **head_options,
        )
        self.box_head = DenseHead(4, name="box_head", **head_options)
        self.suppression = NonMaxSuppression(iou_threshold, max_detections, name="suppression", dtype=self.dtype_policy)
        self.build()

    def build(self, input_shape=None):
        """Create the weights of the pyramid and the heads."""
        if not self.built:
            features = [feature.shape for feature in self.backbone.outputs[2:]]
            self.pyramid.build(features)
            for head in (self.classification_head, self.box_head):
                head.build((None, None, None, self.pyramid.filters))
            pass_on_frozen(self)

    def call(self, inputs, training=None):
        """Return `logits` and `deltas`: lists, from P3 to P7, of (B, A_l, num_classes) and (B, A_l, 4)."""
        features = self.backbone(self.prepare(inputs), training=training)
        pyramid = self.pyramid(features[2:])
        return {
            "logits": [self.classification_head(level) for level in pyramid],
            "deltas": [self.box_head(level) for level in pyramid],
        }

    def anchors(self, inputs):
        """Return the anchors of each level for these inputs: a list of float32 (A_l, 4) `xyxy` pixels."""
        height, width = self.canvas_hw(inputs)
        if not (isinstance(height, int) and isinstance(width, int)):
            # One axis of a graph's input may be known and the other not; Keras's layers do not take such a mixture.
            height, width = ops.convert_to_tensor(height, "int32"), ops.convert_to_tensor(width, "int32")
        grids = [(height // stride, width // stride) for stride in (8, 16, 32)]
        for _ in range(2):  # P6 and P7: stride-2 convolutions halve and round up
            grids.append(((grids[-1][0] + 1) // 2, (grids[-1][1] + 1) // 2))
        return self.anchor_generator(grids_hw=grids, image_hw=(height, width))

    def losses_from_outputs(self, outputs, inputs, targets):
        """Assign targets to anchors and return the focal and the L1 loss.

        Both are sums over an image's anchors, divided by its number of foreground anchors (at least one), and averaged
        over the images: an image without boxes teaches background.
        """
        logits = ops.cast(ops.concatenate(outputs["logits"], axis=1), "float32")  # (B, A, num_classes)
        deltas = ops.cast(ops.concatenate(outputs["deltas"], axis=1), "float32")  # (B, A, 4)
        anchors = ops.expand_dims(ops.concatenate(self.anchors(inputs)), 0)  # (1, A, 4)
        true_boxes, labels, valid = trained_boxes(targets)
        matches = match_by_iou(
            boxes.pairwise_iou(true_boxes, anchors),
            valid,
            foreground_iou=self.foreground_iou,
            background_iou=self.background_iou,
        )  # (B, A)
        foreground = matches >= 0
        matched = ops.maximum(matches, 0)
        matched_labels = ops.where(foreground, take_rows(labels, matched), -1)
        matched_boxes = take_rows(true_boxes, matched)  # (B, A, 4)
        # Padding boxes have no size; a stand-in keeps logs finite where the loss is masked anyway.
        matched_boxes = ops.where(ops.expand_dims(foreground, -1), matched_boxes, anchors)

        focal = ops.sum(sigmoid_focal_loss(ops.one_hot(matched_labels, self.num_classes), logits), axis=-1)
        distance = ops.sum(ops.abs(boxes.encode_deltas(matched_boxes, anchors) - deltas), axis=-1)  # (B, A)
        foreground = ops.cast(foreground, "float32")
        counted = ops.cast(matches != BETWEEN_THRESHOLDS, "float32")
        positives = ops.maximum(ops.sum(foreground, axis=1), 1)  # (B,)
        return {
            "classification": ops.mean(ops.sum(focal * counted, axis=1) / positives),
            "box_regression": ops.mean(ops.sum(distance * foreground, axis=1) / positives),
        }

    def decode(self, raw, inputs):
        """Keep each level's best (anchor, class) pairs, decode their boxes, and suppress overlaps by class."""
        levels = zip(raw["logits"], raw["deltas"], self.anchors(inputs), strict=True)
        candidates = [self._level_candidates(*level) for level in levels]
        candidate_boxes, scores, labels = (ops.concatenate(parts, axis=1) for parts in zip(*candidates, strict=True))
        return self.suppression(boxes.clip(candidate_boxes, valid_sizes_hw(inputs)), scores, labels)

    def _level_candidates(self, logits, deltas, anchors):
        """Return boxes (B, N, 4), scores (B, N) and labels (B, N) of a level's best pairs; score -inf: none.

        The best N pairs belong to at most N anchors, which are among the N whose best class scores highest: so the
        search over all classes looks at N anchors instead of all.
        """
        limit = self.candidates_per_level
        best = ops.max(logits, axis=-1)  # (B, A_l)
        _, best_anchors = top_rows(best, limit)  # (B, N')
        logits = ops.cast(take_rows(logits, best_anchors), "float32")  # (B, N', C)
        pairs = ops.reshape(logits, (ops.shape(logits)[0], -1))  # (B, N' C)
        best_logits, best_pairs = top_rows(pairs, limit)  # (B, N)
        chosen = take_rows(best_anchors, best_pairs // self.num_classes)  # (B, N)
        scores = ops.sigmoid(best_logits)
        scores = ops.where(scores > self.score_threshold, scores, -float("inf"))
        decoded = boxes.decode_deltas(ops.cast(take_rows(deltas, chosen), "float32"), ops.take(anchors, chosen, axis=0))
        return decoded, scores, best_pairs % self.num_classes

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "anchor_sizes": self.anchor_generator.sizes,
            "aspect_ratios": self.anchor_generator.aspect_ratios,
            "pyramid_filters": self.pyramid.filters,
            "head_convolutions": len(self.box_head.hidden),
            "coarse_levels": self.pyramid.coarse_levels,
            "foreground_iou": self.foreground_iou,
            "background_iou": self.background_iou,
            "score_threshold": self.score_threshold,
            "candidates_per_level": self.candidates_per_level,
            "iou_threshold": self.suppression.iou_threshold,
            "max_detections": self.suppression.max_detections,
        }


def retinanet_resnet50_fpn(
    num_classes=91, *, normalization="frozen_batch", epsilon=1e-5, frozen_stages=2, dtype=None, **options
):
    """Return torchvision's `retinanet_resnet50_fpn`: 34.1M parameters, 151.5 GMACs at 800x800, 206.0 at 800x1066.

    Args:
        num_classes: Number of classes; torchvision's weights have 91, of which index 0 and others are unused.
        normalization: Of the backbone; see `ConvolutionBlock`. Frozen statistics suit pre-trained weights only; random
            ones want ``"batch"``, which `zoo.get(..., weights=None)` sees to.
        epsilon: Added to the variance; torchvision's COCO weights want 0.
        frozen_stages: Parts of the backbone that stay as they are: the stem and the first stage. Random ones want 0.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `RetinaNet`.
    """
    backbone = resnet50(normalization=normalization, epsilon=epsilon, frozen_stages=frozen_stages, dtype=dtype)
    options = {
        "resize_rule": ResizeRule("shortest_side", shortest=800, longest=1333),
        "name": "retinanet_resnet50_fpn",
        **options,
    }
    return RetinaNet(backbone, num_classes, dtype=dtype, **options)


def retinanet_resnet10_fpn(num_classes=80, *, normalization="batch", dtype=None, **options):
    """Return a small RetinaNet that trains on a CPU: a half-width ResNet-10, 64 channels, anchors from 16 pixels.

    Args:
        num_classes: Number of classes.
        normalization: Of the backbone; see `ConvolutionBlock`.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `RetinaNet`.
    """
    options = {
        "anchor_sizes": octave_sizes(16),
        "pyramid_filters": 64,
        "head_convolutions": 2,
        "resize_rule": ResizeRule("letterbox", size_hw=(256, 384)),
        "recipe": SMALL_DETECTOR.replace(
            epochs=7,
            source="this project, zoo/recipes/streets.py: random weights, 4000 scenes, stopped after epoch 3 of 7",
        ),
        "name": "retinanet_resnet10_fpn",
        **options,
    }
    return RetinaNet(resnet10(normalization=normalization, dtype=dtype), num_classes, dtype=dtype, **options)

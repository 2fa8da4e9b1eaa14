"""Faster R-CNN: a network that proposes boxes, and one that classifies them (Ren et al. 2015).

https://arxiv.org/abs/1506.01497, on a feature pyramid as in https://arxiv.org/abs/1612.03144.

```
image -> backbone -> FPN -> P2 P3 P4 P5 P6 -> region proposal network -> objectness, deltas of every anchor
                             |                                            | best anchors, decoded, NMS by level
                             +------------- RoIAlign <- proposals --------+
                                             | 7x7 features of each box
                                            box head -> class logits (background first), deltas of each class
```

Both stages train in one `fit`, with four losses: of objectness and anchors' boxes, of classes and regions' boxes.

Differs from the paper as torchvision's `fasterrcnn_resnet50_fpn` does, whose outputs, losses and gradients it equals:
both stages learn at once instead of in four steps, anchors across the border are trained on, true boxes are added to
the proposals of training, and boxes' losses divide by the number of sampled anchors and regions.
"""

import keras
from keras import ops

from kerasvision.backbones.mobilenet_v3 import mobilenet_v3_large
from kerasvision.backbones.resnet import resnet10, resnet50
from kerasvision.backbones.vgg import vgg16
from kerasvision.layers import AnchorGenerator, ConvolutionBlock
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.losses.box import smooth_l1
from kerasvision.losses.focal import binary_cross_entropy
from kerasvision.models.base import valid_sizes_hw
from kerasvision.models.recipe import SMALL_DETECTOR, Recipe
from kerasvision.models.region_detector import RegionDetector
from kerasvision.models.targets import trained_boxes
from kerasvision.ops import boxes
from kerasvision.ops.matching import BACKGROUND, match_by_iou
from kerasvision.ops.nms import non_max_suppression
from kerasvision.ops.resizing import ResizeRule
from kerasvision.ops.rows import take_rows, top_rows
from kerasvision.ops.sampling import sample_balanced

# One size a level, from P2 to P6.
ANCHOR_SIZES = ((32,), (64,), (128,), (256,), (512,))
# Proposals of less width or height are dropped, in pixels: torchvision's `RegionProposalNetwork.min_size`.
_SMALLEST_SIDE = 1e-3
# torchvision's resize of all its Faster R-CNNs but the one for 320 pixels.
_RESIZE = ResizeRule("shortest_side", shortest=800, longest=1333)


@keras.saving.register_keras_serializable("kerasvision")
class RegionProposalHead(keras.layers.Layer):
    """The small network that slides over every level: is there an object at this anchor, and where exactly?

    Args:
        anchors_per_cell: Number of anchors of each cell.
        convolutions: Number of hidden 3x3 convolutions, of as many channels as the features have.

    Call: (B, H, W, C); returns objectness logits (B, H * W * anchors_per_cell) and deltas (B, the same, 4).

    Source: section 3.1 of the paper; torchvision/models/detection/rpn.py, `RPNHead`.
    """

    def __init__(self, anchors_per_cell, *, convolutions=1, **kwargs):
        super().__init__(**kwargs)
        self.anchors_per_cell = anchors_per_cell
        self.convolutions = convolutions

    def build(self, input_shape):
        """Create all convolutions."""
        channels = input_shape[-1]
        self.hidden = [
            self._convolution(channels, 3, f"conv{index}", activation="relu") for index in range(self.convolutions)
        ]
        self.objectness = self._convolution(self.anchors_per_cell, 1, "objectness")
        self.deltas = self._convolution(4 * self.anchors_per_cell, 1, "deltas")
        for convolution in [*self.hidden, self.objectness, self.deltas]:
            convolution.build((None, None, None, channels))
        pass_on_frozen(self)

    def _convolution(self, filters, size, name, **options):
        initializer = keras.initializers.RandomNormal(stddev=0.01)
        return ConvolutionBlock(
            filters, size, kernel_initializer=initializer, name=name, dtype=self.dtype_policy, **options
        )

    def call(self, features):
        """Apply the head to one level."""
        for convolution in self.hidden:
            features = convolution(features)
        objectness, deltas = self.objectness(features), self.deltas(features)  # (B, H, W, K) and (B, H, W, 4 K)
        batch = ops.shape(features)[0]
        return ops.reshape(objectness, (batch, -1)), ops.reshape(deltas, (batch, -1, 4))

    def compute_output_shape(self, input_shape):
        """Return the shapes of objectness and deltas."""
        batch, height, width, _ = input_shape
        count = None if height is None or width is None else height * width * self.anchors_per_cell
        return (batch, count), (batch, count, 4)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "anchors_per_cell": self.anchors_per_cell,
            "convolutions": self.convolutions,
        }


@keras.saving.register_keras_serializable("kerasvision")
class FasterRCNN(RegionDetector):
    """Faster R-CNN on any backbone, with or without a feature pyramid.

    Args:
        backbone: As in `RegionDetector`.
        num_classes: Number of foreground classes.
        anchor_sizes: For each level, the anchors' sizes in pixels: as many levels as the backbone has features of
            stride 4 or more, and one for P6, which the pyramid adds. Without a pyramid one level.
        aspect_ratios: Height divided by width of the anchors.
        proposal_convolutions: Hidden convolutions of the `RegionProposalHead`.
        anchors_per_image: Anchors of each image that the first stage is trained on.
        anchor_foreground_share: Most of them that are foreground, as a share.
        anchor_foreground_iou: IoU from which an anchor is trained as an object; the best anchor of a box always is.
        anchor_background_iou: IoU under which it is trained as background.
        anchor_beta: Difference of deltas at which their smooth L1 loss turns linear.
        candidates_per_level: Most anchors of each level that enter the NMS of proposals.
        max_proposals: P, the number of proposals of each image.
        training_candidates_per_level: The same in training.
        training_proposals: P in training.
        proposal_iou_threshold: Overlap at which NMS drops the lower-scored proposal of one level.
        proposal_score_threshold: Proposals must score at least this.
        **kwargs: As in `RegionDetector`.

    `model(images)` gives `features`, a list from P2 to P6; `objectness` and `anchor_deltas`, lists of (B, A_l) and
    (B, A_l, 4); `proposals` (B, P, 4), best first, padded with -1; and, unless in training, their `class_logits`
    (B, P, 1 + num_classes) and `class_deltas` (B, P, num_classes, 4).
    """

    loss_names = ("objectness", "proposal_regression", "classification", "box_regression")
    coarse_levels = "pool"
    default_recipe = Recipe(
        optimizer="sgd",
        learning_rate=0.02,
        batch_size=16,
        weight_decay=1e-4,
        warmup_steps=1000,
        decay="step",
        milestones=(16 / 26, 22 / 26),
        epochs=26,
        source="torchvision references/detection, fasterrcnn_resnet50_fpn",
    )

    def __init__(
        self,
        backbone,
        num_classes,
        *,
        anchor_sizes=ANCHOR_SIZES,
        aspect_ratios=(0.5, 1.0, 2.0),
        proposal_convolutions=1,
        anchors_per_image=256,
        anchor_foreground_share=0.5,
        anchor_foreground_iou=0.7,
        anchor_background_iou=0.3,
        anchor_beta=1 / 9,
        candidates_per_level=1000,
        max_proposals=1000,
        training_candidates_per_level=2000,
        training_proposals=2000,
        proposal_iou_threshold=0.7,
        proposal_score_threshold=0.0,
        name="faster_rcnn",
        **kwargs,
    ):
        super().__init__(backbone, num_classes, name=name, **kwargs)
        levels = len(self._feature_indices) + (self.pyramid is not None)
        if len(anchor_sizes) != levels:
            raise ValueError(
                f"`anchor_sizes` {anchor_sizes!r} must list the sizes of {levels} levels, which `backbone` and pyramid "
                f"have, not of {len(anchor_sizes)}"
            )
        self.anchors_per_image = anchors_per_image
        self.anchor_foreground_share = anchor_foreground_share
        self.anchor_foreground_iou = anchor_foreground_iou
        self.anchor_background_iou = anchor_background_iou
        self.anchor_beta = anchor_beta
        self.candidates_per_level = candidates_per_level
        self.max_proposals = max_proposals
        self.training_candidates_per_level = training_candidates_per_level
        self.training_proposals = training_proposals
        self.proposal_iou_threshold = proposal_iou_threshold
        self.proposal_score_threshold = proposal_score_threshold
        self.anchor_generator = AnchorGenerator(
            anchor_sizes, aspect_ratios, name="anchor_generator", dtype=self.dtype_policy
        )
        self.proposal_head = RegionProposalHead(
            self.anchor_generator.anchors_per_cell,
            convolutions=proposal_convolutions,
            name="proposal_head",
            dtype=self.dtype_policy,
        )
        self.build()

    def _build_first_stage(self, channels):
        self.proposal_head.build((None, None, None, channels))

    def call(self, inputs, training=None):
        """Return the raw outputs of both stages, in training of the first alone; see the class."""
        features = self.features(inputs, training)
        objectness, deltas = zip(*(self.proposal_head(level) for level in features), strict=True)
        raw = {"features": list(features), "objectness": list(objectness), "anchor_deltas": list(deltas)}
        raw["proposals"] = self.propose(raw, inputs, training)
        if not training:
            raw["class_logits"], raw["class_deltas"] = self.classify(features, raw["proposals"])
        return raw

    def anchors(self, features, inputs):
        """Return the anchors of each level: a list of float32 (A_l, 4) `xyxy` pixels."""
        image_hw = self.canvas_hw(inputs)
        grids = [tuple(ops.shape(level)[1:3]) for level in features]
        if not all(isinstance(size, int) for size in (*image_hw, *sum(grids, ()))):
            # One axis of a graph's input may be known and the other not; Keras's layers do not take such a mixture.
            image_hw, *grids = (
                tuple(ops.convert_to_tensor(size, "int32") for size in sizes) for sizes in (image_hw, *grids)
            )
        return self.anchor_generator(grids_hw=grids, image_hw=image_hw)

    def propose(self, raw, inputs, training=None):
        """Return the best anchors of all levels, decoded, clipped to their image and thinned out by NMS.

        Args:
            raw: dict of `features`, `objectness` and `anchor_deltas`, as `call` makes them.
            inputs: What the model was called with.
            training: Whether more are kept, as in training.

        Returns:
            (B, P, 4) `xyxy` pixels without gradient, best first, padded with -1.
        """
        limit = self.training_candidates_per_level if training else self.candidates_per_level
        parts = []
        levels = zip(raw["objectness"], raw["anchor_deltas"], self.anchors(raw["features"], inputs), strict=True)
        for index, (objectness, deltas, anchors) in enumerate(levels):
            logits, best = top_rows(ops.cast(ops.stop_gradient(objectness), "float32"), limit)  # (B, N)
            deltas = ops.cast(take_rows(ops.stop_gradient(deltas), best), "float32")
            decoded = boxes.decode_deltas(deltas, ops.take(anchors, best, axis=0))
            parts.append((decoded, ops.sigmoid(logits), ops.full_like(best, index)))
        candidates, scores, level = (ops.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        candidates = boxes.clip(candidates, valid_sizes_hw(inputs))
        usable = ops.all(candidates[..., 2:] - candidates[..., :2] >= _SMALLEST_SIDE, axis=-1)
        usable = ops.logical_and(usable, scores >= self.proposal_score_threshold)
        kept = non_max_suppression(
            candidates,
            ops.where(usable, scores, -float("inf")),
            level,
            iou_threshold=self.proposal_iou_threshold,
            max_detections=self.training_proposals if training else self.max_proposals,
        )
        return ops.where(ops.expand_dims(kept.valid, -1), take_rows(candidates, kept.indices), -1.0)

    def losses_from_outputs(self, outputs, inputs, targets):
        """Return the four losses, each a mean over the anchors or regions that were sampled from the whole batch."""
        training = "class_logits" not in outputs
        return {
            **self._proposal_losses(outputs, inputs, targets, training),
            **self.region_losses(outputs["features"], outputs["proposals"], targets, training),
        }

    def _proposal_losses(self, outputs, inputs, targets, training):
        """Assign targets to anchors, sample some of each image, and return the losses of the first stage."""
        objectness = ops.cast(ops.concatenate(outputs["objectness"], axis=1), "float32")  # (B, A)
        deltas = ops.cast(ops.concatenate(outputs["anchor_deltas"], axis=1), "float32")  # (B, A, 4)
        anchors = ops.expand_dims(ops.concatenate(self.anchors(outputs["features"], inputs)), 0)  # (1, A, 4)
        true_boxes, _, valid = trained_boxes(targets)
        matches = match_by_iou(
            boxes.pairwise_iou(true_boxes, anchors),
            valid,
            foreground_iou=self.anchor_foreground_iou,
            background_iou=self.anchor_background_iou,
        )  # (B, A)
        positives, negatives = sample_balanced(
            matches >= 0,
            matches == BACKGROUND,
            size=self.anchors_per_image,
            positive_fraction=self.anchor_foreground_share,
            priorities=self.draw_priorities(ops.shape(matches), training),
        )
        foreground = ops.expand_dims(matches >= 0, -1)
        matched_boxes = take_rows(true_boxes, ops.maximum(matches, 0))  # (B, A, 4)
        # Padding boxes have no size; a stand-in keeps logs finite where the loss is masked anyway.
        matched_boxes = ops.where(foreground, matched_boxes, anchors)
        distance = smooth_l1(boxes.encode_deltas(matched_boxes, anchors), deltas, beta=self.anchor_beta)
        losses = binary_cross_entropy(ops.cast(positives, "float32"), objectness)  # (B, A)
        sampled = ops.cast(ops.logical_or(positives, negatives), "float32")
        count = ops.maximum(ops.sum(sampled), 1)
        return {
            "objectness": ops.sum(losses * sampled) / count,
            "proposal_regression": ops.sum(ops.sum(distance, axis=-1) * ops.cast(positives, "float32")) / count,
        }

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "anchor_sizes": self.anchor_generator.sizes,
            "aspect_ratios": self.anchor_generator.aspect_ratios,
            "proposal_convolutions": self.proposal_head.convolutions,
            "anchors_per_image": self.anchors_per_image,
            "anchor_foreground_share": self.anchor_foreground_share,
            "anchor_foreground_iou": self.anchor_foreground_iou,
            "anchor_background_iou": self.anchor_background_iou,
            "anchor_beta": self.anchor_beta,
            "candidates_per_level": self.candidates_per_level,
            "max_proposals": self.max_proposals,
            "training_candidates_per_level": self.training_candidates_per_level,
            "training_proposals": self.training_proposals,
            "proposal_iou_threshold": self.proposal_iou_threshold,
            "proposal_score_threshold": self.proposal_score_threshold,
        }


def fasterrcnn_resnet50_fpn(
    num_classes=90, *, normalization="frozen_batch", epsilon=1e-5, frozen_stages=2, dtype=None, **options
):
    """Return torchvision's `fasterrcnn_resnet50_fpn`: 41.9M parameters, 134.4 GMACs at 800x800.

    Args:
        num_classes: Number of foreground classes; torchvision's weights have COCO's ids 1 to 90, some of them unused.
        normalization: Of the backbone; see `ConvolutionBlock`. Frozen statistics suit pre-trained weights only; random
            ones want ``"batch"``, which `zoo.get(..., weights=None)` sees to.
        epsilon: Added to the variance; torchvision's COCO weights want 0.
        frozen_stages: Parts of the backbone that stay as they are: the stem and the first stage. Random ones want 0.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `FasterRCNN`.
    """
    backbone = resnet50(normalization=normalization, epsilon=epsilon, frozen_stages=frozen_stages, dtype=dtype)
    options = {"resize_rule": _RESIZE, "name": "fasterrcnn_resnet50_fpn", **options}
    return FasterRCNN(backbone, num_classes, dtype=dtype, **options)


def fasterrcnn_resnet50_fpn_v2(num_classes=90, *, normalization="batch", frozen_stages=2, dtype=None, **options):
    """Return torchvision's `fasterrcnn_resnet50_fpn_v2`: 43.8M parameters, 280.4 GMACs at 800x800.

    Batch normalisation everywhere, two convolutions in the proposal head, four in the box head (Li et al. 2021,
    https://arxiv.org/abs/2111.11429).

    Args:
        num_classes: Number of foreground classes.
        normalization: Of backbone, pyramid and box head; see `ConvolutionBlock`.
        frozen_stages: Parts of the backbone that stay as they are.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `FasterRCNN`.
    """
    backbone = resnet50(normalization=normalization, frozen_stages=frozen_stages, dtype=dtype)
    options = {
        "pyramid_normalization": normalization,
        "proposal_convolutions": 2,
        "head_units": (1024,),
        "head_convolutions": 4,
        "head_normalization": normalization,
        "resize_rule": _RESIZE,
        "name": "fasterrcnn_resnet50_fpn_v2",
        **options,
    }
    return FasterRCNN(backbone, num_classes, dtype=dtype, **options)


def fasterrcnn_mobilenet_v3_large_fpn(
    num_classes=90, *, normalization="frozen_batch", frozen_stages=3, dtype=None, **options
):
    """Return torchvision's `fasterrcnn_mobilenet_v3_large_fpn`: 19.4M parameters.

    Its pyramid has two levels of stride 32 and one of 64, with fifteen anchors a cell.

    Args:
        num_classes: Number of foreground classes.
        normalization: Of the backbone; see `fasterrcnn_resnet50_fpn`.
        frozen_stages: Parts of the backbone that stay as they are, of six.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `FasterRCNN`.
    """
    backbone = mobilenet_v3_large(
        feature_indices=(13, 16),
        normalization=normalization,
        epsilon=1e-5,  # torchvision's default for frozen statistics, not MobileNet's 1e-3
        momentum=0.9,
        frozen_stages=frozen_stages,
        dtype=dtype,
    )
    options = {
        "anchor_sizes": ((32, 64, 128, 256, 512),) * 3,
        "proposal_score_threshold": 0.05,
        "resize_rule": _RESIZE,
        "name": "fasterrcnn_mobilenet_v3_large_fpn",
        **options,
    }
    return FasterRCNN(backbone, num_classes, dtype=dtype, **options)


def fasterrcnn_mobilenet_v3_large_320_fpn(
    num_classes=90, *, normalization="frozen_batch", frozen_stages=3, dtype=None, **options
):
    """Return torchvision's `fasterrcnn_mobilenet_v3_large_320_fpn`: the same for images of 320 pixels, 150 proposals.

    Args:
        num_classes: Number of foreground classes.
        normalization: Of the backbone; see `fasterrcnn_resnet50_fpn`.
        frozen_stages: Parts of the backbone that stay as they are, of six.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `FasterRCNN`.
    """
    options = {
        "candidates_per_level": 150,
        "max_proposals": 150,
        "resize_rule": ResizeRule("shortest_side", shortest=320, longest=640),
        "name": "fasterrcnn_mobilenet_v3_large_320_fpn",
        **options,
    }
    return fasterrcnn_mobilenet_v3_large_fpn(
        num_classes, normalization=normalization, frozen_stages=frozen_stages, dtype=dtype, **options
    )


def fasterrcnn_vgg16(num_classes=20, *, widths=(64, 128, 256, 512, 512), frozen_stages=2, dtype=None, **options):
    """Return Faster R-CNN on VGG-16 as in the paper: conv5_3, RoIPool, fc6 and fc7 with dropout; 137.1M parameters.

    Args:
        num_classes: Number of foreground classes.
        widths: Channels of the backbone; see `VGG`.
        frozen_stages: Blocks of the backbone that stay as they are: the first two, as in the paper.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `FasterRCNN`.
    """
    backbone = vgg16(widths=widths, frozen_stages=frozen_stages, ceil_mode=False, dtype=dtype, name="vgg16")
    options = {
        "pyramid_filters": None,
        "anchor_sizes": ((128, 256, 512),),
        "pooling": "pool",
        "head_units": (4096, 4096),
        "head_dropout": 0.5,
        "regions_per_image": 128,
        "background_iou": (0.1, 0.5),
        "box_beta": 1.0,
        "candidates_per_level": 6000,
        "max_proposals": 300,
        "training_candidates_per_level": 12000,
        "resize_rule": ResizeRule("shortest_side", shortest=600, longest=1000),
        "recipe": Recipe(
            optimizer="sgd",
            learning_rate=1e-3,
            batch_size=1,
            weight_decay=5e-4,
            warmup_steps=0,
            decay="step",
            milestones=(5 / 7,),
            epochs=14,
            source="the authors' end-to-end training on VOC 2007: 70,000 images, a tenth of the rate after 50,000",
        ),
        "name": "fasterrcnn_vgg16",
        **options,
    }
    return FasterRCNN(backbone, num_classes, dtype=dtype, **options)


def fasterrcnn_resnet10_fpn(num_classes=80, *, normalization="batch", dtype=None, **options):
    """Return a small Faster R-CNN that trains on a CPU: a half-width ResNet-10, 64 channels, anchors from 16 pixels.

    Args:
        num_classes: Number of foreground classes.
        normalization: Of the backbone; see `ConvolutionBlock`.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `FasterRCNN`.
    """
    options = {
        "anchor_sizes": ((16,), (32,), (64,), (128,), (256,)),
        "pyramid_filters": 64,
        "head_units": (128, 128),
        "regions_per_image": 128,
        "candidates_per_level": 300,
        "max_proposals": 300,
        "training_candidates_per_level": 500,
        "training_proposals": 500,
        "resize_rule": ResizeRule("letterbox", size_hw=(256, 384)),
        "recipe": SMALL_DETECTOR,
        "name": "fasterrcnn_resnet10_fpn",
        **options,
    }
    return FasterRCNN(resnet10(normalization=normalization, dtype=dtype), num_classes, dtype=dtype, **options)

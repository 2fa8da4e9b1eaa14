"""Detectors that classify boxes which something else proposed: what Fast R-CNN and Faster R-CNN have in common.

```
image -> backbone [-> FPN] -> features --+-- RoIAlign or RoIPool -> box head -> class logits, deltas of each class
                         proposed boxes -+
```

Each has a file of its own, which says where the proposals come from. In training, the second stage sees a sample of
them that depends on the targets, so it runs where the losses are computed, not in `call`.
"""

from typing import Literal

import keras
from keras import ops

from kerasvision.layers import BoxHead, BoxPredictor, FeaturePyramid, NonMaxSuppression, RoIAlign, RoIPool
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.losses.box import smooth_l1
from kerasvision.models.base import Detector, valid_sizes_hw
from kerasvision.models.detector import classes_side_by_side
from kerasvision.models.targets import trained_boxes
from kerasvision.ops import boxes
from kerasvision.ops.matching import BACKGROUND, match_by_iou
from kerasvision.ops.rows import take_rows, top_rows
from kerasvision.ops.sampling import sample_balanced

# Detections of less width or height are dropped, in pixels: torchvision's `postprocess_detections`.
_SMALLEST_SIDE = 1e-2
# Outside of training, places are ranked by their multiples of a step, modulo a power of two: spread out, and all
# different up to this many; the step is near the golden ratio of the period (Knuth, The Art of Computer Programming,
# section 6.4).
_PERIOD, _STEP = 2**15, 20253


class RegionDetector(Detector):
    """Base of detectors with a second stage over proposed boxes.

    Args:
        backbone: A model that maps normalised images to a list of features, from fine to coarse, and has `strides`.
        num_classes: Number of foreground classes; a background class is added inside.
        pyramid_filters: Channels of a feature pyramid over the backbone's features of stride 4 or more; ``None`` for no
            pyramid: boxes are pooled from the last features.
        pyramid_normalization: Of the pyramid's convolutions, as in `FeaturePyramid`.
        pooling: ``"align"`` for RoIAlign or ``"pool"`` for RoIPool, which goes with one map of features only.
        pool_size: Bins along each side of a box.
        sampling_ratio: Of RoIAlign: samples along each side of a bin, or ``None`` to adapt them to the box.
        aligned: Of RoIAlign: whether cells are centred at half a stride (Detectron2).
        head_units: Outputs of the box head's dense layers.
        head_convolutions: Number of 3x3 convolutions before them.
        head_normalization: Of these convolutions, as in `BoxHead`.
        head_dropout: Share of the dense layers' outputs that training drops.
        regions_per_image: Boxes of each image that the second stage is trained on.
        foreground_share: Most of them that are foreground, as a share.
        foreground_iou: IoU from which a box is trained as the object it overlaps most.
        background_iou: Two IoUs: a box is trained as background from the first to below the second.
        box_beta: Difference of deltas at which their smooth L1 loss turns linear.
        box_weights: Factors of the deltas; see `kerasvision.ops.boxes.encode_deltas`.
        score_threshold: Detections must score more than this.
        iou_threshold: Overlap at which NMS drops the lower-scored box of one class.
        max_detections: D, the number of detections of each image.
        **kwargs: As in `VisionModel`.

    Raises:
        ValueError: RoIPool over a pyramid, or a backbone without features of a suitable stride.
    """

    size_divisor = 32
    coarse_levels: Literal["pool"] | None = None

    def __init__(
        self,
        backbone,
        num_classes,
        *,
        pyramid_filters=256,
        pyramid_normalization=None,
        pooling: Literal["align", "pool"] = "align",
        pool_size=7,
        sampling_ratio=2,
        aligned=False,
        head_units=(1024, 1024),
        head_convolutions=0,
        head_normalization=None,
        head_dropout=0.0,
        regions_per_image=512,
        foreground_share=0.25,
        foreground_iou=0.5,
        background_iou=(0.0, 0.5),
        box_beta=1 / 9,
        box_weights=(10.0, 10.0, 5.0, 5.0),
        score_threshold=0.05,
        iou_threshold=0.5,
        max_detections=100,
        **kwargs,
    ):
        super().__init__(num_classes, **kwargs)
        if pooling not in ("align", "pool") or (pooling == "pool" and pyramid_filters is not None):
            raise ValueError(
                f"`pooling` {pooling!r} with `pyramid_filters` {pyramid_filters!r} is not possible; use 'align', or "
                "'pool' and pyramid_filters=None"
            )
        self.backbone = backbone
        self.pyramid_normalization = pyramid_normalization
        self.regions_per_image = regions_per_image
        self.foreground_share = foreground_share
        self.foreground_iou = foreground_iou
        self.background_iou = tuple(background_iou)
        self.box_beta = box_beta
        self.box_weights = tuple(box_weights)
        self.score_threshold = score_threshold
        fine = [index for index, stride in enumerate(backbone.strides) if stride >= 4]
        if not fine:
            raise ValueError(f"`backbone` has strides {tuple(backbone.strides)}; one of 4 or more is needed")
        self._feature_indices = fine if pyramid_filters is not None else fine[-1:]
        strides = [backbone.strides[index] for index in self._feature_indices]
        self.pyramid = None
        if pyramid_filters is not None:
            self.pyramid = FeaturePyramid(
                pyramid_filters,
                coarse_levels=self.coarse_levels,
                normalization=pyramid_normalization,
                name="pyramid",
                dtype=self.dtype_policy,
            )
            # Levels of one stride, such as MobileNetV3's two of 32, count as one: boxes are pooled from the first.
            strides = sorted(set(strides))
        self._pooled_maps = len(strides)
        if pooling == "pool":
            self.pooling = RoIPool(pool_size, strides[0], name="roi_pool", dtype=self.dtype_policy)
        else:
            self.pooling = RoIAlign(
                pool_size,
                strides if len(strides) > 1 else strides[0],
                sampling_ratio=sampling_ratio,
                aligned=aligned,
                name="roi_align",
                dtype=self.dtype_policy,
            )
        self.sampling_ratio, self.aligned = sampling_ratio, aligned
        self.box_head = BoxHead(
            head_units,
            convolutions=head_convolutions,
            filters=pyramid_filters or backbone.outputs[self._feature_indices[-1]].shape[-1],
            normalization=head_normalization,
            dropout=head_dropout,
            name="box_head",
            dtype=self.dtype_policy,
        )
        self.box_predictor = BoxPredictor(num_classes, name="box_predictor", dtype=self.dtype_policy)
        self.suppression = NonMaxSuppression(iou_threshold, max_detections, name="suppression", dtype=self.dtype_policy)
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, input_shape=None):
        """Create the weights of the pyramid, the box head and the predictor."""
        if self.built:
            return
        shapes = [self.backbone.outputs[index].shape for index in self._feature_indices]
        if self.pyramid is not None:
            self.pyramid.build(shapes)
            shapes = self.pyramid.compute_output_shape(shapes)
        self._build_first_stage(shapes[-1][-1])
        size = self.pooling.output_size
        self.box_head.build((None, None, size, size, shapes[-1][-1]))
        self.box_predictor.build((None, None, self.box_head.units[-1]))
        pass_on_frozen(self)

    def _build_first_stage(self, channels):
        """Create the weights of what proposes boxes, if it is part of the model."""

    def features(self, inputs, training=None):
        """Return the maps (B, H_l, W_l, C) of the pyramid, or the one that boxes are pooled from."""
        found = self.backbone(self.prepare(inputs), training=training)
        found = [found[index] for index in self._feature_indices]
        return found if self.pyramid is None else self.pyramid(found, training=training)

    def classify(self, features, regions, training=None):
        """Run the second stage.

        Args:
            features: As `features` returns them.
            regions: (B, N, 4) `xyxy` pixels, padded with -1.
            training: Whether layers behave as in training.

        Returns:
            logits (B, N, 1 + num_classes), background first, and deltas (B, N, num_classes, 4).
        """
        maps = features[: self._pooled_maps]
        pooled = self.pooling(maps if self._pooled_maps > 1 else maps[0], regions)  # (B, N, P, P, C)
        return self.box_predictor(self.box_head(pooled, training=training))

    def draw_priorities(self, shape, training):
        """Return numbers (B, N): of those that may be trained on, the highest are.

        Random in training; else the same for every image and backend, so that a model's losses are a fact about it.
        """
        if training:
            return keras.random.uniform(shape, seed=self.seed_generator)
        places = ops.arange(shape[1], dtype="int32")
        return ops.broadcast_to(ops.cast(places % _PERIOD * _STEP % _PERIOD, "float32"), shape)

    def sample_regions(self, proposals, true_boxes, labels, valid, training):
        """Choose the boxes that the second stage is trained on, from the proposals and the true boxes themselves.

        Args:
            proposals: (B, P, 4) `xyxy` pixels, padded with -1.
            true_boxes: (B, M, 4).
            labels: (B, M) classes.
            valid: (B, M) bool; False marks padding.
            training: Whether the choice is random.

        Returns:
            regions (B, N, 4), padded with -1; labels (B, N): 0 background, 1 the first class, -1 padding; and the true
            boxes (B, N, 4) of foreground regions, which stand in for themselves elsewhere.
        """
        true_or_padding = ops.where(ops.expand_dims(valid, -1), true_boxes, -1.0)
        regions = ops.concatenate([proposals, true_or_padding], axis=1)  # (B, R, 4)
        usable = ops.any(regions != -1, axis=-1)
        lowest, highest = self.background_iou
        overlaps = boxes.pairwise_iou(true_boxes, regions)  # (B, M, R)
        matches = match_by_iou(
            overlaps, valid, foreground_iou=self.foreground_iou, background_iou=highest, force_best=False
        )
        background = ops.logical_and(matches == BACKGROUND, usable)
        if lowest > 0:
            best = ops.max(ops.where(ops.expand_dims(valid, -1), overlaps, 0.0), axis=1)
            background = ops.logical_and(background, best >= lowest)
        positives, negatives = sample_balanced(
            ops.logical_and(matches >= 0, usable),
            background,
            size=self.regions_per_image,
            positive_fraction=self.foreground_share,
            priorities=self.draw_priorities(ops.shape(matches), training),
        )
        kind = ops.where(positives, 2, ops.where(negatives, 1, 0))  # (B, R)
        kind, chosen = top_rows(kind, self.regions_per_image)  # (B, N)
        regions = ops.where(ops.expand_dims(kind > 0, -1), take_rows(regions, chosen), -1.0)
        matched = ops.maximum(take_rows(matches, chosen), 0)
        found = take_rows(labels, matched) + 1
        foreground = ops.expand_dims(kind == 2, -1)
        return (
            regions,
            ops.where(kind == 2, found, ops.where(kind == 1, 0, -1)),
            ops.where(foreground, take_rows(true_boxes, matched), regions),
        )

    def region_losses(self, features, proposals, targets, training):
        """Return the losses of the second stage: of classes and of boxes, means over the sampled regions of a batch."""
        true_boxes, labels, valid = trained_boxes(targets)
        regions, labels, true_boxes = self.sample_regions(proposals, true_boxes, labels, valid, training)
        logits, deltas = (ops.cast(part, "float32") for part in self.classify(features, regions, training))
        sampled = ops.cast(labels >= 0, "float32")  # (B, N)
        count = ops.maximum(ops.sum(sampled), 1)
        cross_entropy = keras.losses.sparse_categorical_crossentropy(ops.maximum(labels, 0), logits, from_logits=True)
        # Each region's deltas of its own class.
        batch, number = ops.shape(labels)
        places = ops.arange(number, dtype="int32") * self.num_classes + ops.maximum(labels - 1, 0)  # (B, N)
        deltas = take_rows(ops.reshape(deltas, (batch, number * self.num_classes, 4)), places)  # (B, N, 4)
        wanted = boxes.encode_deltas(true_boxes, regions, self.box_weights)
        distance = ops.sum(smooth_l1(wanted, deltas, beta=self.box_beta), axis=-1)  # (B, N)
        return {
            "classification": ops.sum(cross_entropy * sampled) / count,
            "box_regression": ops.sum(ops.where(labels > 0, distance, 0.0)) / count,
        }

    def decode(self, raw, inputs):
        """Score every class of every region, decode its box, and suppress overlaps by class."""
        regions = raw["proposals"]  # (B, N, 4)
        scores = ops.softmax(ops.cast(raw["class_logits"], "float32"), axis=-1)[..., 1:]  # (B, N, C)
        scores = ops.where(ops.any(regions != -1, axis=-1, keepdims=True), scores, -float("inf"))  # not of padding
        deltas = ops.cast(raw["class_deltas"], "float32")  # (B, N, C, 4)
        found = boxes.decode_deltas(deltas, ops.expand_dims(regions, 2), self.box_weights)
        found, scores, labels = classes_side_by_side(found, scores)
        found = boxes.clip(found, valid_sizes_hw(inputs))
        usable = ops.all(found[..., 2:] - found[..., :2] >= _SMALLEST_SIDE, axis=-1)
        usable = ops.logical_and(usable, scores > self.score_threshold)
        return self.suppression(found, ops.where(usable, scores, -float("inf")), labels)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "pyramid_filters": None if self.pyramid is None else self.pyramid.filters,
            "pyramid_normalization": self.pyramid_normalization,
            "pooling": "pool" if isinstance(self.pooling, RoIPool) else "align",
            "pool_size": self.pooling.output_size,
            "sampling_ratio": self.sampling_ratio,
            "aligned": self.aligned,
            "head_units": self.box_head.units,
            "head_convolutions": len(self.box_head.hidden),
            "head_normalization": self.box_head.normalization,
            "head_dropout": self.box_head.dropout,
            "regions_per_image": self.regions_per_image,
            "foreground_share": self.foreground_share,
            "foreground_iou": self.foreground_iou,
            "background_iou": self.background_iou,
            "box_beta": self.box_beta,
            "box_weights": self.box_weights,
            "score_threshold": self.score_threshold,
            "iou_threshold": self.suppression.iou_threshold,
            "max_detections": self.suppression.max_detections,
        }

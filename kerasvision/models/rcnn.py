"""R-CNN: a classifier of images, run on each proposed box by itself (Girshick et al. 2014).

https://arxiv.org/abs/1311.2524

```
image -> selective search -> proposals -> each warped to one size, with some context
                                           | convolutions -> pooled features -> box regressors of each class
                                           | fc6, fc7 ----> features --------> support vector machine of each class
                                           | softmax, of fine-tuning alone
```

It learns in three stages, all in one `fit`: the network is fine-tuned to tell classes and background apart; then
support vector machines, with hard negatives, and ridge regressions of boxes are solved on its features. Every box costs
a pass through the network: seconds for an image, which Fast R-CNN was made to save.

Differs from the paper: the squared hinge in the support vector machines; boxes are warped without rounding, and sampled
for fine-tuning from the images of a step instead of all; a bounded number of boxes goes into each regression; scores
are the sigmoid of a machine's margin, in the same order, 0.5 being its boundary. Before the last two stages were
reached, `predict` uses the softmax and the proposals as they are.
"""

import keras
import numpy as np
from keras import ops
from keras.src.backend.common.symbolic_scope import in_symbolic_scope

from kerasvision.backbones.alexnet import alexnet
from kerasvision.backbones.vgg import vgg8, vgg16
from kerasvision.data.selective_search import SelectiveSearch
from kerasvision.layers import BoxHead, NonMaxSuppression
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.models.base import Detector, split_inputs, valid_sizes_hw
from kerasvision.models.batches import batches_of, steps_of
from kerasvision.models.compilation import compiled
from kerasvision.models.detector import classes_side_by_side
from kerasvision.models.external_proposals import ExternalProposals
from kerasvision.models.recipe import SMALL_DETECTOR, Recipe
from kerasvision.models.region_classifiers import ClassifierFit, RegionClassifiers
from kerasvision.models.targets import trained_boxes
from kerasvision.ops import boxes
from kerasvision.ops.matching import BACKGROUND, match_by_iou
from kerasvision.ops.resizing import ResizeRule
from kerasvision.ops.rows import take_rows, top_rows
from kerasvision.ops.sampling import sample_balanced
from kerasvision.ops.warp import warp_boxes


@keras.saving.register_keras_serializable("kerasvision")
class RCNN(ExternalProposals, Detector):
    """R-CNN on a backbone whose last features are pooled to a few cells at `crop_size`.

    Args:
        backbone: A model that maps normalised images to a list of features, such as `AlexNet(pooled=True)`.
        num_classes: Number of foreground classes.
        proposer: What proposes boxes; see `ExternalProposals`. Default: a fast selective search.
        crop_size: Side in pixels that boxes are warped to.
        context: Pixels on each side of these that show what is around the box.
        head_units: Outputs of fc6 and fc7.
        head_dropout: Share of these that training drops.
        regions_per_step: Boxes that a step of fine-tuning sees, of all its images together.
        foreground_share: Most of them that are foreground, as a share.
        foreground_iou: IoU from which fine-tuning counts a box as the object it overlaps most; below, as background.
        regions_at_once: Boxes that go through the network together where all of an image do; it bounds memory.
        svm_negative_iou: IoU with all objects of a class under which a box is a negative of its machine.
        svm_cost: C of the machines; see `fit_linear_svm`.
        regression_iou: IoU from which a box is an example of its object's regressor.
        regression_penalty: Of the ridge regressions.
        score_threshold: Detections must score more than this.
        iou_threshold: Overlap at which NMS drops the lower-scored box of one class.
        max_detections: D, the number of detections of each image.
        **kwargs: As in `VisionModel`.

    `model({"images", "proposals"})` gives `proposals` (B, P, 4), `logits` (B, P, 1 + num_classes), background first,
    `margins` and `scores` (B, P, num_classes) and `class_deltas` (B, P, num_classes, 4); in training, `proposals` and
    `pixels`. Scores are the sigmoids of the margins, or the softmax as long as no machines were solved for.
    """

    loss_names = ("classification",)
    learns_after_epochs = True
    default_recipe = Recipe(
        optimizer="sgd",
        learning_rate=1e-3,
        batch_size=2,
        weight_decay=5e-4,
        warmup_steps=0,
        decay="step",
        milestones=(0.4, 0.8),
        epochs=20,
        source="section 2.3: a hundredth of pre-training's rate; 50,000 steps of the authors' code, down every 20,000",
    )

    def __init__(
        self,
        backbone,
        num_classes,
        *,
        proposer=None,
        crop_size=227,
        context=16,
        head_units=(4096, 4096),
        head_dropout=0.5,
        regions_per_step=128,
        foreground_share=0.25,
        foreground_iou=0.5,
        regions_at_once=64,
        svm_negative_iou=0.3,
        svm_cost=1e-3,
        regression_iou=0.6,
        regression_penalty=1000.0,
        score_threshold=0.05,
        iou_threshold=0.3,
        max_detections=100,
        name="rcnn",
        **kwargs,
    ):
        super().__init__(num_classes, name=name, **kwargs)
        self.use_proposer(proposer)
        self.backbone = backbone
        self.crop_size = crop_size
        self.context = context
        self.regions_per_step = regions_per_step
        self.foreground_share = foreground_share
        self.foreground_iou = foreground_iou
        self.regions_at_once = regions_at_once
        self.svm_negative_iou = svm_negative_iou
        self.svm_cost = svm_cost
        self.regression_iou = regression_iou
        self.regression_penalty = regression_penalty
        self.score_threshold = score_threshold
        self.box_head = BoxHead(head_units, dropout=head_dropout, name="box_head", dtype=self.dtype_policy)
        self.classifier = keras.layers.Dense(
            num_classes + 1,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            name="classifier",
            dtype=self.dtype_policy,
        )
        self.region_classifiers = RegionClassifiers(num_classes, name="region_classifiers", dtype=self.dtype_policy)
        self.suppression = NonMaxSuppression(iou_threshold, max_detections, name="suppression", dtype=self.dtype_policy)
        self.seed_generator = keras.random.SeedGenerator()
        # Past Keras's tracking: it holds this model, not the other way round.
        object.__setattr__(self, "_featurise", compiled(self.region_features, self))
        self.build()

    def build(self, input_shape=None):
        """Create the weights of what follows the backbone."""
        if self.built:
            return
        crop = keras.KerasTensor((1, self.crop_size, self.crop_size, 3))
        _, rows, columns, channels = self.backbone(crop)[-1].shape
        self.box_head.build((None, None, rows, columns, channels))
        width = self.box_head.units[-1]
        self.classifier.build((None, width))
        self.region_classifiers.build([(None, width), (None, rows * columns * channels)])
        pass_on_frozen(self)

    def region_features(self, pixels, sizes_hw, indices, regions, training=None):
        """Warp boxes and run them through the network.

        Args:
            pixels: (B, H, W, 3) normalised, as `prepare` returns them.
            sizes_hw: (B, 2) valid regions, or ``None``.
            indices: (N,) int32: the image of each box.
            regions: (N, 4) `xyxy` pixels.
            training: Whether layers behave as in training.

        Returns:
            fc7's features (N, F) and the pooled ones (N, G), flattened.
        """
        crops = warp_boxes(pixels, indices, regions, size=self.crop_size, context=self.context, sizes_hw=sizes_hw)
        pooled = self.backbone(ops.cast(crops, self.compute_dtype), training=training)[-1]  # (N, h, w, C)
        features = self.box_head(ops.expand_dims(pooled, 0), training=training)[0]  # (N, F)
        width = self.region_classifiers.pooled_width
        return features, ops.reshape(pooled, (-1, width))

    def call(self, inputs, training=None):
        """Classify all proposals; in training, leave it to the losses, which choose some by the targets."""
        pixels, proposals = self.prepare(inputs), ops.cast(inputs["proposals"], "float32")
        if training:
            return {"proposals": proposals, "pixels": pixels}
        sizes_hw = split_inputs(inputs)[1]
        batch, count = ops.shape(proposals)[:2]
        regions = ops.reshape(proposals, (-1, 4))  # (B P, 4)
        indices = ops.repeat(ops.arange(batch, dtype="int32"), count)  # (B P,)

        def classified(part):
            features, pooled = self.region_features(pixels, sizes_hw, *part)
            margins, deltas = self.region_classifiers([features, pooled])
            return ops.cast(self.classifier(features), "float32"), margins, deltas

        if in_symbolic_scope():  # shapes alone are asked for, or what it all costs
            outputs = classified((indices, regions))
        else:
            outputs = self._by_parts(classified, indices, regions)
        logits, margins, deltas = outputs
        logits = ops.reshape(logits, (batch, count, 1 + self.num_classes))
        margins = ops.reshape(margins, (batch, count, self.num_classes))
        # Chosen here and not in `decode`, where JAX has no variables at hand.
        is_fitted = self.region_classifiers.is_fitted
        scores = ops.where(is_fitted, ops.sigmoid(margins), ops.softmax(logits, axis=-1)[..., 1:])
        return {
            "proposals": proposals,
            "logits": logits,
            "margins": margins,
            "scores": scores,
            "class_deltas": ops.reshape(deltas, (batch, count, self.num_classes, 4)),
        }

    def _by_parts(self, function, indices, regions):
        """Apply a function of indices (N,) and regions (N, 4) to `regions_at_once` at a time; join the results."""
        size = self.regions_at_once
        total = ops.shape(regions)[0]
        missing = -total % size
        indices = ops.reshape(ops.pad(indices, ((0, missing),)), (-1, size))  # (K, S)
        regions = ops.reshape(ops.pad(regions, ((0, missing), (0, 0))), (-1, size, 4))  # (K, S, 4)
        outputs = ops.map(function, (indices, regions))
        return [ops.reshape(part, (-1, part.shape[-1]))[:total] for part in outputs]

    def losses_from_outputs(self, outputs, inputs, targets):
        """Return the cross-entropy of boxes as classes or background.

        In training it is the mean over a sample of all boxes of the batch, true ones among them; else what that is
        expected to be, from all proposals: the mean over foreground and that over background, by their shares.
        """
        proposals = outputs["proposals"]
        true_boxes, labels, valid = trained_boxes(targets)
        if "logits" in outputs:
            return self._expected_loss(outputs["logits"], proposals, true_boxes, labels, valid)
        true_or_padding = ops.where(ops.expand_dims(valid, -1), true_boxes, -1.0)
        regions = ops.concatenate([proposals, true_or_padding], axis=1)  # (B, R, 4)
        found, _ = self._assign(regions, true_boxes, labels, valid)  # (B, R)
        count = ops.shape(found)[1]
        everything = ops.reshape(found, (1, -1))  # (1, B R)
        positives, negatives = sample_balanced(
            everything > 0,
            everything == 0,
            size=self.regions_per_step,
            positive_fraction=self.foreground_share,
            seed=self.seed_generator,
        )
        sampled = ops.cast(ops.logical_or(positives, negatives), "int32")
        sampled, chosen = top_rows(sampled, self.regions_per_step)  # (1, N)
        chosen = chosen[0]
        regions = ops.take(ops.reshape(regions, (-1, 4)), chosen, axis=0)  # (N, 4)
        sizes_hw = split_inputs(inputs)[1]
        features, _ = self.region_features(outputs["pixels"], sizes_hw, chosen // count, regions, training=True)
        losses = self._cross_entropy(ops.take(everything[0], chosen), self.classifier(features))  # (N,)
        weights = ops.cast(sampled[0], "float32")
        return {"classification": ops.sum(losses * weights) / ops.maximum(ops.sum(weights), 1)}

    def _expected_loss(self, logits, proposals, true_boxes, labels, valid):
        found, _ = self._assign(proposals, true_boxes, labels, valid)
        losses = self._cross_entropy(found, logits)  # (B, P)
        total = weight = 0.0
        for chosen, share in ((found > 0, self.foreground_share), (found == 0, 1 - self.foreground_share)):
            chosen = ops.cast(chosen, "float32")
            share = share * ops.minimum(ops.sum(chosen), 1)  # none of them: the others count alone
            total += share * ops.sum(losses * chosen) / ops.maximum(ops.sum(chosen), 1)
            weight += share
        return {"classification": total / ops.maximum(weight, 1e-6)}

    def _cross_entropy(self, labels, logits):
        logits = ops.cast(logits, "float32")
        return keras.losses.sparse_categorical_crossentropy(ops.maximum(labels, 0), logits, from_logits=True)

    def _assign(self, regions, true_boxes, labels, valid):
        """Return what each region (B, R, 4) is - 0 background, 1 the first class, -1 padding - and its object."""
        matches = match_by_iou(
            boxes.pairwise_iou(true_boxes, regions),
            valid,
            foreground_iou=self.foreground_iou,
            background_iou=self.foreground_iou,
            force_best=False,
        )  # (B, R)
        matched = ops.maximum(matches, 0)
        found = ops.where(matches == BACKGROUND, 0, take_rows(labels, matched) + 1)
        usable = ops.any(regions != -1, axis=-1)
        return ops.where(usable, found, -1), matched

    def fit(self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **kwargs):
        """Train the model: fine-tune the network as any other, then solve machines and regressors on its features.

        Args:
            x: As in `VisionModel.fit`.
            y: As in `VisionModel.fit`.
            batch_size: As in `VisionModel.fit`.
            epochs: As in `VisionModel.fit`; what is validated after each is the softmax.
            verbose: As in `VisionModel.fit`; not 0: with progress bars.
            callbacks: As in `VisionModel.fit`.
            **kwargs: As in `VisionModel.fit`.
        """
        self.region_classifiers.reset()
        history = super().fit(
            x, y, batch_size=batch_size, epochs=epochs, verbose=verbose, callbacks=callbacks, **kwargs
        )
        self.fit_classifiers(x, y, batch_size, steps=kwargs.get("steps_per_epoch"), verbose=verbose)
        return history

    def fit_classifiers(self, x, y=None, batch_size=None, *, steps=None, verbose: str | int = "auto"):
        """Solve the support vector machines and box regressors on the network's features: the last two stages.

        The data is gone through twice: for objects and what overlaps them well, then for hard negatives.

        Args:
            x: As in `fit`.
            y: As in `fit`.
            batch_size: As in `fit`; default 8.
            steps: Number of batches to draw; default: all.
            verbose: 0 for silence.
        """
        if keras.backend.backend() == "jax":
            self.jax_state_sync()
        x, y = self._checked_data(x, y)
        solver = ClassifierFit(
            self.num_classes,
            cost=self.svm_cost,
            penalty=self.regression_penalty,
            regression_iou=self.regression_iou,
            negative_iou=self.svm_negative_iou,
        )
        if steps is None:
            steps = steps_of(x, batch_size or 8, None)
        bar = keras.utils.Progbar(None if steps is None else 2 * steps, verbose=int(verbose != 0))
        done = 0
        for stage in (solver.add_objects, solver.mine):
            batches, _ = batches_of(x, y, batch_size or 8, steps)
            for inputs, targets in batches:
                inputs = self.complete_inputs(inputs)
                self._visit(stage, inputs, self.checked_targets(targets))
                done += 1
                bar.update(done)
            solver.solve()
        self.region_classifiers.assign(solver)

    def _visit(self, stage, inputs, targets):
        """Hand each image's proposals and objects to a stage, with a function that makes features of boxes."""
        pixels = self.prepare(inputs)
        sizes_hw = split_inputs(inputs)[1]
        if sizes_hw is None:
            sizes_hw = np.tile(np.array(pixels.shape[1:3], np.int32), (pixels.shape[0], 1))
        proposals = ops.convert_to_numpy(inputs["proposals"])
        true_boxes, labels, valid = (ops.convert_to_numpy(part) for part in trained_boxes(targets))
        for image, found in enumerate(proposals):

            def features_of(regions, image=image):
                return self._features_of(pixels[image : image + 1], sizes_hw[image : image + 1], regions)

            usable = valid[image]
            stage(found[(found != -1).any(axis=1)], true_boxes[image][usable], labels[image][usable], features_of)

    def _features_of(self, pixels, sizes_hw, regions):
        """Return NumPy features (N, F) and pooled features (N, G) of boxes (N, 4) on one image (1, H, W, 3)."""
        size = self.regions_at_once
        parts = []
        for first in range(0, len(regions), size):
            part = np.full((size, 4), -1, np.float32)
            kept = regions[first : first + size]
            part[: len(kept)] = kept
            arguments = (pixels, ops.convert_to_tensor(sizes_hw), np.zeros(size, np.int32), part)
            outputs = self._featurise(*(ops.convert_to_tensor(value) for value in arguments))
            parts.append([np.asarray(ops.convert_to_numpy(ops.cast(out, "float32")))[: len(kept)] for out in outputs])
        layer = self.region_classifiers
        if not parts:
            return np.zeros((0, layer.width), np.float32), np.zeros((0, layer.pooled_width), np.float32)
        features, pooled = zip(*parts, strict=True)
        return np.concatenate(features), np.concatenate(pooled)

    def decode(self, raw, inputs):
        """Score every class of every proposal, move its box, and suppress overlaps by class."""
        found = boxes.decode_deltas(raw["class_deltas"], ops.expand_dims(raw["proposals"], 2))  # (B, P, C, 4)
        found, scores, labels = classes_side_by_side(found, raw["scores"])
        found = boxes.clip(found, valid_sizes_hw(inputs))
        usable = ops.all(found[..., 2:] > found[..., :2], axis=-1)  # neither padding nor moved outside
        usable = ops.logical_and(usable, scores > self.score_threshold)
        return self.suppression(found, ops.where(usable, scores, -float("inf")), labels)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "crop_size": self.crop_size,
            "context": self.context,
            "head_units": self.box_head.units,
            "head_dropout": self.box_head.dropout,
            "regions_per_step": self.regions_per_step,
            "foreground_share": self.foreground_share,
            "foreground_iou": self.foreground_iou,
            "regions_at_once": self.regions_at_once,
            "svm_negative_iou": self.svm_negative_iou,
            "svm_cost": self.svm_cost,
            "regression_iou": self.regression_iou,
            "regression_penalty": self.regression_penalty,
            "score_threshold": self.score_threshold,
            "iou_threshold": self.suppression.iou_threshold,
            "max_detections": self.suppression.max_detections,
        }


def rcnn_alexnet(num_classes=20, *, widths=(96, 256, 384, 384, 256), dtype=None, **options):
    """Return R-CNN on AlexNet as in the paper: crops of 227 pixels, pool5 of 6x6 cells, fc6 and fc7 of 4096.

    Args:
        num_classes: Number of foreground classes.
        widths: Channels of the backbone; see `AlexNet`.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `RCNN`.
    """
    backbone = alexnet(widths=widths, pooled=True, dtype=dtype)
    return RCNN(backbone, num_classes, dtype=dtype, **{"name": "rcnn_alexnet", **options})


def rcnn_vgg16(num_classes=20, *, widths=(64, 128, 256, 512, 512), dtype=None, **options):
    """Return R-CNN on VGG-16, the paper's O-Net: crops of 224 pixels, pool5 of 7x7 cells.

    Args:
        num_classes: Number of foreground classes.
        widths: Channels of the backbone; see `VGG`.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `RCNN`.
    """
    backbone = vgg16(widths=widths, pooled=True, ceil_mode=False, dtype=dtype, name="vgg16")
    options = {"crop_size": 224, "name": "rcnn_vgg16", **options}
    return RCNN(backbone, num_classes, dtype=dtype, **options)


def rcnn_vgg8(num_classes=80, *, normalization="batch", dtype=None, **options):
    """Return a small R-CNN that trains on a CPU: a narrow VGG, crops of 64 pixels, 500 proposals.

    Args:
        num_classes: Number of foreground classes.
        normalization: Of the backbone; see `ConvolutionBlock`.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `RCNN`.
    """
    options = {
        "proposer": SelectiveSearch(max_proposals=500),
        "crop_size": 64,
        "context": 4,
        "head_units": (128, 128),
        "head_dropout": 0.25,
        "resize_rule": ResizeRule("letterbox", size_hw=(256, 384)),
        "recipe": SMALL_DETECTOR.replace(batch_size=4, warmup_steps=100),
        "name": "rcnn_vgg8",
        **options,
    }
    return RCNN(vgg8(normalization=normalization, pooled=True, dtype=dtype), num_classes, dtype=dtype, **options)

"""The base of all segmenters: masks, losses of logits by name or object, auxiliary logits, mIoU in `evaluate`."""

import keras
from keras import ops

from kerasvision.losses import DiceLoss
from kerasvision.metrics import SegmentationMetrics
from kerasvision.metrics.class_ids import count_message, errors_deferred
from kerasvision.models import targets as checks
from kerasvision.models.auxiliary import auxiliary_logits
from kerasvision.models.compiled_loss import reads_class_ids, segmentation_loss
from kerasvision.models.vision_model import VisionModel, nan_if


class Segmenter(VisionModel):
    """Base of all semantic segmenters; see `VisionModel` for the arguments.

    - `model(images)` gives logits (B, H, W, C) at the images' own size; with `{"images", "sizes_hw"}` those outside
      an image's valid region mean nothing.
    - `model.fit(dataset)` takes batches of (images or such a dict, masks (B, H, W)), 255 = ignore; without a `loss`
      given to `compile` it minimises the sum of `loss_names`. A third entry, weights of pixels (B, H, W) or of images
      (B,), multiplies cross-entropies, whose means still divide by the number of pixels; Dice it leaves as it is.
    - `model.evaluate(dataset)` gives `mIoU`, `pixel_accuracy` and `dice`.

    A model with auxiliary heads attaches their logits to its own with `attach_auxiliary`, and names the loss
    `auxiliary_cross_entropy`: theirs, times `auxiliary_weight`. A loss given to `compile` is taken of them too, with
    the same weight.
    """

    loss_names = ("cross_entropy", "dice_loss")
    takes_sample_weight = True
    ignore_class = 255
    auxiliary_weight = 0.5

    def __init__(self, num_classes, **kwargs):
        super().__init__(num_classes, **kwargs)
        self._dice = DiceLoss(ignore_class=self.ignore_class, reduction="sum")  # compute_loss divides by the replicas

    def losses_from_outputs(self, outputs, inputs, targets, sample_weight=None):
        """Return the losses of logits (B, H, W, C) against masks (B, H, W): those of `loss_names`."""
        losses = {"cross_entropy": self._cross_entropy(outputs, targets, sample_weight)}
        if "dice_loss" in self.loss_names:
            losses["dice_loss"] = self._dice(targets, ops.cast(outputs, "float32"))
        if "auxiliary_cross_entropy" in self.loss_names:
            auxiliary = [self._cross_entropy(logits, targets, sample_weight) for logits in auxiliary_logits(outputs)]
            losses["auxiliary_cross_entropy"] = self.auxiliary_weight * sum(auxiliary)
        return losses

    def _cross_entropy(self, logits, masks, weights):
        """Return the mean cross-entropy of the pixels that are not ignored, 0 if all are."""
        # The function, not the class of this name: that one drops the last axis of logits of a single class.
        cross_entropy = keras.losses.sparse_categorical_crossentropy(
            masks, ops.cast(logits, "float32"), from_logits=True, ignore_class=self.ignore_class
        )  # (B, H, W)
        if weights is not None:
            weights = ops.cast(weights, "float32")
            cross_entropy *= ops.reshape(weights, (-1, 1, 1)) if len(weights.shape) == 1 else weights
        counted = ops.sum(ops.cast(masks != self.ignore_class, "float32"))
        return ops.sum(cross_entropy) / ops.maximum(counted, 1)

    def checked_targets(self, targets):
        """Return the masks, after a check of their class ids if their values are known.

        Raises:
            ValueError: An id that is neither a class nor ignored.
        """
        if self._takes_class_ids():
            checks.check_masks(targets, self.num_classes, self._ignored_id())
        return targets

    def screen_targets(self, targets):
        """Return masks without ids that are neither a class nor ignored, and the number of those pixels."""
        ignored = self._ignored_id()
        stand_in = 0 if ignored is None else ignored
        return checks.screen_masks(targets, self.num_classes, ignored, stand_in=stand_in)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Return the sum of the named losses, or the compiled loss; NaN if a class id is out of range."""
        if self._compile_loss is None:
            return super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        invalid = 0
        if self._takes_class_ids():
            # Keras's loss would print all class ids in its error on TensorFlow, and read beyond the logits elsewhere.
            y, invalid = self.screen_targets(y)
            self.invalid_targets.update_state(invalid)
        loss = super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        for logits in auxiliary_logits(y_pred):
            loss += self.auxiliary_weight * self._compile_loss(y, logits, sample_weight)
        return loss + nan_if(invalid)

    def _takes_class_ids(self):
        """Return whether the loss, the model's own or a compiled one, reads masks of class ids."""
        return self._compile_loss is None or reads_class_ids(self.loss)

    def _ignored_id(self):
        """Return the class id that the loss ignores."""
        if self._compile_loss is None:
            return self.ignore_class
        return getattr(self.loss, "ignore_class", None)

    def compile(self, optimizer=None, loss=None, *, metrics=None, **kwargs):
        """Prepare the model for training; see `VisionModel.compile`.

        Args:
            optimizer: As in `VisionModel.compile`.
            loss: A loss of integer masks and logits: a name such as ``"dice"`` or ``"cross_entropy + 0.5 * dice"``
                (see `kerasvision.losses.get`), an object or a function; default: the sum of `loss_names`.
            metrics: Keras metrics; default: mIoU, pixel accuracy and Dice.
            **kwargs: As in `keras.Model.compile`.
        """
        if metrics is None:
            metrics = [SegmentationMetrics(self.num_classes, ignore_class=self.ignore_class)]
        super().compile(optimizer=optimizer, loss=segmentation_loss(loss, self.ignore_class), metrics=metrics, **kwargs)

    def evaluate(self, x=None, y=None, batch_size=None, verbose: str | int = "auto", **kwargs):
        """Return losses and metrics: `keras.Model.evaluate`, with the default metrics if the model is not compiled.

        Raises:
            ValueError: Masks hold class ids that are neither a class nor ignored.
        """
        if not self.compiled:
            self.compile()
        if y is not None:
            y = self.checked_targets(y)
        results = super().evaluate(x, y, batch_size=batch_size, verbose=verbose, **kwargs)
        for metric in keras.tree.flatten([getattr(part, "metrics", part) for part in self.metrics]):
            count = int(ops.convert_to_numpy(getattr(metric, "out_of_range", 0)))
            if count:
                raise ValueError(count_message(metric.name, count, metric.num_classes))
        return results

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Update the metrics; class ids out of range, of which `fit` and `evaluate` tell, are no error in a step."""
        with errors_deferred():
            return super().compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def get_metrics_result(self):
        """Return all metrics by name, those of `SegmentationMetrics` each on its own."""
        results = {}
        with errors_deferred():
            found = super().get_metrics_result()
        for name, value in found.items():
            results.update(value if isinstance(value, dict) else {name: value})
        return results

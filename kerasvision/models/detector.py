"""The base of all detectors: targets of boxes, decoding in `predict`, average precision in `evaluate`."""

import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasvision.metrics import CocoAP
from kerasvision.models import targets as checks
from kerasvision.models.batches import batches_of
from kerasvision.models.vision_model import VisionModel


class Detector(VisionModel):
    """Base of all detectors; see `VisionModel` for the arguments.

    - `model(inputs)` gives raw outputs, `model.decode(raw, inputs)` the detections.
    - `model.predict(images)` gives `boxes` (B, D, 4), `scores` (B, D), `labels` (B, D) and `num_detections`
      (B,), best first, padded with -1, in pixels of `images`.
    - `model.fit(dataset)` takes batches of (images, {"boxes": (B, M, 4), "labels": (B, M)}), padded with label -1, or
      ragged as `pad_targets` takes them; `"ignored"` (B, M) bool marks boxes that are neither trained on nor scored.
    """

    def checked_targets(self, targets):
        """Return targets padded, and checked as far as their values are known.

        Raises:
            ValueError: Shapes that do not belong together, or a label that is not below `num_classes`.
        """
        targets = checks.pad_targets(targets)
        checks.check_boxes(targets, self.num_classes)
        return targets

    def screen_targets(self, targets):
        """Return targets without labels that are not below `num_classes`, and the number of those."""
        return checks.screen_boxes(targets, self.num_classes)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Return the sum of the named losses."""
        if keras.backend.backend() != "torch":  # which compiles nothing, so that every step may have its own shapes
            checks.refuse_lists(y)
        y = keras.tree.map_structure(ops.convert_to_tensor, checks.pad_targets(y))
        return super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)

    def _checked_data(self, x, y=None):
        if keras.backend.backend() == "tensorflow" and isinstance(x, keras.utils.PyDataset):
            # TensorFlow would stumble over lists before a step could; this package's pipelines have none.
            checks.refuse_lists(None if hasattr(x, "batches") else keras.utils.unpack_x_y_sample_weight(x[0])[1])
        return super()._checked_data(checks.pad_batches(x), y)

    def decode(self, raw, inputs):
        """Turn raw outputs into detections.

        Args:
            raw: What `model(inputs)` returned.
            inputs: What it was called with.

        Returns:
            dict of `boxes` (B, D, 4) `xyxy` pixels, `scores` (B, D), `labels` (B, D) and `num_detections` (B,).
        """
        raise NotImplementedError

    def predict_step(self, *args):
        """Predict one batch and decode it, on any backend: JAX passes and returns a state besides the data."""
        inputs, _, _ = keras.utils.unpack_x_y_sample_weight(args[-1])
        result = super().predict_step(*args)
        if keras.backend.backend() == "jax":
            raw, state = result
            return self.decode(raw, inputs), state
        return self.decode(result, inputs)

    def compile(self, optimizer=None, loss=None, *, metrics=None, **kwargs):
        """Prepare the model for training; see `VisionModel.compile`.

        Args:
            optimizer: As in `VisionModel.compile`.
            loss: Must be left out: a detector's losses belong to its target assignment.
            metrics: Objects with `add(detections, targets)`, `result()` and `reset()`, such as `CocoAP`, used by
                `evaluate`; default: `CocoAP`.
            **kwargs: As in `keras.Model.compile`.
        """
        if loss is not None:
            raise ValueError(
                f"`loss` {loss!r} cannot replace the losses of {type(self).__name__}; leave it out, "
                "or override `losses_from_outputs`"
            )
        self.evaluation_metrics = [CocoAP()] if metrics is None else list(metrics)
        for metric in self.evaluation_metrics:
            if not all(hasattr(metric, method) for method in ("add", "result", "reset")):
                raise ValueError(
                    f"`metrics` holds {metric!r}; a detector's metrics need add(detections, targets), result() and "
                    "reset(), as kerasvision.metrics.CocoAP has"
                )
        super().compile(optimizer=optimizer, **kwargs)

    def get_compile_config(self):
        """Return what `compile_from_config` needs, with the metrics of `evaluate` that have a `get_config`."""
        config = super().get_compile_config()
        if not config:
            return config
        metrics = []
        for metric in self.evaluation_metrics:
            if hasattr(metric, "get_config"):
                metrics.append(keras.saving.serialize_keras_object(metric))
            else:
                warnings.warn(
                    f"the metric {metric!r} has no get_config() and is not saved: a loaded model evaluates without it",
                    stacklevel=2,
                )
        return {**config, "metrics": metrics}

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose: str | int = "auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
        **kwargs,
    ) -> dict | list:
        """Return the mean losses and average precision over a data set, in one pass.

        Args:
            x: Batches of (images, targets): a pipeline, tf.data.Dataset, PyDataset or iterable; or images, with `y`.
            y: Targets, if `x` holds images.
            batch_size: Images a step, if `x` holds images; default 8.
            verbose: 0 for silence.
            sample_weight: Must be ``None``.
            steps: Number of batches to draw; default: all.
            callbacks: Keras callbacks.
            return_dict: Return a dict instead of a list of its values.
            **kwargs: What `fit` passes on.

        Returns:
            `loss`, each named loss, and what the metrics report: `AP`, `AP50`, `AP75` ...
        """
        if sample_weight is not None:
            raise ValueError("`sample_weight` is not used by detectors; leave it out")
        if not self.compiled:
            self.compile()
        if getattr(self, "_evaluator", None) is None:
            # Set past Keras's tracking: the evaluator holds this model, not the other way round.
            object.__setattr__(self, "_evaluator", _Evaluator(self))
        for metric in self.evaluation_metrics:
            metric.reset()
        if y is not None:
            y = self.checked_targets(y)
        batches, count = batches_of(x, y, batch_size or 8, steps)
        bar = keras.utils.Progbar(count, verbose=0 if verbose in (0, "auto") and kwargs else int(verbose != 0))
        calls: Any = callbacks  # inside fit, the list that fit made
        if not isinstance(calls, keras.callbacks.CallbackList):
            calls = keras.callbacks.CallbackList(callbacks, model=self, verbose=0, steps=count)
        calls.on_test_begin()
        sums, images_seen = dict.fromkeys(self.loss_names, 0.0), 0
        for step, (inputs, targets) in enumerate(batches):
            calls.on_test_batch_begin(step)
            targets = self.checked_targets(targets)
            outputs = self._evaluator.predict_on_batch({"inputs": inputs, "targets": targets})
            size = len(outputs["detections"]["boxes"])
            images_seen += size
            for name in sums:
                sums[name] += size * float(outputs["losses"][name])
            host_targets = {name: np.asarray(ops.convert_to_numpy(value)) for name, value in targets.items()}
            for metric in self.evaluation_metrics:
                metric.add(outputs["detections"], host_targets)
            bar.update(step + 1)
            calls.on_test_batch_end(step)
        if not images_seen:
            raise ValueError("`x` gave no batch to evaluate; check the data set's split and size")
        means = {name: total / images_seen for name, total in sums.items()}
        logs = {"loss": sum(means.values()), **means}
        for metric in self.evaluation_metrics:
            logs.update(metric.result())
        calls.on_test_end(logs)
        return logs if return_dict else list(logs.values())


class _Evaluator(keras.Model):
    """Losses and detections of one batch from one forward pass; compiled by Keras as any `predict` is."""

    def __init__(self, detector):
        super().__init__(name="evaluator")
        self.detector = detector
        self.built = True

    def call(self, batch):
        inputs, targets = batch["inputs"], batch["targets"]
        raw = self.detector(inputs, training=False)
        return {
            "losses": self.detector.losses_from_outputs(raw, inputs, self.detector.screen_targets(targets)[0]),
            "detections": self.detector.decode(raw, inputs),
        }


def classes_side_by_side(boxes, scores):
    """Return a box of each class of each region as detections of their own.

    Args:
        boxes: (B, N, C, 4).
        scores: (B, N, C).

    Returns:
        boxes (B, N C, 4), scores (B, N C) and labels (B, N C) int32, the classes of a region side by side.
    """
    batch, count, classes = ops.shape(scores)
    total = count * classes
    labels = ops.broadcast_to(ops.arange(classes, dtype="int32"), (batch, count, classes))
    return (
        ops.reshape(boxes, (batch, total, 4)),
        ops.reshape(scores, (batch, total)),
        ops.reshape(labels, (batch, total)),
    )

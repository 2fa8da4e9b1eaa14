"""The last layer of a detector."""

import keras
from keras import ops

from kerasvision.ops.arguments import plain_number
from kerasvision.ops.nms import Method, check_arguments, non_max_suppression
from kerasvision.ops.rows import take_rows


@keras.saving.register_keras_serializable("kerasvision")
class NonMaxSuppression(keras.layers.Layer):
    """Keep the best of overlapping detections, class by class, in arrays of static size.

    Args:
        iou_threshold: Overlap above which the lower-scored of two boxes of one class is dropped, in [0, 1].
        max_detections: D, the number of detections returned for each image.
        per_class: Whether boxes of different classes leave each other alone.
        method: ``"greedy"``, ``"soft_linear"``, ``"soft_gaussian"``, ``"fast"``, ``"matrix_linear"`` or
            ``"matrix_gaussian"``: see `kerasvision.ops.nms.non_max_suppression`, which also says how the next
            arguments and boxes or scores that are not finite are taken.
        sigma: Width of the Gaussian decays.
        score_threshold: Detections must score more than this, also after a decay; ``None`` for no threshold.
        max_candidates: Only so many boxes of the highest scores take part; ``None`` for the method's default.
        exportable: Plain Keras operations only, so that a TensorFlow model exports to ONNX and LiteRT.

    Call: boxes (B, N, 4) `xyxy`, scores (B, N) with -inf for candidates that do not count, labels (B, N);
    returns a dict of `boxes` (B, D, 4), `scores` (B, D) float32, `labels` (B, D) int32, sorted by score and padded
    with -1, and `num_detections` (B,) int32.

    Raises:
        ValueError: An unknown method, or a number outside its range.
    """

    def __init__(
        self,
        iou_threshold=0.5,
        max_detections=100,
        *,
        per_class=True,
        method: Method = "greedy",
        sigma=0.5,
        score_threshold=None,
        max_candidates=None,
        exportable=False,
        **kwargs,
    ):
        # Half precision cannot hold pixel coordinates: bfloat16 has no 1001. Inputs keep their dtype.
        super().__init__(autocast=False, **kwargs)
        self.max_detections, self.max_candidates = check_arguments(
            method, iou_threshold, max_detections, sigma, max_candidates
        )
        self.iou_threshold = plain_number(iou_threshold)
        self.per_class = per_class
        self.method: Method = method
        self.sigma = plain_number(sigma)
        self.score_threshold = plain_number(score_threshold)
        self.exportable = exportable

    def call(self, boxes, scores, labels):
        """Select the detections to keep."""
        if boxes.shape[1] in (0, None):  # indices need something to point at; an unknown number may be none
            boxes, scores, labels = (
                ops.pad(values, ((0, 0), (0, 1), *((0, 0),) * (len(values.shape) - 2)), constant_values=filler)
                for values, filler in ((boxes, 0), (scores, -float("inf")), (labels, 0))
            )
        indices, valid, scores = non_max_suppression(
            boxes,
            scores,
            labels if self.per_class else None,
            iou_threshold=self.iou_threshold,
            max_detections=self.max_detections,
            score_threshold=self.score_threshold,
            method=self.method,
            sigma=self.sigma,
            max_candidates=self.max_candidates,
            exportable=self.exportable,
        )
        return {
            "boxes": ops.where(ops.expand_dims(valid, -1), take_rows(boxes, indices), -1.0),  # (B, D, 4)
            "scores": ops.where(valid, scores, -1.0),
            "labels": ops.where(valid, take_rows(ops.cast(labels, "int32"), indices), -1),
            "num_detections": ops.sum(ops.cast(valid, "int32"), axis=1),
        }

    def compute_output_shape(self, boxes_shape, scores_shape=None, labels_shape=None):
        """Return the shapes of the four outputs."""
        batch, count = boxes_shape[0], self.max_detections
        return {
            "boxes": (batch, count, 4),
            "scores": (batch, count),
            "labels": (batch, count),
            "num_detections": (batch,),
        }

    def compute_output_spec(self, boxes, scores, labels):
        """Return the shapes and types of the four outputs."""
        dtypes = {"boxes": boxes.dtype, "scores": "float32"}
        return {
            name: keras.KerasTensor(shape, dtypes.get(name, "int32"))
            for name, shape in self.compute_output_shape(boxes.shape).items()
        }

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "iou_threshold": self.iou_threshold,
            "max_detections": self.max_detections,
            "per_class": self.per_class,
            "method": self.method,
            "sigma": self.sigma,
            "score_threshold": self.score_threshold,
            "max_candidates": self.max_candidates,
            "exportable": self.exportable,
        }

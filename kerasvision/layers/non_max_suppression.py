"""The last layer of a detector."""

import keras
from keras import ops

from kerasvision.ops.nms import non_max_suppression
from kerasvision.ops.rows import take_rows


@keras.saving.register_keras_serializable("kerasvision")
class NonMaxSuppression(keras.layers.Layer):
    """Keep the best of overlapping detections, class by class, in arrays of static size.

    Args:
        iou_threshold: Overlap above which the lower-scored of two boxes of one class is dropped.
        max_detections: D, the number of detections returned for each image.
        per_class: Whether boxes of different classes leave each other alone.

    Call: boxes (B, N, 4) `xyxy`, scores (B, N) with -inf for candidates that do not count, labels (B, N);
    returns a dict of `boxes` (B, D, 4), `scores` (B, D), `labels` (B, D) int32, sorted by score and padded
    with -1, and `num_detections` (B,) int32.
    """

    def __init__(self, iou_threshold=0.5, max_detections=100, *, per_class=True, **kwargs):
        # Half precision cannot hold pixel coordinates: bfloat16 has no 1001. Inputs keep their dtype.
        super().__init__(autocast=False, **kwargs)
        self.iou_threshold = iou_threshold
        self.max_detections = max_detections
        self.per_class = per_class

    def call(self, boxes, scores, labels):
        """Select the detections to keep."""
        if boxes.shape[1] == 0:  # indices need something to point at
            boxes, scores, labels = (
                ops.pad(values, ((0, 0), (0, 1), *((0, 0),) * (len(values.shape) - 2)), constant_values=filler)
                for values, filler in ((boxes, 0), (scores, -float("inf")), (labels, 0))
            )
        indices, valid = non_max_suppression(
            boxes,
            scores,
            labels if self.per_class else None,
            iou_threshold=self.iou_threshold,
            max_detections=self.max_detections,
        )

        def keep(values):
            return ops.where(valid, take_rows(values, indices), -1)  # (B, D)

        kept_boxes = take_rows(boxes, indices)  # (B, D, 4)
        return {
            "boxes": ops.where(ops.expand_dims(valid, -1), kept_boxes, -1.0),
            "scores": keep(scores),
            "labels": keep(ops.cast(labels, "int32")),
            "num_detections": ops.sum(ops.cast(valid, "int32"), axis=1),
        }

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "iou_threshold": self.iou_threshold,
            "max_detections": self.max_detections,
            "per_class": self.per_class,
        }

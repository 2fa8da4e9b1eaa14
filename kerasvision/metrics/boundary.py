"""Boundary F1: how well the contours of a segmentation agree, within a tolerance."""

import keras
import numpy as np
from keras import ops

from kerasvision.metrics.class_ids import check_arrays, check_none_counted
from kerasvision.metrics.pixels import PixelMetric
from kerasvision.ops.boundaries import class_boundaries
from kerasvision.ops.compilers import compiled_once
from kerasvision.ops.rows import count_ids

# A distance below this much less than 1 of the limit is reached: float32 must not decide ties, which are common, as
# 0.0075 of the diagonal of 640 x 480 pixels is 6 exactly. Squared distances are whole numbers, so nothing else moves.
_SLACK = 1e-6


def boundary_f1(truth, predictions, num_classes, *, ignore_class: int | None = 255, tolerance=0.0075):
    """Return the boundary F1 of each class in one image.

    A pixel is on the boundary of its class if one of its four neighbours has another class; the image's edge is no
    boundary, nor is the edge of the ignored pixels, which are left out of truth and predictions alike (masks that
    draw all contours as void, as VOC's do, therefore have few boundaries left). Precision is the part of the predicted
    boundary pixels nearer than the tolerance to a true one of the same class, recall the part of the true ones nearer
    than that to a predicted one, F1 their harmonic mean.

    Args:
        truth: (H, W) integer numpy array: 0 to num_classes - 1, or `ignore_class`.
        predictions: (H, W) integers, 0 to num_classes - 1 where the truth is not ignored.
        num_classes: C.
        ignore_class: Value of pixels that do not count; ``None`` if there is none.
        tolerance: Distance, as a part of the image's diagonal, that a boundary pixel must be below to be right. Where
            it comes to 1 pixel or less, as in images of diagonal 133 or less, only equal pixels are right.

    Returns:
        float64 (C,) in [0, 1]: 0 if only one side has a boundary of the class, NaN if neither has.

    Raises:
        ValueError: Another value occurs, the arrays are not images of one shape, or `tolerance` is not positive.

    Reference:
        Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013, section 3.
    """
    truth, predictions = np.asarray(truth), np.asarray(predictions)
    _check_tolerance(tolerance)
    if truth.ndim != 2 or truth.shape != predictions.shape:
        raise ValueError(
            f"`truth` of shape {truth.shape} and `predictions` of shape {predictions.shape} must be images (H, W) of "
            "one shape; call it once an image"
        )
    counted = np.ones(truth.shape, bool) if ignore_class is None else truth != ignore_class
    check_arrays(truth[counted], predictions[counted], num_classes, ignore_class)
    classes = (part.astype(np.int64) for part in (truth, predictions))
    true, found = (np.where(class_boundaries(part, counted), part, -1) for part in classes)
    limit = tolerance**2 * (truth.shape[0] ** 2 + truth.shape[1] ** 2) * (1 - _SLACK)
    figures = np.full(num_classes, np.nan)
    for label in np.union1d(true[true >= 0], found[found >= 0]):
        precision, recall = _near(found == label, true == label, limit), _near(true == label, found == label, limit)
        figures[label] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return figures


def _near(pixels, others, limit):
    """Return the part of pixels (H, W) bool whose squared distance to one of the others is below a limit."""
    from scipy import ndimage

    if not pixels.any() or not others.any():
        return 0.0
    rows, columns = ndimage.distance_transform_edt(~others, return_distances=False, return_indices=True)
    here = np.nonzero(pixels)
    squares = (rows[here] - here[0]) ** 2 + (columns[here] - here[1]) ** 2
    return float(np.mean(squares < limit))


@keras.saving.register_keras_serializable("kerasvision")
class BoundaryF1(PixelMetric):
    """Mean boundary F1 of integer masks and logits; see `boundary_f1` for its definition.

    An image's figure is the mean over the classes that have a boundary in its truth or its predictions, the result the
    mean over the images that have such a class; NaN if there is none. Mask values that are neither a class nor
    `ignore_class` are errors, and logits that hold NaN make it NaN, both as in `SegmentationMetrics`; `out_of_range`
    and `undefined` count them.

    Runs in the graph, so that it can be compiled. Work grows with the square of the tolerance in pixels, not with the
    number of classes: 121 offsets of whole masks for 512 x 512 pixels.

    Args:
        num_classes: C, the number of classes.
        ignore_class: Mask value of pixels that do not count.
        tolerance: Distance that a boundary pixel must be below to be right, as a part of the image's diagonal.
        name: The metric's name.

    Raises:
        ValueError: `tolerance` is not positive.
    """

    def __init__(self, num_classes, *, ignore_class: int | None = 255, tolerance=0.0075, name="boundary_F1", **kwargs):
        super().__init__(num_classes, ignore_class=ignore_class, name=name, **kwargs)
        _check_tolerance(tolerance)
        self.tolerance = tolerance
        self.total = self.add_variable(shape=(), initializer="zeros", dtype="float32", name="total")
        self.images = self.add_variable(shape=(), initializer="zeros", dtype="int32", name="images")
        self.class_totals = self.add_variable(
            shape=(num_classes,), initializer="zeros", dtype="float32", name="class_totals"
        )
        self.class_images = self.add_variable(
            shape=(num_classes,), initializer="zeros", dtype="int32", name="class_images"
        )

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add a batch of masks (B, H, W) and logits (B, H, W, C); pixels of sample weight 0 are ignored.

        Args:
            y_true: (B, H, W) or (B, H, W, 1) integer masks.
            y_pred: (B, H, W, C) logits or probabilities.
            sample_weight: (B, H, W), or with fewer axes: (B,) weighs whole images.

        Raises:
            ValueError: `y_pred` is not (B, H, W, C) with C of `num_classes`, or, outside of graphs, a pixel that
                counts is of no class. Nothing of the batch is counted then.
        """
        if len(y_pred.shape) != 4:
            raise ValueError(f"`y_pred` has shape {tuple(y_pred.shape)}, expected (B, H, W, {self.num_classes})")
        pixels = self.take_pixels(y_true, y_pred, sample_weight)
        shape = ops.shape(y_pred)[:-1]
        masks = [ops.reshape(part, shape) for part in pixels]  # (B, H, W)
        measure = compiled_once(figures_of_images, 2)
        figures, occurs = measure(*masks, self.num_classes, self.tolerance)  # (B, C), (B, C)
        classes = ops.sum(occurs, axis=1)  # (B,)
        self.total.assign(self.total + ops.sum(ops.sum(figures, axis=1) / ops.maximum(classes, 1)))
        self.images.assign(self.images + ops.sum(ops.cast(classes > 0, "int32")))
        self.class_totals.assign(self.class_totals + ops.sum(figures, axis=0))
        self.class_images.assign(self.class_images + ops.cast(ops.sum(occurs, axis=0), "int32"))

    def result(self):
        """Return the mean over the images, a float32 scalar.

        Raises:
            ValueError: A graph counted class ids out of range, and this is called outside of it.
        """
        images = ops.convert_to_tensor(self.images)
        undefined = ops.logical_or(self.spoiled(), images == 0)
        mean = self.total / ops.cast(ops.maximum(images, 1), "float32")
        return ops.where(undefined, float("nan"), mean)

    def per_class(self):
        """Return each class's mean over the images in which it has a boundary: (C,) numpy array, NaN if in none.

        Raises:
            ValueError: A graph counted class ids out of range.
        """
        check_none_counted(self)
        totals, images = (ops.convert_to_numpy(part) for part in (self.class_totals, self.class_images))
        figures = np.full(self.num_classes, np.nan)
        if int(ops.convert_to_numpy(self.undefined)):
            return figures
        return np.divide(totals, images, out=figures, where=images > 0)

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "tolerance": self.tolerance}


def figures_of_images(truth, predictions, counted, num_classes, tolerance):
    """Return the boundary F1 (B, C) of each image and class, 0 where there is no boundary, and 1 where there is one.

    Args:
        truth: (B, H, W) int32 class ids.
        predictions: (B, H, W) int32 class ids.
        counted: (B, H, W) bool, False for ignored pixels, whose ids may be anything.
        num_classes: C.
        tolerance: See `boundary_f1`.
    """
    true, found = _boundary(truth, counted), _boundary(predictions, counted)  # (B, H, W)
    true_near, found_near = _matches(true, found, tolerance)
    sizes = [_count(boundary, boundary >= 0, num_classes) for boundary in (true, found)]  # (B, C)
    pairs = ((true, true_near), (found, found_near))
    right = [_count(boundary, near, num_classes) for boundary, near in pairs]  # (B, C)
    recall, precision = (part / ops.maximum(whole, 1) for part, whole in zip(right, sizes, strict=True))
    figures = 2 * precision * recall / ops.maximum(precision + recall, 1e-12)  # (B, C), 0 if both are
    return figures, ops.cast(sizes[0] + sizes[1] > 0, "float32")


def _count(boundary, selected, num_classes):
    """Return the number (B, C) of selected pixels (B, H, W) by image and class, float32."""
    images = ops.shape(boundary)[0]
    cells = ops.reshape(ops.arange(images, dtype="int32"), (-1, 1, 1)) * num_classes + boundary
    cells = ops.where(selected, cells, images * num_classes)  # the others go to one cell behind
    counts = count_ids(ops.reshape(cells, (-1,)), images * num_classes + 1)[:-1]
    return ops.cast(ops.reshape(counts, (images, num_classes)), "float32")


def _boundary(classes, counted):
    """Return the class (B, H, W) of boundary pixels, -1 elsewhere."""
    return ops.where(class_boundaries(classes, counted), classes, -1)


def _matches(true, found, tolerance):
    """Return which pixels (B, H, W) of two boundaries have one of their class in the other nearer than the tolerance.

    Looks at one offset after the other: memory of a few masks, whatever the number of classes.
    """
    height, width = ops.shape(true)[1], ops.shape(true)[2]
    rows, columns = ops.arange(height, dtype="int32"), ops.arange(width, dtype="int32")
    square = ops.cast(ops.convert_to_tensor(height * height + width * width), "float32")
    limit = tolerance**2 * (1 - _SLACK) * square
    radius = ops.cast(ops.floor(ops.sqrt(limit)), "int32")
    side = 2 * radius + 1

    def shifted(boundary, down, right):
        """Return the boundary's value at an offset from each pixel, -1 beyond the image."""
        inside = ops.logical_and(rows + down >= 0, rows + down < height)[:, None]
        inside = ops.logical_and(inside, ops.logical_and(columns + right >= 0, columns + right < width)[None])  # (H, W)
        return ops.where(inside, _rolled(boundary, -down, -right), -1)

    def step(index, true_near, found_near):
        down, right = index // side - radius, index % side - radius
        near_enough = ops.cast(down * down + right * right, "float32") < limit
        same = ops.logical_and(true == shifted(found, down, right), true >= 0)
        true_near = ops.logical_or(true_near, ops.logical_and(same, near_enough))
        same = ops.logical_and(found == shifted(true, down, right), found >= 0)
        return index + 1, true_near, ops.logical_or(found_near, ops.logical_and(same, near_enough))

    start = (ops.zeros((), "int32"), ops.zeros_like(true, dtype="bool"), ops.zeros_like(true, dtype="bool"))
    _, true_near, found_near = ops.while_loop(lambda index, *_: index < side * side, step, start)
    return true_near, found_near


def _rolled(images, down, right):
    """Return images (B, H, W) rolled by numbers of rows and columns that may be tensors."""
    if keras.backend.backend() == "torch":
        down, right = int(down), int(right)
    return ops.roll(ops.roll(images, down, axis=1), right, axis=2)


def _check_tolerance(tolerance):
    if not tolerance > 0:
        raise ValueError(f"`tolerance` is {tolerance}, expected a part of the diagonal above 0, such as 0.0075")

"""DETR's set loss: each true box is paired with one prediction, and the other predictions learn "no object"."""

import keras
from keras import ops

from kerasvision.losses.inputs import WideLoss, check_choice, check_not_negative, one_hot
from kerasvision.ops import boxes
from kerasvision.ops.hungarian import SOLVERS, assign
from kerasvision.ops.labels import whole_labels
from kerasvision.ops.rows import take_rows

TERMS = ("classification", "l1", "giou")

# Larger than any class: negative labels are padding.
_NO_CLASS = 2**31 - 1


def matching_cost(labels, true_boxes, logits, predicted_boxes, *, class_cost=1.0, l1_cost=5.0, giou_cost=2.0):
    """Return what pairing each prediction with each true box costs (Carion et al. 2020, equation 1).

    Args:
        labels: (B, M) class indices; negative for padding, whose costs mean nothing; NaN for those of C and above
            and those that are no whole numbers.
        true_boxes: (B, M, 4) `rel_cxcywh`.
        logits: (B, Q, C + 1), of which the last is "no object".
        predicted_boxes: (B, Q, 4) `rel_cxcywh`.
        class_cost: Factor of minus the probability of the true class.
        l1_cost: Factor of the sum of the absolute coordinate differences.
        giou_cost: Factor of minus the generalised IoU.

    Returns:
        (B, Q, M) float32, without gradient.
    """
    logits, true_boxes, predicted_boxes = (
        ops.stop_gradient(ops.cast(values, "float32")) for values in (logits, true_boxes, predicted_boxes)
    )
    probabilities = ops.transpose(ops.softmax(logits), (0, 2, 1))  # (B, C + 1, Q)
    labels = whole_labels(labels, otherwise=_NO_CLASS)
    last = ops.shape(probabilities)[1] - 2
    of_class = take_rows(probabilities, ops.clip(labels, 0, last))  # (B, M, Q)
    of_class = ops.where(ops.expand_dims(labels > last, -1), float("nan"), of_class)
    predictions = ops.expand_dims(predicted_boxes, 2)  # (B, Q, 1, 4)
    distance = ops.sum(ops.abs(predictions - ops.expand_dims(true_boxes, 1)), axis=-1)  # (B, Q, M)
    corners = boxes.convert(predicted_boxes, "cxcywh", "xyxy"), boxes.convert(true_boxes, "cxcywh", "xyxy")
    overlap = boxes.pairwise_giou(*corners)  # (B, Q, M)
    return l1_cost * distance - class_cost * ops.transpose(of_class, (0, 2, 1)) - giou_cost * overlap


def set_losses(labels, true_boxes, logits, predicted_boxes, *, no_object_weight=0.1, solver="auto", **costs):
    """Return the three terms of DETR's loss, of each image and each decoder layer, unweighted.

    Args:
        labels: (B, M) class indices in [0, C); negative for padding.
        true_boxes: (B, M, 4) `rel_cxcywh`: centre, width and height as fractions of the image; whatever for padding.
        logits: (B, Q, C + 1), of which the last is "no object"; or (L, B, Q, C + 1) of L decoder layers, each of which
            is matched by itself.
        predicted_boxes: (B, Q, 4) or (L, B, Q, 4), `rel_cxcywh`.
        no_object_weight: Weight of "no object" in the cross-entropy; that of the classes is 1.
        solver: As in `kerasvision.ops.hungarian.assign`.
        **costs: `class_cost`, `l1_cost` and `giou_cost`; see `matching_cost`.

    Returns:
        dict of float32 (B,) or (L, B): ``"classification"``, cross-entropy divided by the sum of its weights over the
        batch; ``"l1"``, sum of absolute differences, and ``"giou"``, sum of 1 - GIoU, both over the matched pairs and
        divided by the number of true boxes of the batch, at least 1. The sum over the B images is the batch's loss.
        Without any true box all queries learn "no object", and the other terms are 0. If there are more
        true boxes than queries, those that get none are left out, but counted. A label of C or above, or one that is
        no whole number, makes its image's classification NaN, as in `cross_entropy`, so that a wrong class mapping
        shows.

    Reference: transformers/loss/loss_for_object_detection.py, `ImageLoss`.
    """
    labels = whole_labels(labels, otherwise=_NO_CLASS)
    logits, true_boxes, predicted_boxes = (ops.cast(x, "float32") for x in (logits, true_boxes, predicted_boxes))
    if len(logits.shape) == 3:
        logits, predicted_boxes = ops.expand_dims(logits, 0), ops.expand_dims(predicted_boxes, 0)
        terms = _layer_losses(labels, true_boxes, logits, predicted_boxes, no_object_weight, solver, costs)
        return {name: ops.squeeze(term, 0) for name, term in terms.items()}
    return _layer_losses(labels, true_boxes, logits, predicted_boxes, no_object_weight, solver, costs)


def _layer_losses(labels, true_boxes, logits, predicted_boxes, no_object_weight, solver, costs):
    """Return the terms (L, B) of logits (L, B, Q, C + 1), all layers at once."""
    layers, batch, queries, classes = ops.shape(logits)
    valid = labels >= 0  # (B, M)
    usable = ops.logical_not(ops.any(labels > classes - 2, axis=-1))  # (B,)
    labels = ops.minimum(labels, classes - 2)  # `usable` tells of what this changes
    box_count = ops.maximum(ops.sum(ops.cast(valid, "float32")), 1)
    # Padding may hold anything, even NaN, which would reach the slopes through a mask.
    true_boxes = ops.where(ops.expand_dims(valid, -1), true_boxes, 0.5)
    labels, valid = ops.tile(labels, (layers, 1)), ops.tile(valid, (layers, 1))  # (L B, M)
    true_boxes = ops.tile(true_boxes, (layers, 1, 1))  # (L B, M, 4)
    flat_logits = ops.reshape(logits, (-1, queries, classes))  # (L B, Q, C + 1)
    flat_boxes = ops.reshape(predicted_boxes, (-1, queries, 4))  # (L B, Q, 4)

    cost = matching_cost(labels, true_boxes, flat_logits, flat_boxes, **costs)  # (L B, Q, M)
    rows = assign(cost, valid, solver=solver)  # (L B, M)
    matched = rows >= 0

    pairs = ops.expand_dims(rows, -1) == ops.arange(queries, dtype="int32")  # (L B, M, Q)
    wanted = ops.sum(ops.where(pairs, ops.expand_dims(labels, -1), 0), axis=1)  # (L B, Q)
    wanted = ops.where(ops.any(pairs, axis=1), wanted, classes - 1)
    log_probabilities = ops.log_softmax(flat_logits)
    picked = ops.sum(ops.where(one_hot(wanted, classes, "bool"), log_probabilities, 0.0), axis=-1)  # (L B, Q)
    weights = ops.where(wanted == classes - 1, no_object_weight, 1.0)  # (L B, Q)
    entropy = ops.reshape(ops.sum(-weights * picked, axis=-1), (layers, batch))
    weight_sums = ops.sum(ops.reshape(weights, (layers, -1)), axis=1, keepdims=True)  # (L, 1)

    chosen = take_rows(flat_boxes, ops.maximum(rows, 0))  # (L B, M, 4)
    distance = ops.sum(ops.abs(chosen - true_boxes), axis=-1)  # (L B, M)
    overlap = boxes.giou(boxes.convert(chosen, "cxcywh", "xyxy"), boxes.convert(true_boxes, "cxcywh", "xyxy"))

    def mean_over_boxes(values):
        sums = ops.sum(ops.where(matched, values, 0.0), axis=-1)  # (L B,)
        return ops.reshape(sums, (layers, batch)) / box_count

    return {
        # All weights are 0 only if `no_object_weight` is, and no query is matched.
        "classification": ops.where(usable, entropy / ops.where(weight_sums > 0, weight_sums, 1.0), float("nan")),
        "l1": mean_over_boxes(distance),
        "giou": mean_over_boxes(1 - overlap),
    }


@keras.saving.register_keras_serializable("kerasvision")
class SetLoss(WideLoss):
    """`set_losses`, weighted and summed over the terms and the decoder layers, as a Keras loss.

    Args:
        class_weight: Factor of the cross-entropy.
        l1_weight: Factor of the L1 term.
        giou_weight: Factor of the GIoU term.
        no_object_weight: Weight of "no object" in the cross-entropy.
        class_cost: See `matching_cost`.
        l1_cost: See `matching_cost`.
        giou_cost: See `matching_cost`.
        solver: See `kerasvision.ops.hungarian.assign`.
        reduction: As in `keras.losses.Loss`. The mean over the batch is the reference's loss.
        name: The loss's name.

    Call: either dicts, as in `set_losses`: `y_true` of ``"labels"`` (B, M) and ``"boxes"`` (B, M, 4), `y_pred` of
    ``"logits"`` and ``"boxes"``; or packed tensors, since Keras gives the entries of dicts to a compiled loss one by
    one: `y_true` (B, M, 1 + 4), label and box, and `y_pred` (B, Q, C + 1 + 4), logits and box. Predictions may have a
    leading axis of decoder layers, the auxiliary losses, where they are dicts or the loss is called by itself; a
    compiled model's outputs begin with the batch. Sample weights (B,) weigh images. Computed in float32, in which
    labels are exact.

    Example: a compiled model of 5 queries and 2 classes packs its outputs, and the data their targets; `compute_loss`
    of a model of your own may call the loss with dicts.
    >>> import numpy as np
    >>> inputs = keras.Input((4,))
    >>> logits = keras.layers.Reshape((5, 3))(keras.layers.Dense(15)(inputs))
    >>> boxes = keras.layers.Reshape((5, 4))(keras.layers.Dense(20, activation="sigmoid")(inputs))
    >>> model = keras.Model(inputs, keras.layers.Concatenate()([logits, boxes]))
    >>> model.compile("sgd", loss=SetLoss())
    >>> targets = np.float32([[[1, 0.5, 0.5, 0.2, 0.4], [-1, 0, 0, 0, 0]]])  # one box of class 1, and padding
    >>> history = model.fit(np.ones((1, 4)), targets, verbose=0)

    Raises:
        ValueError: A negative weight or cost, or an unknown solver; when called, tensors that are not packed.

    Source: Carion et al. 2020, https://arxiv.org/abs/2005.12872, section 3.1 and appendix A.2.
    """

    def __init__(
        self,
        *,
        class_weight=1.0,
        l1_weight=5.0,
        giou_weight=2.0,
        no_object_weight=0.1,
        class_cost=1.0,
        l1_cost=5.0,
        giou_cost=2.0,
        solver="auto",
        reduction="sum_over_batch_size",
        name="set_loss",
        **kwargs,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)
        self.weights = {"classification": class_weight, "l1": l1_weight, "giou": giou_weight}
        self.no_object_weight = no_object_weight
        self.costs = {"class_cost": class_cost, "l1_cost": l1_cost, "giou_cost": giou_cost}
        self.solver = solver
        arguments = {"class_weight": class_weight, "l1_weight": l1_weight, "giou_weight": giou_weight, **self.costs}
        check_not_negative(**arguments, no_object_weight=no_object_weight)
        check_choice("solver", solver, SOLVERS)

    def call(self, y_true, y_pred):
        """Return (B,) losses of images, whose mean is the batch's loss."""
        terms = set_losses(
            *_unpacked(y_true, y_pred),
            no_object_weight=self.no_object_weight,
            solver=self.solver,
            **self.costs,
        )
        total = sum(self.weights[name] * terms[name] for name in TERMS)  # (B,) or (L, B)
        if len(total.shape) == 2:
            total = ops.sum(total, axis=0)
        return total * ops.cast(ops.shape(total)[0], total.dtype)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "class_weight": self.weights["classification"],
            "l1_weight": self.weights["l1"],
            "giou_weight": self.weights["giou"],
            "no_object_weight": self.no_object_weight,
            **self.costs,
            "solver": self.solver,
        }


def _unpacked(y_true, y_pred):
    """Return labels, true boxes, logits and predicted boxes of dicts or packed tensors."""
    if isinstance(y_true, dict) and isinstance(y_pred, dict):
        return y_true["labels"], y_true["boxes"], y_pred["logits"], y_pred["boxes"]
    true, predicted = (list(getattr(part, "shape", ())) for part in (y_true, y_pred))
    # Two classes at least, of which one is "no object".
    if len(true) != 3 or true[-1] != 5 or len(predicted) not in (3, 4) or (predicted[-1] or 6) < 6:
        raise ValueError(
            f"`y_true` has shape {true} and `y_pred` {predicted}, but must be dicts or packed tensors (B, M, 1 + 4), "
            "label and box, and (B, Q, C + 1 + 4), logits and box; Keras gives a compiled loss the entries of dicts "
            "one by one, so concatenate them, or call the loss in `compute_loss`"
        )
    return y_true[..., 0], y_true[..., 1:], y_pred[..., :-4], y_pred[..., -4:]

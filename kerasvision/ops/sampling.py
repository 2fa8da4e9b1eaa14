"""Choosing which anchors or proposals are trained on."""

import keras
from keras import ops

from kerasvision.ops.arguments import is_count
from kerasvision.ops.rows import mark_rows

# Below it only what is no candidate.
_LOWEST = -3.4e38


def _first(candidates, priorities, most, count):
    """Return (B, A) bool: the `count` (B,) candidates of highest priority, at most `most`."""
    anchors = ops.shape(candidates)[1]
    size = min(most, anchors) if isinstance(anchors, int) else ops.minimum(most, anchors)
    if isinstance(size, int) and size == 0:
        return ops.zeros_like(candidates)
    # NaN comes last of the candidates, which a priority of -inf may tie with what is none.
    priorities = ops.where(priorities >= _LOWEST, priorities, _LOWEST)
    _, best = ops.top_k(ops.where(candidates, priorities, -float("inf")), size)  # (B, size)
    chosen = ops.expand_dims(ops.arange(ops.shape(best)[1], dtype="int32"), 0) < ops.expand_dims(count, 1)
    return ops.logical_and(mark_rows(best, chosen, anchors), candidates)


def sample_balanced(positives, negatives, *, size, positive_fraction, priorities=None, seed=None):
    """Choose at random a fixed number of anchors in each image, positives up to a fraction of them.

    Args:
        positives: (B, A) bool.
        negatives: (B, A) bool; anchors that are neither are never chosen.
        size: Number to choose; fewer only where there are not enough.
        positive_fraction: In [0, 1]: at most `int(size * positive_fraction)` positives are chosen. Negatives fill up.
        priorities: (B, A): the highest are chosen, instead of at random; NaN last.
        seed: As in `keras.random.uniform`: an integer, which draws the same numbers every time, or a
            `keras.random.SeedGenerator`, which a layer or model holds. ``None``: a generator of Keras's own, from
            which Keras refuses to draw inside a JAX trace (`jax.jit`, a compiled step): not to be used there.

    Returns:
        Two (B, A) bool: the chosen positives and the chosen negatives. Static shapes: to be used as weights.

    Raises:
        ValueError: A `size` under 1 or a fraction outside [0, 1].

    Reference: torchvision/models/detection/_utils.py, `BalancedPositiveNegativeSampler` (256 at 0.5 for RPN, 512 at
    0.25 for the heads of Faster R-CNN).
    """
    if not is_count(size):
        raise ValueError(f"`size` {size!r} must be a whole number of at least 1")
    size = int(size)
    if not 0 <= positive_fraction <= 1:
        raise ValueError(f"`positive_fraction` {positive_fraction!r} must be in [0, 1]")
    positives, negatives = ops.cast(positives, "bool"), ops.cast(negatives, "bool")
    if priorities is None:
        priorities = keras.random.uniform(ops.shape(positives), seed=seed)
    priorities = ops.cast(priorities, "float32")
    most = int(size * positive_fraction)
    positive_count = ops.minimum(ops.sum(ops.cast(positives, "int32"), axis=1), most)  # (B,)
    negative_count = ops.minimum(ops.sum(ops.cast(negatives, "int32"), axis=1), size - positive_count)
    chosen_positives = _first(positives, priorities, most, positive_count)
    return chosen_positives, _first(negatives, priorities, size, negative_count)


def mine_hard_negatives(losses, positives, candidates=None, *, ratio=3.0, at_least=0):
    """Choose the negatives with the highest losses, in proportion to the positives of their image.

    Args:
        losses: (B, A) classification losses; no gradient flows through the choice. NaN comes first: it stays visible.
        positives: (B, A) bool; never chosen.
        candidates: (B, A) bool; only these can be chosen. ``None``: all that are not positive.
        ratio: Number of negatives for each positive, rounded down.
        at_least: Number chosen where there are fewer; 0 lets an image without objects teach nothing, as SSD does.

    Returns:
        (B, A) bool. Exactly min(ratio * positives, candidates) are chosen; equal losses go to the first.

    Source: Liu et al. 2016, https://arxiv.org/abs/1512.02325, section 2.2; torchvision/models/detection/ssd.py. Differs
    from the latter: where there are not enough negatives, it counts positives a second time.
    """
    losses = ops.stop_gradient(ops.cast(losses, "float32"))
    positives = ops.cast(positives, "bool")
    negatives = ops.logical_not(positives)
    if candidates is not None:
        negatives = ops.logical_and(negatives, ops.cast(candidates, "bool"))
    wanted = ops.cast(ops.floor(ops.sum(ops.cast(positives, "float32"), axis=1) * ratio), "int32")
    wanted = ops.expand_dims(ops.maximum(wanted, at_least), 1)  # (B, 1)
    losses = ops.where(ops.isnan(losses), float("inf"), losses)
    order = ops.argsort(ops.where(negatives, -losses, float("inf")), axis=1)  # stable on all backends
    rank = ops.argsort(order, axis=1)  # (B, A): the place of each anchor in that order
    return ops.logical_and(negatives, rank < wanted)

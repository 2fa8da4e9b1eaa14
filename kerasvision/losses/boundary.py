"""Cross-entropy that weighs pixels near boundaries more: between classes, or between touching instances (U-Net)."""

import math

import keras
import numpy as np
from keras import ops

from kerasvision.losses.cross_entropy import cross_entropy
from kerasvision.losses.inputs import MaskedLoss, as_tuple, check_not_negative, counting, split_labels, with_mask
from kerasvision.ops import boundaries


def class_boundaries(labels, *, ignore_class=255, mask=None):
    """Return which pixels have a neighbour above, below, left or right of another class.

    Args:
        labels: (B, H, W) integer masks.
        ignore_class: Label that has no boundary, neither its own nor its neighbours'; ``None`` if there is none.
        mask: (B, H, W) bool, or of fewer axes: False for further pixels that have none; or ``None``.

    Returns:
        (B, H, W) bool: pixels on both sides of each boundary. The image's edge is none.
    """
    if ignore_class is None and mask is None:
        return boundaries.class_boundaries(labels)
    counted = ops.ones_like(labels, dtype="bool") if ignore_class is None else labels != ignore_class
    return boundaries.class_boundaries(labels, with_mask(counted, mask))


def boundary_weights(labels, *, w0=10.0, sigma=5.0, ignore_class=255, mask=None):
    """Return pixel weights 1 + w0 exp(-d^2 / (2 sigma^2)), d being the distance to the nearest class boundary.

    Args:
        labels: (B, H, W) integer masks.
        w0: How much more a pixel on the boundary (d = 0) weighs than one far away.
        sigma: Spread of the weights, in pixels.
        ignore_class: Label that has no boundary; ``None`` if there is none.
        mask: (B, H, W) bool, or of fewer axes: False for further pixels that have none; or ``None``.

    Returns:
        (B, H, W) float32 in [1, 1 + w0]; 1 everywhere in a mask of one class. Distances are Euclidean, between pixel
        centres; beyond 4 sigma, where the second term is under 0.0004 w0, it is left out.

    The in-graph counterpart of `unet_weight_map`, for classes in place of instances.
    """
    _check_sigma(sigma)
    near = ops.cast(class_boundaries(labels, ignore_class=ignore_class, mask=mask), "float32")
    # exp(-min(dx^2 + dy^2)) is the maximum over dx of the maximum over dy of a product: one axis after the other.
    return 1 + w0 * _spread(_spread(near, 1, sigma), 2, sigma)


def _spread(values, axis, sigma):
    """Return the maximum over shifts d along an axis of values times exp(-d^2 / (2 sigma^2)); values are not < 0."""
    radius = math.floor(4 * sigma)
    size = ops.shape(values)[axis]
    widths = [[0, 0]] * 3
    widths[axis] = [radius, radius]
    padded = ops.pad(values, widths)
    result = values
    for shift in range(1, radius + 1):
        before, after = [slice(None)] * 3, [slice(None)] * 3
        before[axis] = slice(radius - shift, radius - shift + size)
        after[axis] = slice(radius + shift, radius + shift + size)
        nearest = ops.maximum(padded[tuple(before)], padded[tuple(after)])
        result = ops.maximum(result, nearest * math.exp(-(shift**2) / (2 * sigma**2)))
    return result


def unet_weight_map(instances, *, w0=10.0, sigma=5.0, background_weight=None):
    """Return U-Net's pixel weights w(x) = wc(x) + w0 exp(-(d1 + d2)^2 / (2 sigma^2)) of one image, on the host.

    They teach the narrow gaps between touching instances. Give them to `fit` as sample weights.

    Args:
        instances: (H, W) integers: 0 for background, another number for the pixels of each instance.
        w0: Weight of gaps between instances.
        sigma: Spread of the gaps' weights, in pixels.
        background_weight: wc of background, that of instances being 1. ``None`` balances the two: each has a wc of
            half the inverse of its share of the pixels, so that their mean is 1.

    Returns:
        (H, W) float32. d1 and d2 are the distances, in pixels, from each background pixel to the nearest and the
        second nearest instance; within an instance and in images with fewer than two the second term is 0. It is
        left out where it would be under 1e-7 w0.

    Raises:
        ValueError: If `instances` is no (H, W) array of integers.

    Source: Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597, equation 2. The paper does not say how wc
    balances, nor whether the second term reaches into instances; here it does not.
    """
    _check_sigma(sigma)
    instances = np.asarray(instances)
    if instances.ndim != 2 or instances.dtype.kind not in "iub":
        raise ValueError(
            f"`instances` has shape {instances.shape} and dtype {instances.dtype}, but must be one image's (H, W) of "
            "integers; call this for each image"
        )
    background = instances == 0
    weights = _balance(background) if background_weight is None else np.where(background, background_weight, 1.0)
    nearest, second = _two_nearest(instances, radius=math.ceil(6 * sigma))  # exp(-6^2 / 2) is 1.5e-8
    gaps = np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    return (weights + w0 * np.where(background, gaps, 0)).astype(np.float32)


def _balance(background):
    """Return weights with which background and the rest add up to the same, of mean 1; 1 if there is only one."""
    share = background.mean() if background.size else 0.0
    if share in (0, 1):
        return np.ones(background.shape)
    return np.where(background, 0.5 / share, 0.5 / (1 - share))


def _two_nearest(instances, radius):
    """Return (H, W) distances to the nearest and second nearest instance, infinite beyond a radius in pixels."""
    from scipy import ndimage

    nearest = np.full(instances.shape, np.inf)
    second = np.full(instances.shape, np.inf)
    numbers = np.unique(instances[instances != 0])
    dense = np.where(instances == 0, 0, np.searchsorted(numbers, instances) + 1)  # 1, 2, … as find_objects wants
    windows = ndimage.find_objects(dense) if numbers.size else []
    for number, window in enumerate(windows, start=1):
        around = tuple(slice(max(0, part.start - radius), part.stop + radius) for part in window)
        distance = ndimage.distance_transform_edt(dense[around] != number)
        second[around] = np.minimum(second[around], np.maximum(nearest[around], distance))
        nearest[around] = np.minimum(nearest[around], distance)
    return nearest, second


@keras.saving.register_keras_serializable("kerasvision")
class BoundaryCrossEntropyLoss(MaskedLoss):
    """Cross-entropy of masks, weighted by `boundary_weights`: pixels near boundaries between classes weigh more.

    Args:
        w0: How much more a pixel on a boundary weighs than one far away.
        sigma: Spread of the weights, in pixels.
        from_logits: Whether predictions are logits; otherwise probabilities.
        ignore_class: Label of pixels that do not count and have no boundary; ``None`` if there is none.
        class_weights: One more factor for each class, or ``None``.
        reduction: As in `keras.losses.Loss`; means divide by the number of counted pixels, not by their weights.
        name: The loss's name.

    Call: masks (B, H, W) or (B, H, W, 1) and predictions (B, H, W, C); gives (B, H, W) losses before reduction.
    Pixels that predictions' Keras mask leaves out are as ignored ones.

    Source: the weights are those of Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597, equation 2, with the
    distance to the nearest class boundary for d1 + d2.
    """

    def __init__(
        self,
        w0=10.0,
        sigma=5.0,
        *,
        from_logits=True,
        ignore_class=255,
        class_weights=None,
        reduction="sum_over_batch_size",
        name="boundary_cross_entropy",
        **kwargs,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)
        check_not_negative(w0=w0)
        _check_sigma(sigma)
        self.w0 = w0
        self.sigma = sigma
        self.from_logits = from_logits
        self.ignore_class = ignore_class
        self.class_weights = as_tuple("class_weights", class_weights)

    def call(self, y_true, y_pred, mask=None):
        """Return (B, H, W) losses."""
        loss = cross_entropy(
            y_true,
            y_pred,
            from_logits=self.from_logits,
            ignore_class=self.ignore_class,
            class_weights=self.class_weights,
            mask=mask,
        )
        labels, counted = split_labels(y_true, y_pred, self.ignore_class, mask)
        weights = boundary_weights(labels, w0=self.w0, sigma=self.sigma, ignore_class=self.ignore_class, mask=mask)
        loss = loss * ops.cast(weights, loss.dtype)
        return loss if self.ignore_class is None and mask is None else counting(loss, counted)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "w0": self.w0,
            "sigma": self.sigma,
            "from_logits": self.from_logits,
            "ignore_class": self.ignore_class,
            "class_weights": self.class_weights,
        }


def _check_sigma(sigma):
    if not 0 < sigma < math.inf:
        raise ValueError(f"`sigma` is {sigma!r}, but must be a positive number of pixels")

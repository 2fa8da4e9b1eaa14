"""Normalisation of images and of feature maps."""

import keras
import numpy as np
from keras import ops

from kerasvision.ops.normalization import batch_normalization

# Mean and standard deviation of ImageNet's RGB pixels on the 0-255 scale (torchvision's 0.485, 0.456, 0.406
# and 0.229, 0.224, 0.225 times 255), used by nearly all published weights.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@keras.saving.register_keras_serializable("kerasvision")
class ImageNormalization(keras.layers.Layer):
    """Subtract each channel's mean and divide by its standard deviation.

    The first layer of every model, so that normalisation is saved and exported with the weights that need it.

    Args:
        mean: One value a channel, on the 0-255 scale.
        std: One positive value a channel, on the 0-255 scale.

    Call: uint8 or float images (..., C) in 0-255; returns the layer's compute dtype, same shape.
    """

    def __init__(self, mean=IMAGENET_MEAN, std=IMAGENET_STD, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if min(std) <= 0:
            raise ValueError(f"`std` {std!r} must be positive; give one standard deviation a channel, 0-255")
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)

    def call(self, images):
        """Normalise `images`."""
        # In float32 to the end: bfloat16 would round bright pixels to whole numbers, and the mean to halves.
        images = ops.cast(images, "float32")
        scale = ops.convert_to_tensor([1 / value for value in self.std], "float32")
        return ops.cast((images - ops.convert_to_tensor(self.mean, "float32")) * scale, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        """Return `input_shape`."""
        return input_shape

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "mean": self.mean, "std": self.std}


@keras.saving.register_keras_serializable("kerasvision")
class FrozenBatchNormalization(keras.layers.Layer):
    """Batch normalisation whose statistics and affine parameters never change.

    Detectors are fine-tuned on a few images a batch, too few for batch statistics; they keep those of
    the pre-trained backbone instead. Nothing here is ever trained, whatever `trainable` says.

    Args:
        epsilon: Added to the variance. torchvision's COCO weights of Faster R-CNN and RetinaNet want 0.

    Call: (..., C); returns the same shape.

    Reference: torchvision/ops/misc.py, `FrozenBatchNorm2d`.
    """

    def __init__(self, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape):
        """Create the four vectors of shape (C,)."""

        def vector(name, initializer):
            return self.add_weight(
                name=name, shape=input_shape[-1:], initializer=initializer, trainable=False, autocast=False
            )

        self.gamma = vector("gamma", "ones")
        self.beta = vector("beta", "zeros")
        self.moving_mean = vector("moving_mean", "zeros")
        self.moving_variance = vector("moving_variance", "ones")

    def call(self, inputs):
        """Normalise `inputs` with the frozen statistics."""
        scale, shift = inference_affine(self)
        return inputs * ops.cast(scale, inputs.dtype) + ops.cast(shift, inputs.dtype)

    def compute_output_shape(self, input_shape):
        """Return `input_shape`."""
        return input_shape

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable("kerasvision")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's batch normalisation of the last axis, with PyTorch's defaults and less time for a training step.

    Args:
        epsilon: Added to the variance.
        momentum: Share of the old moving average kept at each step; PyTorch's momentum is one minus this.
        **kwargs: As in `keras.layers.BatchNormalization`, whose other options go the way that Keras goes.

    Call: (..., C); returns the same shape.

    Differs from PyTorch: the moving variance is that of the batches, not of the population they are drawn from.
    """

    def __init__(self, epsilon=1e-5, momentum=0.9, **kwargs):
        super().__init__(epsilon=epsilon, momentum=momentum, **kwargs)

    def call(self, inputs, training=None, mask=None):
        """Normalise `inputs`, in training by their own statistics, which the moving ones then follow."""
        plain = self.scale and self.center and not self.synchronized and not getattr(self, "renorm", False)
        if not (training and self.trainable and plain and mask is None and self.axis in (-1, len(inputs.shape) - 1)):
            return super().call(inputs, training=training, mask=mask)
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        gamma, beta = (ops.cast(vector, dtype) for vector in (self.gamma, self.beta))
        outputs, mean, variance = batch_normalization(ops.cast(inputs, dtype), gamma, beta, epsilon=self.epsilon)
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + ops.cast(value, moving.dtype) * (1 - self.momentum))
        return ops.cast(outputs, self.compute_dtype)


@keras.saving.register_keras_serializable("kerasvision")
class SyncBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation over the batches of all replicas, for detectors and segmenters with few images on each.

    Args:
        epsilon: Added to the variance.
        momentum: Share of the old moving average kept at each step; PyTorch's momentum is one minus this.

    Call: (..., C); returns the same shape. Without replicas it is `keras.layers.BatchNormalization`.

    On TensorFlow the replicas are those of a `tf.distribute` strategy. On JAX a batch that `keras.distribution` spreads
    over devices is one array, whose statistics are common anyway; inside `jax.pmap` or `shard_map`, which Keras does
    not use, they would not be. On PyTorch they are the processes of `torch.distributed`, if it is initialised:
    gradients pass through the sums, as in `torch.nn.SyncBatchNorm`, and every process must call the layer equally
    often. With a mask, each replica takes the statistics of its own batch, on every backend.
    """

    def __init__(self, epsilon=1e-5, momentum=0.9, **kwargs):
        # Keras refuses the option elsewhere, where it is not needed or done below.
        kwargs["synchronized"] = keras.backend.backend() == "tensorflow"
        super().__init__(epsilon=epsilon, momentum=momentum, **kwargs)

    def _moments(self, inputs, mask):
        if mask is not None or not _is_torch_distributed():
            return super()._moments(inputs, mask)
        from torch.distributed.nn.functional import all_reduce

        # One exchange: (2 C + 1,).
        count = ops.full((1,), np.prod([inputs.shape[axis] for axis in self._reduction_axes]), dtype=inputs.dtype)
        sums = [ops.sum(values, axis=self._reduction_axes) for values in (inputs, ops.square(inputs))]
        total = all_reduce(ops.concatenate([*sums, count]))
        mean, square, _ = ops.split(total / total[-1], [inputs.shape[self.axis], total.shape[0] - 1])
        return mean, ops.maximum(square - ops.square(mean), 0.0)

    def get_config(self):
        """Return the constructor's arguments."""
        return {name: value for name, value in super().get_config().items() if name != "synchronized"}


def _is_torch_distributed():
    """Return whether PyTorch is the backend, with several processes."""
    if keras.backend.backend() != "torch":
        return False
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def inference_affine(normalization):
    """Return the float32 scale and shift (C,) that a batch normalisation layer amounts to at inference."""
    scale = normalization.gamma * ops.rsqrt(normalization.moving_variance + normalization.epsilon)
    return scale, normalization.beta - normalization.moving_mean * scale


def make_normalization(kind, *, epsilon=1e-5, momentum=0.9, groups=32, name="normalization", dtype=None):
    """Return a normalisation layer by name, or ``None`` for ``None``.

    Args:
        kind: ``"batch"``, ``"sync_batch"`` (`SyncBatchNormalization`), ``"frozen_batch"``, ``"group"`` or ``None``.
        epsilon: Added to the variance.
        momentum: Share of the old moving average kept at each step; PyTorch's momentum is one minus this.
        groups: Number of groups, for ``"group"``.
        name: The layer's name.
        dtype: The layer's dtype policy; default: Keras's global one.

    Raises:
        ValueError: `kind` is none of these.
    """
    check_normalization(kind)
    if kind == "batch":
        return BatchNormalization(epsilon=epsilon, momentum=momentum, name=name, dtype=dtype)
    if kind == "sync_batch":
        return SyncBatchNormalization(epsilon=epsilon, momentum=momentum, name=name, dtype=dtype)
    if kind == "frozen_batch":
        return FrozenBatchNormalization(epsilon=epsilon, name=name, dtype=dtype)
    if kind == "group":
        return keras.layers.GroupNormalization(groups=groups, epsilon=epsilon, name=name, dtype=dtype)
    return None


def check_normalization(kind):
    """Raise ValueError if `make_normalization` does not know this kind."""
    if kind not in ("batch", "sync_batch", "frozen_batch", "group", None):
        raise ValueError(
            f"`normalization` {kind!r} is unknown; use 'batch', 'sync_batch', 'frozen_batch', 'group' or None"
        )

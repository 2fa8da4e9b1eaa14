"""What detectors and segmenters share: inputs of any size, named losses, recipes, checked targets."""

from dataclasses import asdict
from typing import Any

import keras
from keras import ops

from kerasvision.layers.normalization import IMAGENET_MEAN, IMAGENET_STD, ImageNormalization
from kerasvision.layers.trainability import constructor_arguments, restore_trainable, trainable_config
from kerasvision.models.batches import images_a_step, steps_of
from kerasvision.models.non_finite import StopOnNonFiniteLoss
from kerasvision.models.recipe import Recipe
from kerasvision.ops.resizing import ResizeRule


def split_inputs(inputs):
    """Return (images, sizes_hw) of a model's input; `sizes_hw` is ``None`` where images fill their canvas."""
    if isinstance(inputs, dict):
        return inputs["images"], inputs.get("sizes_hw")
    return inputs, None


def valid_sizes_hw(inputs):
    """Return int32 (B, 2) or (2,): the height and width that boxes of a model's input are clipped to."""
    images, sizes_hw = split_inputs(inputs)
    return ops.convert_to_tensor(ops.shape(images)[1:3], "int32") if sizes_hw is None else sizes_hw


class VisionModel(keras.Model):
    """Base of all models: images of any height and width in, named losses and a recipe for training.

    Args:
        num_classes: Number of classes that the head tells apart.
        class_names: Names of the classes, in label order.
        resize_rule: The `ResizeRule` of the weights, or its config; what `inference` and the data pipeline apply.
        image_mean: Mean of each channel, 0-255, subtracted first.
        image_std: Standard deviation of each channel, 0-255, divided by first.
        recipe: The `Recipe` of `compile()` without arguments, or its config; default: the architecture's.

    Subclasses set `size_divisor`, `loss_names` and `default_recipe`, define `call`, `losses_from_outputs` and `build`,
    and build themselves when constructed: a model always has its weights.
    """

    size_divisor = 1
    loss_names: tuple[str, ...] = ()
    takes_sample_weight = False
    learns_after_epochs = False  # whether `fit` goes on with other stages when all epochs are done
    proposer: Any = None  # of a detector over external proposals: what proposes boxes for an image
    default_recipe = Recipe()

    def __init__(
        self,
        num_classes,
        *,
        class_names=None,
        resize_rule=None,
        image_mean=IMAGENET_MEAN,
        image_std=IMAGENET_STD,
        recipe=None,
        **kwargs,
    ):
        # Under a mixed policy Keras would round the pixels to 8 bits of mantissa before they are normalised.
        super().__init__(autocast=False, **kwargs)
        if not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(f"`num_classes` {num_classes!r} must be a positive integer")
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(f"`class_names` has {len(class_names)} names, but `num_classes` is {num_classes}")
        self.num_classes = num_classes
        self.class_names = None if class_names is None else tuple(class_names)
        if isinstance(resize_rule, dict):
            resize_rule = ResizeRule(**resize_rule)
        self.resize_rule = resize_rule or ResizeRule()
        if isinstance(recipe, dict):
            recipe = Recipe(**recipe)
        self.recipe = recipe or self.default_recipe
        self.image_normalization = ImageNormalization(
            image_mean, image_std, name="image_normalization", dtype=self.dtype_policy
        )
        self.loss_trackers = {name: keras.metrics.Mean(name=name) for name in self.loss_names}
        self.invalid_targets = keras.metrics.Sum(name="invalid_targets")
        self._uses_recipe = False

    def prepare(self, inputs):
        """Normalise images, blank what lies outside each, and pad to a multiple of `size_divisor`.

        Padding is zero after normalisation, at the bottom and on the right, whatever values it had before, as in
        torchvision's `GeneralizedRCNNTransform`.

        Args:
            inputs: images (B, H, W, 3), 0-255, or a dict of `images` and `sizes_hw` (B, 2).

        Returns:
            (B, H', W', 3) normalised, H' and W' being multiples of `size_divisor`.
        """
        images, sizes_hw = split_inputs(inputs)
        if len(images.shape) != 4 or images.shape[-1] != 3:
            raise ValueError(
                f"`images` of shape {tuple(images.shape)} must be (batch, height, width, 3); "
                "add a batch axis with images[None], convert grey pictures to RGB"
            )
        pixels = self.image_normalization(images)
        height, width = ops.shape(images)[1:3]
        if sizes_hw is not None:
            inside_y = ops.arange(height)[None, :] < ops.cast(sizes_hw[:, :1], "int32")  # (B, H)
            inside_x = ops.arange(width)[None, :] < ops.cast(sizes_hw[:, 1:], "int32")  # (B, W)
            inside = ops.logical_and(inside_y[:, :, None], inside_x[:, None, :])[..., None]  # (B, H, W, 1)
            pixels = ops.where(inside, pixels, ops.zeros_like(pixels))
        padded_height, padded_width = self.canvas_hw(inputs)
        known = isinstance(height, int) and isinstance(width, int)  # TensorFlow may leave one of them open
        if known and (height, width) == (padded_height, padded_width):
            return pixels
        return ops.pad(pixels, ((0, 0), (0, padded_height - height), (0, padded_width - width), (0, 0)))

    def canvas_hw(self, inputs):
        """Return (height, width) of the input after padding to multiples of `size_divisor`."""
        images, _ = split_inputs(inputs)
        height, width = ops.shape(images)[1:3]
        divisor = self.size_divisor
        return -(-height // divisor) * divisor, -(-width // divisor) * divisor

    def compute_losses(self, inputs, targets, *, training=False):
        """Run the model and return its losses by name.

        Args:
            inputs: images (B, H, W, 3), 0-255, or a dict of `images` and `sizes_hw`.
            targets: What the data pipeline yields for the task; a detector's may be ragged, see `pad_targets`.
            training: Whether layers behave as in training.

        Returns:
            dict of scalars, with the keys `loss_names`; NaN in a graph if a class id is out of range.

        Raises:
            ValueError: A class id is out of range, unless in a graph.
        """
        inputs = keras.tree.map_structure(ops.convert_to_tensor, inputs)
        targets = keras.tree.map_structure(ops.convert_to_tensor, self.checked_targets(targets))
        return self._screened_losses(self(inputs, training=training), inputs, targets)[0]

    def checked_targets(self, targets):
        """Return targets as `losses_from_outputs` takes them, checked as far as their values are known.

        Raises:
            ValueError: Targets that do not fit the task, or the model's classes.
        """
        return targets

    def screen_targets(self, targets):
        """Return targets without class ids that the model does not have, and the number of those; works in a graph."""
        return targets, 0

    def _screened_losses(self, outputs, inputs, targets, **options):
        """Return the losses by name and the number of class ids out of range, which make them NaN."""
        targets, invalid = self.screen_targets(targets)
        losses = self.losses_from_outputs(outputs, inputs, targets, **options)
        return {name: value + nan_if(invalid) for name, value in losses.items()}, invalid

    def losses_from_outputs(self, outputs, inputs, targets, **options):
        """Return the losses by name, given the raw outputs for `inputs`; a segmenter takes `sample_weight`."""
        raise NotImplementedError

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Return the sum of the named losses, or the compiled loss if `compile` was given one.

        A class id that is out of range makes it NaN.
        """
        if self._compile_loss is not None:
            return super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        if sample_weight is not None and not self.takes_sample_weight:
            raise ValueError(f"`sample_weight` is not used by the losses of {type(self).__name__}; leave it out")
        options = {} if sample_weight is None else {"sample_weight": sample_weight}
        losses, invalid = self._screened_losses(y_pred, x, y, **options)
        self.invalid_targets.update_state(invalid)
        for name, value in losses.items():
            self.loss_trackers[name].update_state(value)
        total = sum(losses.values()) + sum(self.losses)  # self.losses: what layers add, such as regularisation
        return total / _replicas()

    @property
    def metrics(self):
        """The metrics that `fit` resets, updates and logs: the named losses are not among them under another loss."""
        unused = self.loss_trackers.values() if self._compile_loss is not None else []
        return [metric for metric in super().metrics if not any(metric is tracker for tracker in unused)]

    def get_metrics_result(self):
        """Return the values of all metrics to be logged, by name."""
        return {name: value for name, value in super().get_metrics_result().items() if name != "invalid_targets"}

    def count_invalid_targets(self):
        """Return how many class ids out of range this epoch's targets had so far."""
        if keras.backend.backend() == "jax":
            self.jax_state_sync()  # in the midst of an epoch, JAX keeps the state outside of the model
        return int(self.invalid_targets.result())

    def compile(self, optimizer=None, loss=None, *, metrics=None, **kwargs):
        """Prepare the model for training; everything left out is the recipe's.

        Args:
            optimizer: A Keras optimizer or its name; default: the recipe's, whose schedule `fit` stretches over
                the whole training.
            loss: A Keras loss in place of the architecture's own.
            metrics: Keras metrics.
            **kwargs: As in `keras.Model.compile`.
        """
        self._uses_recipe = optimizer is None
        if optimizer is None:
            optimizer = self.recipe.make_optimizer(self.trainable_variables)
        self.loss = self._compile_loss = None  # Keras would keep a loss of an earlier compile
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)

    def get_compile_config(self):
        """Return what `compile_from_config` needs; nothing for a model that was never compiled."""
        config = super().get_compile_config()
        if not config:
            return config
        return {**config, "uses_recipe": self._uses_recipe, "optimizer_built": self.optimizer.built}

    def compile_from_config(self, config):
        """Compile as a saved model was compiled, and create the optimizer's variables for its state, if it had any."""
        config = dict(config)
        uses_recipe, has_state = config.pop("uses_recipe", False), config.pop("optimizer_built", True)
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**config)
        self._uses_recipe = uses_recipe
        if has_state:
            self.optimizer.build(self.trainable_variables)

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose: str | int = "auto",
        callbacks=None,
        *,
        validation_data=None,
        stop_on_non_finite_loss=True,
        **kwargs,
    ):
        """Train the model: `keras.Model.fit`, with the recipe's learning rate stretched over all steps.

        Args:
            x: As in `keras.Model.fit`.
            y: As in `keras.Model.fit`, if `x` holds images.
            batch_size: Images a step, if `x` holds images.
            epochs: As in `keras.Model.fit`.
            verbose: As in `keras.Model.fit`.
            callbacks: Keras callbacks.
            validation_data: As in `keras.Model.fit`.
            stop_on_non_finite_loss: Whether a loss that is NaN or infinite is an error at once, see
                `StopOnNonFiniteLoss`, which may also be among `callbacks`.
            **kwargs: As in `keras.Model.fit`.

        Raises:
            ValueError: Targets that do not fit the model.
            NonFiniteLossError: A loss is not finite.
        """
        if not self.compiled:
            self.compile()
        x, y = self._checked_data(x, y)
        if isinstance(validation_data, list | tuple):
            validation_data = (*self._checked_data(*validation_data[:2]), *validation_data[2:])
        elif validation_data is not None:
            validation_data, _ = self._checked_data(validation_data)
        if stop_on_non_finite_loss:
            callbacks = self._with_stop(callbacks)
        if self._uses_recipe:
            steps = steps_of(x, batch_size, kwargs.get("steps_per_epoch"))
            # Only SGD's rate depends on it, and it may take reading a batch.
            size = images_a_step(x, batch_size) if self.recipe.optimizer == "sgd" else None
            start = int(self.optimizer.iterations) - (steps or 0) * kwargs.get("initial_epoch", 0)
            self.optimizer.learning_rate = self.recipe.schedule(
                total_steps=None if steps is None else steps * epochs, batch_size=size, start=start
            )
            self.train_function = None  # it has the former learning rate compiled in
        return super().fit(
            x,
            y,
            batch_size=batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_data=validation_data,
            **kwargs,
        )

    def train_on_batch(self, x, y=None, *args, **kwargs):
        """Take one step: `keras.Model.train_on_batch`, with targets checked and padded as in `fit`."""
        return super().train_on_batch(x, None if y is None else self.checked_targets(y), *args, **kwargs)

    def test_on_batch(self, x, y=None, *args, **kwargs):
        """Measure one batch: `keras.Model.test_on_batch`, with targets checked and padded as in `fit`."""
        return super().test_on_batch(x, None if y is None else self.checked_targets(y), *args, **kwargs)

    def _checked_data(self, x, y=None):
        """Return `fit`'s data with checked targets, if they are at hand."""
        return x, None if y is None else self.checked_targets(y)

    def _with_stop(self, callbacks):
        """Return `fit`'s callbacks with `StopOnNonFiniteLoss` among them."""
        is_list = isinstance(callbacks, keras.callbacks.CallbackList)
        given = callbacks.callbacks if is_list else keras.tree.flatten(callbacks or [])
        if any(isinstance(callback, StopOnNonFiniteLoss) for callback in given):
            return callbacks
        stop = StopOnNonFiniteLoss()
        if not is_list:
            return [stop, *given]
        stop.set_model(self)
        callbacks.callbacks.append(stop)
        return callbacks

    def get_config(self):
        """Return the constructor's arguments, and which layers are trained."""
        return {
            "num_classes": self.num_classes,
            "class_names": self.class_names,
            "resize_rule": self.resize_rule.get_config(),
            "image_mean": self.image_normalization.mean,
            "image_std": self.image_normalization.std,
            "recipe": asdict(self.recipe),
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            **trainable_config(self, without=getattr(self, "backbone", None)),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Build the model from what `get_config` returned."""
        arguments = constructor_arguments(config)
        for key in ("backbone", "dtype"):
            if isinstance(arguments.get(key), dict):
                arguments[key] = keras.saving.deserialize_keras_object(arguments[key], custom_objects)
        model = cls(**arguments)
        return restore_trainable(model, config, without=getattr(model, "backbone", None))


def nan_if(count):
    """Return NaN if a number is above zero, zero otherwise; added to a loss, it leaves the gradients finite."""
    return ops.where(ops.convert_to_tensor(count) > 0, float("nan"), 0.0)


def _replicas():
    """Return how many devices share a batch under tf.distribute, whose strategies add up gradients."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync

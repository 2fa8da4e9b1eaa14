"""Training recipes: what `model.compile()` without arguments means."""

from dataclasses import dataclass, replace
from typing import Literal

import keras
from keras import ops

from kerasvision.models.rate_factors import LayerwiseAdamW, LayerwiseSGD

# ParseNet (Liu et al. 2015, https://arxiv.org/abs/1506.04579, section 3.1) and DeepLab after it: the "poly" policy.
_POLY_POWER = 0.9


@keras.saving.register_keras_serializable("kerasvision")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly, then follows a cosine or a polynomial, steps down, or stays.

    Args:
        peak: Learning rate after the warm-up.
        warmup_steps: Number of steps it takes to reach `peak`, from `peak / 1000`.
        total_steps: Number of steps of the whole training; ``None`` if unknown, which means to stay at `peak`.
        decay: ``"cosine"`` to zero, ``"polynomial"`` to zero as (1 - t)^0.9, ``"step"`` by a factor of ten at each
            milestone, or ``"constant"``.
        milestones: Shares of `total_steps`, in [0, 1], at which ``"step"`` steps down.
        start: The optimizer's step at which this training began, if it is not the optimizer's first.
    """

    def __init__(self, peak, warmup_steps=0, total_steps=None, decay="cosine", milestones=(), start=0):
        super().__init__()
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        self.decay = decay
        self.milestones = tuple(milestones)
        self.start = start

    def __call__(self, step):
        """Return the learning rate at `step`."""
        step = ops.cast(step, "float32") - self.start
        factor = ops.ones_like(step)
        if self.total_steps is not None and self.decay in ("cosine", "polynomial"):
            span = max(1, self.total_steps - self.warmup_steps)
            progress = ops.clip((step - self.warmup_steps) / span, 0.0, 1.0)
            cosine = 0.5 * (1 + ops.cos(3.141592653589793 * progress))
            factor = cosine if self.decay == "cosine" else ops.power(1 - progress, _POLY_POWER)
        elif self.total_steps is not None and self.decay == "step":
            for milestone in self.milestones:
                factor = ops.where(step >= milestone * self.total_steps, 0.1 * factor, factor)
        if self.warmup_steps:
            ramp = ops.minimum(step / self.warmup_steps, 1.0)
            factor = factor * (0.001 + 0.999 * ramp)
        return self.peak * factor

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
            "decay": self.decay,
            "milestones": self.milestones,
            "start": self.start,
        }


@dataclass(frozen=True)
class Recipe:
    """How an architecture is trained.

    Args:
        optimizer: ``"sgd"`` with momentum, or ``"adamw"``.
        learning_rate: Peak learning rate at `batch_size`; scaled linearly to other batch sizes for SGD.
        batch_size: Number of images a step that `learning_rate` holds for.
        weight_decay: Decoupled weight decay; normalisation parameters and biases are exempt.
        momentum: Momentum of SGD.
        warmup_steps: Steps of linear warm-up, at most a tenth of the training.
        decay: As in `WarmupSchedule`.
        milestones: As in `WarmupSchedule`.
        epochs: Length of the published training.
        clip_norm: Global gradient norm at which gradients are scaled down; ``None`` for no bound.
        rate_factors: Pairs of a layer's name and the factor of its learning rate; see `LayerwiseSGD`.
        source: Where the figures come from.
    """

    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    batch_size: int = 16
    weight_decay: float = 1e-4
    momentum: float = 0.9
    warmup_steps: int = 100
    decay: Literal["cosine", "polynomial", "step", "constant"] = "cosine"
    milestones: tuple[float, ...] = ()
    epochs: int = 12
    clip_norm: float | None = None
    rate_factors: tuple[tuple[str, float], ...] = ()
    source: str = ""

    def __post_init__(self):
        # A saved model's configuration comes back from JSON, which knows lists only.
        object.__setattr__(self, "milestones", tuple(self.milestones))
        object.__setattr__(self, "rate_factors", tuple((name, factor) for name, factor in self.rate_factors))

    def replace(self, **changes) -> "Recipe":
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    def schedule(
        self, *, total_steps: int | None = None, batch_size: int | None = None, start: int = 0
    ) -> WarmupSchedule:
        """Return the learning rate of a training of `total_steps` steps of `batch_size` images."""
        peak = self.learning_rate
        if self.optimizer == "sgd" and batch_size is not None:
            peak *= batch_size / self.batch_size
        warmup = self.warmup_steps if total_steps is None else min(self.warmup_steps, max(1, total_steps // 10))
        return WarmupSchedule(peak, warmup, total_steps, self.decay, self.milestones, start)

    def make_optimizer(self, variables=()):
        """Return a fresh Keras optimizer.

        Args:
            variables: The model's trainable variables, from which those without weight decay are told apart.
        """
        options = {
            "learning_rate": self.schedule(),
            "weight_decay": self.weight_decay,
            "global_clipnorm": self.clip_norm,
        }
        if self.optimizer == "sgd":
            options["momentum"] = self.momentum
        if self.rate_factors:
            kind = LayerwiseSGD if self.optimizer == "sgd" else LayerwiseAdamW
            optimizer = kind(rate_factors=self.rate_factors, **options)
        else:
            optimizer = (keras.optimizers.SGD if self.optimizer == "sgd" else keras.optimizers.AdamW)(**options)
        exempt = [variable for variable in variables if len(variable.shape) < 2]
        if exempt:
            optimizer.exclude_from_weight_decay(var_list=exempt)
        return optimizer


# What the small segmenters of the zoo share. They begin with random weights; their papers' rates, for networks that
# begin with a classifier's weights, are too low.
SMALL_SEGMENTER = Recipe(
    learning_rate=2e-3,
    batch_size=8,
    weight_decay=1e-4,
    warmup_steps=100,
    epochs=8,
    clip_norm=1.0,
    source="this project, for small networks from random weights: zoo/recipes/streets.py",
)

# What the small detectors share, which begin with random weights too.
SMALL_DETECTOR = Recipe(
    learning_rate=2e-3,
    batch_size=8,
    weight_decay=1e-4,
    warmup_steps=200,
    epochs=4,
    clip_norm=10.0,
    source="this project, zoo/recipes/streets.py",
)

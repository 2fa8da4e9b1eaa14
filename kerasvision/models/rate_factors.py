"""Optimizers that train some layers faster than others, as papers do with new heads on old backbones."""

from typing import Any

import keras


class _RateFactors:
    """Mixed into a Keras optimizer: the learning rate of a variable is multiplied by the factor of its layer.

    Weight decay goes with the common learning rate.
    """

    _get_variable_index: Any

    def __init__(self, *args, rate_factors=(), **kwargs):
        super().__init__(*args, **kwargs)
        self.rate_factors = tuple((str(name), float(factor)) for name, factor in rate_factors)
        if any(factor < 0 for _, factor in self.rate_factors):
            raise ValueError(f"`rate_factors` {self.rate_factors!r} must be pairs of a layer's name and a factor >= 0")
        self._factors = []

    def build(self, variables):
        """Create the optimizer's variables, and look up each variable's factor by its path."""
        super().build(variables)  # type: ignore[misc]
        factors = dict(self.rate_factors)
        self._factors = [
            next((factors[name] for name in variable.path.split("/") if name in factors), 1.0) for variable in variables
        ]

    def update_step(self, gradient, variable, learning_rate):
        """Take one variable's step."""
        factor = self._factors[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * factor)  # type: ignore[misc]

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "rate_factors": self.rate_factors}  # type: ignore[misc]


@keras.saving.register_keras_serializable("kerasvision")
class LayerwiseSGD(_RateFactors, keras.optimizers.SGD):
    """`keras.optimizers.SGD` with learning rates by layer.

    Args:
        rate_factors: Pairs of a layer's name and the factor of the learning rate of all variables within it.
        *args: As in `keras.optimizers.SGD`, and so is the rest.
    """


@keras.saving.register_keras_serializable("kerasvision")
class LayerwiseAdamW(_RateFactors, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` with learning rates by layer; see `LayerwiseSGD`."""

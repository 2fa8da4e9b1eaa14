"""What all backbones share: a dtype policy, layers that are not trained, and a configuration."""

import keras

from kerasvision.layers.trainability import constructor_arguments, pass_on_frozen, restore_trainable, trainable_config


class Backbone(keras.Model):
    """Base of all backbones: functional models from normalised images to a list of features, from fine to coarse.

    Subclasses note their arguments, set the policy of their layers by `use_dtype`, build these, and call this
    constructor; they define `strides` and extend `get_config`.

    Args:
        inputs: The input of the images.
        features: The outputs.
        is_frozen: Function of a layer's name: whether it is not trained. Default: all are.
        **kwargs: As in `keras.Model`.
    """

    def __init__(self, inputs, features, *, is_frozen=None, **kwargs):
        super().__init__(inputs, features, **kwargs)
        self.dtype_policy = self._layer_dtype  # Keras's functional models take no dtype
        if is_frozen is not None:
            for layer in self.layers:
                if is_frozen(layer.name):
                    layer.trainable = False
        pass_on_frozen(self)

    def use_dtype(self, dtype):
        """Set `_layer_dtype`, the policy for all layers: `dtype`, or Keras's global one if that is ``None``."""
        self._layer_dtype = keras.dtype_policies.get(dtype or keras.config.dtype_policy())

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels from one cell to the next, of each feature."""
        raise NotImplementedError

    def get_config(self):
        """Return dtype and name, and which layers are trained."""
        return {
            "dtype": keras.dtype_policies.serialize(self._layer_dtype),
            "name": self.name,
            **trainable_config(self),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Build the backbone from what `get_config` returned."""
        return restore_trainable(cls(**constructor_arguments(config)), config)


def check_output_stride(output_stride):
    """Raise ValueError for a stride that no dilated backbone has."""
    if output_stride not in (8, 16, 32):
        raise ValueError(f"`output_stride` {output_stride!r} must be 8, 16 or 32")

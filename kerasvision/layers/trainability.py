"""Which parts of a model are trained: written into its configuration, and put back from there.

Keras keeps `trainable` of a layer alone. A model or layer made of others must keep theirs as well, or a backbone that
was frozen would be trained after loading.
"""

import warnings


def trainable_config(model, *, without=None) -> dict:
    """Return which parts of a model are trained, for its configuration.

    Args:
        model: A Keras model or layer.
        without: A sub-layer that is left out with all it holds, as it has a configuration of its own.

    Returns:
        dict of `trainable`, the model's own flag, and `trainable_parts`: the flags of the sub-layers that differ from
        that of the layer they are in, by path, such as ``{"pyramid/lateral_0": False}``.
    """
    parts = {
        path: layer.trainable
        for path, layer, parent in _sub_layers(model, without)
        if layer is not without and layer.trainable != parent.trainable
    }
    return {"trainable": model.trainable, "trainable_parts": parts}


def constructor_arguments(config: dict) -> dict:
    """Return a configuration without what `trainable_config` put into it: what the constructor takes."""
    return {key: value for key, value in config.items() if key not in ("trainable", "trainable_parts")}


def restore_trainable(model, config: dict, *, without=None):
    """Set what `trainable_config` returned; its keys may be missing, as in configurations written by hand.

    Args:
        model: The model, newly built from the rest of its configuration.
        config: Its configuration.
        without: As in `trainable_config`.

    Returns:
        The model.
    """
    trainable, parts = config.get("trainable", True), config.get("trainable_parts")
    if parts is None:
        if not trainable:
            model.trainable = False
        return model
    layers = list(_sub_layers(model, without))
    unknown = parts.keys() - {path for path, _, _ in layers}
    if unknown:
        warnings.warn(
            f"`trainable_parts` of {model.name} names {', '.join(sorted(unknown))}, which it does not have; "
            "set `trainable` of what took their place",
            stacklevel=2,
        )
    kept = [] if without is None else [(layer, layer.trainable) for layer in without._flatten_layers()]
    # From the top down: Keras passes each flag on to all that a layer holds.
    model.trainable = trainable
    flags = {id(model): trainable}
    for path, layer, parent in layers:
        flags[id(layer)] = layer.trainable = parts.get(path, flags[id(parent)])
    for layer, flag in kept:
        layer.trainable = flag
    return model


def pass_on_frozen(layer):
    """Freeze what a layer holds if it is frozen itself; Keras does so only when `trainable` is set after building."""
    if not layer.trainable:
        for part in layer._flatten_layers(include_self=False):
            part.trainable = False


def _sub_layers(layer, without, path=""):
    """Yield (path, sub-layer, the layer that holds it), each before its own sub-layers."""
    for child in layer._flatten_layers(include_self=False, recursive=False):
        child_path = f"{path}{child.name}"
        yield child_path, child, layer
        if child is not without:
            yield from _sub_layers(child, without, f"{child_path}/")

"""The state of a training run, in one file that is replaced as a whole."""

import json
from pathlib import Path

import keras
import numpy as np
from keras import ops

from kerasvision.files import replacing

_FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or belongs to another model."""


def save_checkpoint(path, model, *, epoch, history, extra=None):
    """Write weights, optimizer state and metric history, atomically: a kill leaves the old file or the new one.

    Args:
        path: Where to write, ending in `.safetensors`.
        model: A compiled model.
        epoch: Number of epochs done.
        history: dict of metric name to list of values, one an epoch.
        extra: Anything else that JSON can hold.
    """
    from safetensors.numpy import save_file

    metadata = {
        "format": _FORMAT,
        "epoch": epoch,
        "history": history,
        "config": _signature(model),
        "extra": extra or {},
    }
    tensors = {name: np.array(ops.convert_to_numpy(v), order="C") for name, v in _variables(model).items()}
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={"kerasvision": json.dumps(metadata)})


def load_checkpoint(path, model):
    """Read what `save_checkpoint` wrote into a compiled model of the same architecture.

    Returns:
        dict of `epoch`, `history` and `extra`.

    Raises:
        CheckpointError: No such file, a damaged one, or one of another model; the model is left as it was.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"no checkpoint at {path}; start without resume")
    try:
        with safe_open(path, "np") as file:
            metadata = json.loads((file.metadata() or {}).get("kerasvision", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is no readable checkpoint ({error}); start a new run directory") from error
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is no kerasvision checkpoint of format {_FORMAT}; start a new run directory")
    if metadata["config"] != _signature(model):
        raise CheckpointError(f"{path} belongs to a model of another configuration; build that model, or start anew")
    model.optimizer.build(model.trainable_variables)
    variables = _variables(model)
    if variables.keys() != tensors.keys():
        different = sorted(variables.keys() ^ tensors.keys())
        raise CheckpointError(f"{path} differs from the model in {len(different)} variables, such as {different[0]}")
    for name, variable in variables.items():
        if tuple(variable.shape) != tensors[name].shape:
            raise CheckpointError(
                f"{path} holds {name} of shape {tensors[name].shape}, expected {tuple(variable.shape)}"
            )
    for name, variable in variables.items():
        variable.assign(tensors[name])
    return metadata


def _variables(model):
    """Return model and optimizer variables under names that do not depend on layers made earlier in the process."""
    groups = {"model": model.variables, "optimizer": model.optimizer.variables}
    return {f"{group}/{i:04d}": v for group, variables in groups.items() for i, v in enumerate(variables)}


def _signature(model):
    """Return what must agree between the model that wrote a checkpoint and the one that reads it."""
    optimizer = keras.saving.serialize_keras_object(model.optimizer)["class_name"]
    return {"model": type(model).__name__, "num_classes": model.num_classes, "optimizer": optimizer}

"""The package's own weights file: one `.safetensors`, small, without code, and knowing what it is.

Tensors are named as in `zoo.converters.assign.variable_names`, which does not depend on how many layers the
process made before. The header's metadata holds, under ``"kerasvision"``, a JSON object with the model's
name, classes, resize rule and configuration.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasvision.files import replacing
from kerasvision.ops.resizing import ResizeRule
from zoo.converters.assign import Assignment, assign, variable_names
from zoo.errors import WeightsError

if TYPE_CHECKING:
    import keras

_METADATA_KEY = "kerasvision"
_FORMAT = 1


@dataclass(frozen=True)
class Metadata:
    """What a file of weights says about itself.

    Args:
        name: The model's name in the zoo.
        num_classes: Number of classes of its head.
        class_names: Their names, if known.
        resize_rule: What the weights saw in training, if known.
        config: The model's `get_config()` as JSON holds it: weights that were trained with another epsilon
            or normalisation fit by name and shape, and would give other outputs.
        extra: Anything else that JSON can hold, such as figures and the recipe.
    """

    name: str
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    resize_rule: ResizeRule | None = None
    config: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: "keras.Model", name: str | None = None, extra: Mapping | None = None) -> "Metadata":
        """Read a model's own attributes."""
        names = getattr(model, "class_names", None)
        return cls(
            name=name or model.name,
            num_classes=getattr(model, "num_classes", None),
            class_names=None if names is None else tuple(names),
            resize_rule=getattr(model, "resize_rule", None),
            config=config_as_json(model),
            extra=dict(extra or {}),
        )

    def to_json(self) -> str:
        """Return the JSON text that is stored in the file, with sorted keys."""
        content = {
            "format": _FORMAT,
            "name": self.name,
            "num_classes": self.num_classes,
            "class_names": self.class_names,
            "resize_rule": None if self.resize_rule is None else self.resize_rule.get_config(),
            "config": self.config,
            "extra": dict(self.extra),
        }
        return json.dumps(content, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, path: Path) -> "Metadata":
        """Read what `to_json` wrote.

        Raises:
            WeightsError: No JSON, or of a newer format than this version knows.
        """
        try:
            content = json.loads(text)
            if content["format"] != _FORMAT:
                raise WeightsError(f"{path} has format {content['format']}; this version reads {_FORMAT}")
            if "history" in content:
                raise WeightsError(
                    f"{path} is what a training run resumes from; use best.keras or final.keras beside it"
                )
            names, rule = content["class_names"], content["resize_rule"]
            return cls(
                name=content["name"],
                num_classes=content["num_classes"],
                class_names=None if names is None else tuple(names),
                resize_rule=None if rule is None else ResizeRule(**rule),
                config=content["config"],
                extra=content["extra"],
            )
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, WeightsError):
                raise
            raise WeightsError(f"{path} has damaged metadata ({error!r}); save it again") from error


def save_weights(
    model: "keras.Model",
    path: str | Path,
    *,
    name: str | None = None,
    float16: bool = False,
    extra: Mapping | None = None,
) -> Path:
    """Write a model's weights and what they are into one `.safetensors` file, atomically.

    Args:
        model: A built model. `num_classes`, `class_names` and `resize_rule` are read from it.
        path: The file, ending in ``.safetensors``; replaced if it exists.
        name: The model's name in the zoo; default: the Keras model's.
        float16: Store kernels in half the space, rounded. Vectors (biases, normalisation) and kernels with values
            beyond float16's range stay float32.
        extra: Further metadata that JSON can hold.

    Returns:
        The path.

    Raises:
        WeightsError: A variable is not finite, or the path has another ending.
    """
    from safetensors.numpy import save

    path = Path(path)
    if path.suffix != ".safetensors":
        raise WeightsError(f"`path` {str(path)!r} must end in .safetensors")
    tensors = {}
    for variable_name, variable in variable_names(model).items():
        array = to_numpy(variable).astype(np.float32)
        if not np.isfinite(array).all():
            raise WeightsError(f"{variable_name} holds values that are not finite; such weights are not saved")
        if float16 and array.ndim > 1 and np.abs(array).max(initial=0) <= np.finfo(np.float16).max:
            array = array.astype(np.float16)
        tensors[variable_name] = np.ascontiguousarray(array)
    content = save(tensors, {_METADATA_KEY: Metadata.of(model, name, extra).to_json()})
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_bytes(content)
    return path


def load_weights(model: "keras.Model", path: str | Path) -> Metadata:
    """Fill a model from a file that `save_weights` wrote for the same architecture and classes.

    Returns:
        The file's metadata.

    Raises:
        WeightsError: Damaged, not written by `save_weights`, or of another architecture.
    """
    tensors, metadata = read_safetensors(path)
    if metadata is None:
        raise WeightsError(f"{path} was not written by save_weights; give zoo.get its path to convert it")
    apply(model, tensors, origin=str(path), target=model.name)
    return metadata


def apply(
    model: "keras.Model",
    tensors: Mapping[str, np.ndarray],
    *,
    origin: str,
    target: str,
    classes: tuple[int, int] | None = None,
) -> list[str]:
    """Fill a model from tensors named by `variable_names`.

    Args:
        model: A built model.
        tensors: Name -> array.
        origin: The file, for messages.
        target: The model, for messages.
        classes: (number in the file, number in the model) where they differ: variables whose shape differs
            just so are left alone.

    Returns:
        The names of the variables left alone.
    """
    assignments = [
        Assignment(name, variable, head=_of_head(tensors.get(name), variable, classes))
        for name, variable in variable_names(model).items()
    ]
    return assign(model, tensors, assignments, origin=origin, target=target, keep_head=classes is not None)


def read_safetensors(path: str | Path) -> tuple[dict[str, np.ndarray], Metadata | None]:
    """Read a `.safetensors` file.

    Returns:
        Name -> array (bfloat16 as float32), and the metadata if this package wrote the file.

    Raises:
        FileNotFoundError: No such file.
        WeightsError: Truncated, damaged, or no such file format.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: _widened(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, ValueError, OSError) as error:
        raise WeightsError(f"{path} is truncated or damaged, or no safetensors file ({error})") from error
    stored = metadata.get(_METADATA_KEY)
    return tensors, None if stored is None else Metadata.from_json(stored, path)


def config_as_json(model: "keras.Model") -> dict[str, Any] | None:
    """Return a model's configuration as JSON gives it back (lists for tuples), or ``None`` if it has none."""
    try:
        return json.loads(json.dumps(model.get_config()))
    except (NotImplementedError, TypeError, ValueError):
        return None


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _of_head(array: np.ndarray | None, variable: "keras.Variable", classes: tuple[int, int] | None) -> bool:
    """Whether the shapes differ in one axis alone, by the ratio of the numbers of classes."""
    if classes is None or array is None or array.ndim != len(variable.shape):
        return False
    old, new = classes
    differing = [(a, b) for a, b in zip(array.shape, variable.shape, strict=True) if a != b]
    return len(differing) == 1 and differing[0][0] * new == differing[0][1] * old


def to_numpy(variable: "keras.Variable") -> np.ndarray:
    """Return a variable's values on the host."""
    from keras import ops

    return np.asarray(ops.convert_to_numpy(variable))

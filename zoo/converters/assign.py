"""Puts the tensors of a file into the variables of a model: all of them, or none.

A `Converter` describes one foreign layout as pairs of a tensor's name and a variable. `assign` demands that
the pairs use up every tensor of the file and fill every variable of the model, names whatever is left over,
missing or of another shape, and changes the model only once everything fits.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from zoo.errors import WeightsError

if TYPE_CHECKING:
    import keras

Transform = Callable[[np.ndarray], np.ndarray]
_NAMED_IN_MESSAGES = 4


def as_is(array: np.ndarray) -> np.ndarray:
    """Return the array: vectors lie the same way in every framework."""
    return array


def kernel_from_torch(array: np.ndarray) -> np.ndarray:
    """Turn a convolution kernel (out, in, H, W) into (H, W, in, out).

    PyTorch keeps a transposed convolution as (in, out, H, W), Keras as (H, W, out, in): the same move.
    """
    return array.transpose(2, 3, 1, 0)


def matrix_from_torch(array: np.ndarray) -> np.ndarray:
    """Turn a dense layer's matrix (out, in) into (in, out)."""
    return array.T


@dataclass(frozen=True)
class Assignment:
    """One variable and where its values come from.

    Args:
        source: Name of the tensor in the file.
        variable: The Keras variable.
        transform: From the file's axis order to the variable's.
        head: Whether its shape depends on the number of classes, so that it is left alone when that changes.
    """

    source: str
    variable: "keras.Variable"
    transform: Transform = as_is
    head: bool = False


@dataclass(frozen=True)
class Converter:
    """One foreign layout of weights.

    Args:
        layout: What to call it in messages, such as ``"torchvision RetinaNet"``.
        recognises: Whether a file with these tensor names (after `rename`) has this layout.
        assignments: The pairs, for a built model.
        part: ``"model"``, or ``"backbone"`` where the file fills the backbone alone.
        scope: The layer whose every variable must be filled; the model itself or its backbone; or several layers.
        fills: What to call the scope in messages, where `part` is ``"backbone"``.
        rename: From an old spelling of a tensor's name to the current one.
        ignored: Regular expressions; tensors whose whole name matches one are knowingly not used.
        num_classes: The number of classes of a file's tensors, or ``None`` if the layout has none.
    """

    layout: str
    recognises: Callable[[Collection[str]], bool]
    assignments: Callable[["keras.Model"], Iterable[Assignment]]
    part: Literal["model", "backbone"] = "model"
    scope: Callable[["keras.Model"], "keras.Layer | Sequence[keras.Layer]"] = lambda model: model
    fills: str = "the backbone"
    rename: Callable[[str], str] = lambda name: name
    ignored: tuple[str, ...] = ()
    num_classes: Callable[[Mapping[str, np.ndarray]], int | None] = lambda tensors: None

    def renamed(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the tensors under their current names."""
        return {self.rename(name): array for name, array in tensors.items()}

    def apply(
        self,
        model: "keras.Model",
        tensors: Mapping[str, np.ndarray],
        *,
        origin: str,
        target: str,
        keep_head: bool = False,
    ) -> list[str]:
        """Fill `model` from the tensors of a file; arguments, result and errors as in `assign`."""
        return assign(
            self.scope(model),
            self.renamed(tensors),
            self.assignments(model),
            origin=origin,
            target=target if self.part == "model" else f"{self.fills} of {target}",
            keep_head=keep_head,
            ignored=self.ignored,
        )


def assign(
    scope: "keras.Layer | Sequence[keras.Layer]",
    tensors: Mapping[str, np.ndarray],
    assignments: Iterable[Assignment],
    *,
    origin: str,
    target: str,
    keep_head: bool = False,
    ignored: Collection[str] = (),
) -> list[str]:
    """Fill every variable of a layer from a file's tensors, using every tensor.

    Args:
        scope: The layer (or model) whose variables are to be filled; or several, with different names.
        tensors: Name -> array.
        assignments: Which tensor fills which variable.
        origin: The file, for messages.
        target: The model, for messages.
        keep_head: Leave the variables that depend on the number of classes as they are.
        ignored: Regular expressions of tensor names that are knowingly not used.

    Returns:
        The names of the variables left alone because of `keep_head`.

    Raises:
        WeightsError: A tensor is missing, unused or of another shape, or a variable is not filled; all are
            named, and no variable has been changed.
    """
    names = _names_in(scope)
    name_of = {id(variable): name for name, variable in names.items()}
    used, filled, kept, missing, misshapen, plan = set(), set(), [], [], [], []
    for assignment in assignments:
        source, name = assignment.source, name_of.get(id(assignment.variable), assignment.variable.path)
        if name in filled:
            raise WeightsError(f"the converter fills {name} twice, the second time from {source}")
        filled.add(name)
        used.add(source)
        if source not in tensors:
            missing.append(source if source == name else f"{source} (for {name})")
        elif keep_head and assignment.head:
            kept.append(name)
        else:
            array, expected = _transformed(assignment, tensors[source]), tuple(assignment.variable.shape)
            if array.shape == expected:
                plan.append((assignment.variable, array))
            else:
                misshapen.append(f"{source} {array.shape} for {name} {expected}")

    patterns = [re.compile(pattern) for pattern in ignored]
    unused = [name for name in tensors if name not in used and not any(p.fullmatch(name) for p in patterns)]
    unfilled = [name for name in names if name not in filled]
    problems = [
        f"{len(found)} {what}: {', '.join(found[:_NAMED_IN_MESSAGES])}"
        + (", …" if len(found) > _NAMED_IN_MESSAGES else "")
        for what, found in (
            ("tensors missing in the file", missing),
            ("tensors of the file unused", unused),
            ("variables without a tensor", unfilled),
            ("tensors of another shape", misshapen),
        )
        if found
    ]
    if problems:
        raise WeightsError(f"{origin} does not fit {target}: {'; '.join(problems)}")
    for variable, array in plan:
        variable.assign(np.ascontiguousarray(array, dtype=np.float32))
    return kept


def _names_in(scope: "keras.Layer | Sequence[keras.Layer]") -> dict[str, "keras.Variable"]:
    """Name the variables of a layer, or of several by the layer's name as well."""
    if not isinstance(scope, Sequence):
        return variable_names(scope)
    return {f"{layer.name}/{name}": variable for layer in scope for name, variable in variable_names(layer).items()}


def _transformed(assignment: Assignment, array: np.ndarray) -> np.ndarray:
    try:
        return assignment.transform(array)
    except ValueError:  # another number of axes: the shapes will be reported as they are
        return array


def variable_names(layer: "keras.Layer") -> dict[str, "keras.Variable"]:
    """Name every variable of a layer by its place in the tree of layers.

    The name is the path of layer names below `layer`, such as ``resnet/stem/normalization/gamma``. A name
    that Keras made up (``conv2d_17``) counts all layers of the process, so it is replaced by the class and
    the position among its siblings (``conv2d.0``); the result depends on the architecture alone.

    Args:
        layer: A built layer or model.

    Returns:
        Name -> variable, seeds and metrics excluded, in the order of creation.

    Raises:
        ValueError: Two variables have the same place: two siblings were given the same name.
    """
    found: dict[str, keras.Variable] = {}
    seen: set[int] = set()
    _collect(layer, "", found, seen)
    return found


def _collect(layer: "keras.Layer", prefix: str, found: dict, seen: set[int]) -> None:
    from keras import Layer

    children = list(layer._flatten_layers(include_self=False, recursive=False))
    below = {id(variable) for child in children for variable in child.weights}
    for variable in layer.weights:
        if id(variable) not in below and id(variable) not in seen:
            _add(found, f"{prefix}{variable.name}", variable)
            seen.add(id(variable))
    counts: dict[str, int] = {}
    for child in children:
        if not isinstance(child, Layer):
            continue
        name = child.name
        base = _snake_case(type(child).__name__)
        if re.fullmatch(rf"{re.escape(base)}(_\d+)?", name):
            counts[base] = counts.get(base, -1) + 1
            name = f"{base}.{counts[base]}"
        _collect(child, f"{prefix}{name}/", found, seen)


def _add(found: dict, name: str, variable: "keras.Variable") -> None:
    if name in found:
        raise ValueError(f"two variables are called {name!r}; give the layers that hold them different names")
    found[name] = variable


def _snake_case(name: str) -> str:
    """Return the name that Keras gives an unnamed layer of this class (keras/src/utils/naming.py)."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()

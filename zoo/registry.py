"""What the zoo offers: one `Entry` per model, one `Weights` per published set of weights.

Entries are data. They name their builder and their converter as ``"module:attribute"``, so that listing
models imports neither. The built-in ones are the `ENTRIES` of each module in `zoo.entries`; `register` adds
a user's own.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from kerasvision.naming import close_matches
from kerasvision.ops.resizing import ResizeRule
from zoo.class_names import CLASS_NAMES

Task = Literal["detection", "segmentation"]
EMBEDDED = "embedded:"
NATIVE = "native"  # a converter's name for the package's own layout, which needs none


@dataclass(frozen=True)
class Weights:
    """One set of weights of an entry.

    Args:
        tag: Its name after the dot, as in ``retinanet_resnet50_fpn.coco_v1``.
        source: Where the file is: an http(s) address, or ``"embedded:<file>"`` inside this package.
        sha256: The file's SHA-256 in hex, or its first 8 digits or more, as PyTorch's file names have them.
        converter: ``"module:NAME"`` of the `zoo.converters.Converter` that knows the layout, or `NATIVE`.
        license: Licence of the weights and, where it differs, of the data they learnt from.
        resize_rule: What the weights saw in training; ``None`` for ``part="backbone"``.
        num_classes: Outputs per anchor or pixel; ``None`` for ``part="backbone"``.
        class_names: The names of those outputs, or the key of a list in `zoo.class_names.CLASS_NAMES`.
        part: ``"model"``, or ``"backbone"`` where the file fills the backbone alone.
        fills: What a file of ``part="backbone"`` fills, as its converter says, if it is more than the backbone. Said
            here too, so that `info` imports no converter.
        size_bytes: Size of the download; for the progress bar, so it may be rounded.
        reported: Figures that the publisher states, such as ``{"COCO val2017 AP": 36.4}``.
        measured: Figures that this project measured on the converted weights.
        options: What the builder must be given for equal outputs, such as ``{"norm_epsilon": 0.0}``.
        recipe: How the weights were trained: an address or a path in this repository.

    Raises:
        ValueError: A checksum shorter than 8 digits, an unknown list of class names, or another number of
            names than of classes.
    """

    tag: str
    source: str
    sha256: str
    converter: str
    license: str
    resize_rule: ResizeRule | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] | str | None = None
    part: Literal["model", "backbone"] = "model"
    fills: str | None = None
    size_bytes: int | None = None
    reported: Mapping[str, float] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: str | None = None

    def __post_init__(self):
        if len(self.sha256) < 8 or set(self.sha256) - set("0123456789abcdef"):
            raise ValueError(f"`sha256` {self.sha256!r} must be 8 or more lower-case hex digits")
        if not self.source.startswith((EMBEDDED, "https://", "http://")):
            raise ValueError(f"`source` {self.source!r} must begin with https:// or {EMBEDDED}")
        if self.part == "model" and (self.num_classes is None or self.resize_rule is None):
            raise ValueError(f"weights {self.tag!r} need `num_classes` and `resize_rule`; only a backbone has none")
        if isinstance(self.class_names, str):
            if self.class_names not in CLASS_NAMES:
                raise ValueError(f"`class_names` {self.class_names!r} is unknown; use {list(CLASS_NAMES)}")
            object.__setattr__(self, "class_names", CLASS_NAMES[self.class_names])
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(
                f"`class_names` of weights {self.tag!r} has {len(self.class_names)} names for "
                f"`num_classes` {self.num_classes}"
            )

    @property
    def embedded(self) -> bool:
        """Whether the file is inside this package, so that no network is needed."""
        return self.source.startswith(EMBEDDED)


@dataclass(frozen=True)
class Entry:
    """One model of the zoo.

    Args:
        name: ``<architecture>_<backbone>[_<neck>]``.
        task: ``"detection"`` or ``"segmentation"``.
        builder: ``"module:function"``; the function takes `num_classes` and keyword options.
        architecture: ``"module:Class"`` of the model, whose arguments the builder takes as further options.
        paper: Title, authors and address of the paper.
        license: Licence of the architecture's code here.
        description: One sentence.
        parameters: Number of parameters with `macs_classes` classes, frozen statistics included.
        macs: Multiply-accumulates of one forward pass at `macs_hw`, half of what others call FLOPs.
        macs_hw: (height, width) in pixels that `macs` holds for.
        macs_classes: `num_classes` that `parameters` and `macs` hold for.
        weights: The published sets, the best first.
        default: Tag that `zoo.get` takes when `weights` is left out; ``None`` for random ones.
        scratch_options: What the builder is given when the weights are random, where a builder's defaults are meant
            for published ones: frozen layers would stay random. A user's own options win.
        converters: Layouts that `zoo.get(name, weights=path)` reads beyond those of `weights` and the
            package's own.
    """

    name: str
    task: Task
    builder: str
    architecture: str
    paper: str
    license: str = "Apache-2.0"
    description: str = ""
    parameters: int | None = None
    macs: int | None = None
    macs_hw: tuple[int, int] | None = None
    macs_classes: int | None = None
    weights: tuple[Weights, ...] = ()
    default: str | None = None
    scratch_options: Mapping[str, Any] = field(default_factory=dict)
    converters: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.name or "." in self.name:
            raise ValueError(f"`name` {self.name!r} must be non-empty and without a dot, which begins a tag")
        if self.task not in ("detection", "segmentation"):
            raise ValueError(f"`task` {self.task!r} of {self.name} must be 'detection' or 'segmentation'")
        for reference in (self.builder, self.architecture, *self.converters):
            if ":" not in reference:
                raise ValueError(f"{reference!r} of entry {self.name} must read 'module:attribute'")
        tags = self.tags
        if len(set(tags)) != len(tags):
            raise ValueError(f"`weights` of {self.name} name a tag twice: {tags}")
        if self.default is not None and self.default not in tags:
            raise ValueError(f"`default` {self.default!r} of {self.name} must be one of its tags {tags}")

    @property
    def tags(self) -> list[str]:
        """The tags of its weights."""
        return [weights.tag for weights in self.weights]

    @property
    def default_weights(self) -> Weights | None:
        """The weights that `zoo.get` takes when `weights` is left out."""
        return None if self.default is None else self.weights_of(self.default)

    def weights_of(self, tag: str) -> Weights:
        """Return the weights with this tag.

        Raises:
            ValueError: No such tag.
        """
        for weights in self.weights:
            if weights.tag == tag:
                return weights
        raise ValueError(f"{self.name} has no weights {tag!r}; {close_matches(tag, sorted(self.tags), what='it has')}")

    def to_dict(self) -> dict:
        """Return everything as a dict that JSON can hold."""
        return asdict(self)

    def __str__(self) -> str:
        from zoo.describe import as_text

        return as_text(self)

    def __rich__(self):
        from zoo.describe import as_panel

        return as_panel(self)


_entries: dict[str, Entry] = {}
_loaded = False


def register(entry: Entry, *, replace: bool = False) -> Entry:
    """Add a model to the zoo.

    Args:
        entry: The model. Its builder must be importable by whoever calls `zoo.get`.
        replace: Whether it may take the place of an entry with the same name.

    Returns:
        The entry.

    Raises:
        ValueError: The name is taken and `replace` is false.
    """
    if not isinstance(entry, Entry):
        raise TypeError(f"`entry` is a {type(entry).__name__}; expected a zoo.Entry")
    _load()
    if entry.name in _entries and not replace:
        raise ValueError(f"`name` {entry.name!r} is registered already; pass replace=True to replace it")
    _entries[entry.name] = entry
    return entry


def list_models(task: Task | None = None, pretrained: bool | None = None) -> list[str]:
    """Return the names of the models, sorted.

    Args:
        task: Only ``"detection"`` or ``"segmentation"`` models.
        pretrained: ``True`` for those with weights for the whole model, ``False`` for those without
            (weights of a backbone alone do not detect anything).
    """
    if task not in (None, "detection", "segmentation"):
        raise ValueError(f"`task` {task!r} must be 'detection', 'segmentation' or None")
    _load()

    def wanted(entry: Entry) -> bool:
        complete = any(weights.part == "model" for weights in entry.weights)
        return task in (None, entry.task) and pretrained in (None, complete)

    return sorted(name for name, entry in _entries.items() if wanted(entry))


def info(name: str) -> Entry:
    """Return what is known about a model; printed, it is a readable sheet.

    Args:
        name: ``"retinanet_resnet50_fpn"``, or with a tag for one set of weights alone.

    Raises:
        ValueError: Unknown name or tag; the message lists close ones.
    """
    entry, tag = find(name)
    return entry if tag is None else replace(entry, weights=(entry.weights_of(tag),), default=tag)


def find(name: str) -> tuple[Entry, str | None]:
    """Split ``name[.tag]`` and look both up.

    Raises:
        ValueError: Unknown name or tag; the message lists close ones.
    """
    if not isinstance(name, str):
        raise TypeError(f"`name` is a {type(name).__name__}; expected a string such as 'unet_resnet50'")
    _load()
    base, _, tag = name.partition(".")
    if base not in _entries:
        hint = close_matches(base, sorted(_entries), what="it has")
        raise ValueError(f"`name` {base!r} is no model of the zoo; {hint}")
    entry = _entries[base]
    if tag:
        entry.weights_of(tag)
    return entry, tag or None


def import_attribute(reference: str) -> Any:
    """Import ``"module:attribute"``."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _load() -> None:
    """Read the entries of `zoo.entries` once."""
    global _loaded
    if _loaded:
        return
    import zoo.entries

    found: dict[str, Entry] = {}
    for module in pkgutil.iter_modules(zoo.entries.__path__, "zoo.entries."):
        for entry in importlib.import_module(module.name).ENTRIES:
            if entry.name in found:
                raise ValueError(f"{module.name} registers {entry.name!r} a second time")
            found[entry.name] = entry
    _entries.update(found)
    _loaded = True

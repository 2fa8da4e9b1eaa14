"""`zoo.get`: from a name to a model with weights."""

import contextlib
import difflib
import inspect
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasvision.ops.resizing import ResizeRule
from zoo import cache, native
from zoo.converters.assign import Converter
from zoo.embedded import FOLDER
from zoo.errors import WeightsError
from zoo.registry import EMBEDDED, NATIVE, Entry, Weights, find, import_attribute

if TYPE_CHECKING:
    import keras

# Settings that weights do not depend on, and those that `_fill` looks after itself.
_NEUTRAL = frozenset(
    {"name", "dtype", "recipe", "num_classes", "class_names", "resize_rule", "trainable", "trainable_parts"}
)
_log = logging.getLogger("kerasvision.zoo")
_PTH_ENDINGS = (".pth", ".pt", ".bin", ".ckpt", ".tar")  # .pth.tar is a habit; no tar archive inside
_READABLE = "*.pth or *.pt (PyTorch), *.safetensors, *.weights.h5, *.keras"


class _Default:
    def __repr__(self):
        return "DEFAULT"


DEFAULT = _Default()


@dataclass(frozen=True)
class _Source:
    """A file of weights, read, and what is known about it.

    Either `tensors`, with `converter` for a foreign layout and without for the package's own; or, for
    ``.weights.h5``, neither: Keras reads it into the built model. `config` is the configuration of the model
    that the weights were saved from and `holds` its name; `options` are what the builder must be given.
    """

    path: Path
    label: str
    tensors: Mapping[str, np.ndarray] | None = None
    converter: Converter | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    resize_rule: ResizeRule | None = None
    config: Mapping[str, Any] | None = None
    holds: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def get(
    name: str,
    *,
    weights: "str | os.PathLike | _Default | None" = DEFAULT,
    num_classes: int | None = None,
    **options: Any,
) -> "keras.Model":
    """Return a model of the zoo, with weights.

    Args:
        name: ``"retinanet_resnet50_fpn"``, or with a tag for one of its weights:
            ``"retinanet_resnet50_fpn.coco_v1"``. See `list_models` and `info`.
        weights: Left out, the entry's default published weights, downloaded once; ``None`` random ones,
            without a network, and a model of which every part is trained (the entry's `scratch_options`); a
            tag; or the path of a file: PyTorch's ``.pth`` or ``.safetensors`` in a layout that the entry
            converts, or ``.safetensors``, ``.weights.h5`` or ``.keras`` of this package's own models.
        num_classes: Number of classes. Default: that of the weights, else the builder's. Another number
            keeps everything but the head, whose layer is random, and says so.
        **options: What the entry's builder takes.

    Returns:
        A built model; `class_names` and `resize_rule` are those of the weights where they are known.

    Raises:
        ValueError: Unknown name, tag or option; the message lists close ones.
        WeightsError: The weights cannot be read, or do not fit.
        DownloadError: The weights cannot be downloaded.
    """
    entry, tag = find(name)
    if num_classes is not None and (not isinstance(num_classes, int) or num_classes < 1):
        raise ValueError(f"`num_classes` {num_classes!r} must be an integer of at least 1, or None")
    _check_options(entry, options)
    chosen = _choose(entry, tag, weights)
    if chosen is None:
        return _build(entry, num_classes, {**entry.scratch_options, **options})
    source = _of_tag(entry, chosen) if isinstance(chosen, Weights) else _of_path(entry, chosen)
    return _fill(entry, source, num_classes, options)


def _choose(entry: Entry, tag: str | None, weights: Any) -> Weights | Path | None:
    """Return the weights meant by a name's tag and the argument `weights`."""
    if tag is not None:
        if not isinstance(weights, _Default):
            raise ValueError(f"`name` '{entry.name}.{tag}' picks weights, but `weights` is {weights!r}; give only one")
        return entry.weights_of(tag)
    if isinstance(weights, _Default):
        return entry.default_weights
    if weights is None:
        return None
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(f"`weights` is a {type(weights).__name__}; expected a path, a tag or None")
    if weights in entry.tags:
        return entry.weights_of(str(weights))
    text = os.fspath(weights)
    if text.startswith(("http://", "https://")):
        raise ValueError(f"`weights` {text!r} is an address without a checksum; download it, pass the path")
    path = Path(text).expanduser()
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no file"
        raise WeightsError(
            f"`weights` {text!r} is {what}, and no tag of {entry.name}; expected one of the tags "
            f"{entry.tags}, a file ({_READABLE}), or None for random weights"
        )
    return path


def _of_tag(entry: Entry, weights: Weights) -> _Source:
    """Fetch published weights and read them."""
    label = f"{entry.name}.{weights.tag}"
    if weights.embedded:
        path = FOLDER / weights.source.removeprefix(EMBEDDED)
        if not path.is_file():
            raise WeightsError(f"{path} is missing from this installation; install the package again")
        if not cache.sha256_of(path).startswith(weights.sha256):
            raise WeightsError(f"{path} is not the file that index.json describes; install the package again")
    else:
        path = cache.fetch(weights.source, weights.sha256, size_bytes=weights.size_bytes)
    tensors, metadata = _read_tensors(path)
    return _published(path, label, weights, tensors) if metadata is None else _native(path, label, tensors, metadata)


def _published(path: Path, label: str, weights: Weights, tensors: Mapping[str, np.ndarray]) -> _Source:
    return _Source(
        path,
        label,
        tensors,
        converter=import_attribute(weights.converter),
        num_classes=weights.num_classes,
        class_names=weights.class_names,  # type: ignore[arg-type]  a tuple since __post_init__
        resize_rule=weights.resize_rule,
        options=weights.options,
    )


def _native(path: Path, label: str, tensors: Mapping[str, np.ndarray], metadata: native.Metadata) -> _Source:
    return _Source(
        path,
        label,
        tensors,
        num_classes=metadata.num_classes,
        class_names=metadata.class_names,
        resize_rule=metadata.resize_rule,
        config=metadata.config,
        holds=metadata.name,
    )


def _of_path(entry: Entry, path: Path) -> _Source:
    """Read a user's file, in whatever layout it has."""
    if path.name.endswith((".h5", ".hdf5")):
        return _Source(path, path.name)
    if path.suffix == ".keras":
        return _of_keras_archive(entry, path)
    tensors, metadata = _read_tensors(path)
    if metadata is not None:
        return _native(path, path.name, tensors, metadata)
    for weights in entry.weights:
        # The published file itself, downloaded by hand: it needs the same options and has the same classes.
        if not weights.embedded and cache.sha256_of(path).startswith(weights.sha256):
            return _published(path, path.name, weights, tensors)
    references = dict.fromkeys([w.converter for w in entry.weights] + list(entry.converters))
    converters = [import_attribute(reference) for reference in references if reference != NATIVE]
    for converter in converters:
        renamed = converter.renamed(tensors)
        if converter.recognises(renamed):
            return _Source(path, path.name, renamed, converter, converter.num_classes(renamed))
    layouts = " or ".join(f"a {converter.layout}" for converter in converters)
    raise WeightsError(
        f"{path} holds tensors of a layout that {entry.name} does not know, such as {list(tensors)[:3]}; "
        f"expected {layouts + ', or ' if layouts else ''}weights saved by zoo.save_weights"
    )


def _read_tensors(path: Path) -> tuple[dict[str, np.ndarray], native.Metadata | None]:
    if path.suffix == ".safetensors":
        return native.read_safetensors(path)
    if path.suffix in _PTH_ENDINGS:
        from zoo.pth import read_pth

        return read_pth(path), None
    raise WeightsError(f"{path} has an unknown ending; expected {_READABLE}")


def _of_keras_archive(entry: Entry, path: Path) -> _Source:
    """Read a whole model saved by `model.save`, without the optimizer."""
    import keras

    import_attribute(entry.architecture)  # registers its classes
    try:
        saved: Any = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever went wrong: zipfile, h5py, KeyError, TypeError ...
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path} cannot be loaded as a Keras model ({reason})") from error
    tensors = {key: native.to_numpy(variable) for key, variable in native.variable_names(saved).items()}
    return _native(path, path.name, tensors, native.Metadata.of(saved))


def _fill(entry: Entry, source: _Source, num_classes: int | None, options: Mapping[str, Any]) -> "keras.Model":
    """Build the model that the weights are for and fill it."""
    classes = num_classes or source.num_classes
    changed = source.num_classes is not None and classes != source.num_classes
    attributes: dict[str, Any] = {"resize_rule": source.resize_rule}
    if not changed:
        attributes["class_names"] = source.class_names
    known = {key: value for key, value in attributes.items() if value is not None}
    model = _build(entry, classes, {**source.options, **known, **options})
    if source.tensors is None:
        _load_h5(model, source.path)
        return model
    differing: dict[str, tuple] = {}
    if source.config is not None:
        model, differing = _rebuilt_as_saved(entry, model, source, {**known, **options})
    origin = f"{source.path} (weights of {source.holds})" if source.holds else str(source.path)
    if source.converter is not None:
        converter = source.converter
        kept = converter.apply(model, source.tensors, origin=origin, target=entry.name, keep_head=changed)
        if converter.part == "backbone":
            _log.warning(
                "%s: %s fills %s alone; everything after it is random and wants training",
                entry.name,
                source.label,
                converter.fills,
            )
    else:
        pair: Any = (source.num_classes, model.num_classes) if changed else None
        kept = native.apply(model, source.tensors, origin=origin, target=entry.name, classes=pair)
    for setting, (then, now) in differing.items():
        _log.warning(
            "%s: %s was saved from a model with %s = %r; this one has %r, so its outputs may differ",
            entry.name, source.label, setting, then, now,
        )  # fmt: skip
    if kept:
        _log.warning(
            "%s: %d classes instead of the %d of %s; all weights are kept but the head's (%s), which are "
            "random and want training",
            entry.name,
            model.num_classes,
            source.num_classes,
            source.label,
            ", ".join(kept),
        )
    return model


def _rebuilt_as_saved(
    entry: Entry, model: "keras.Model", source: _Source, options: Mapping[str, Any]
) -> tuple["keras.Model", dict[str, tuple]]:
    """Build the model again if the one that was saved had been given other options.

    The options that differ are found by name in the two configurations; `options`, the user's, win.

    Returns:
        The model, and the settings in which it still differs, other than by the user's will:
        name -> (saved value, value here).
    """
    accepted = builder_options(entry)
    differing = dict(_differences(source.config, native.config_as_json(model)))
    saved = {path[-1]: value for path, (value, _) in differing.items() if path[-1] in accepted}
    if set(saved) - set(options):
        with contextlib.suppress(ValueError, TypeError):  # another architecture: its tensors will not fit
            model = _build(entry, model.num_classes, {**saved, **options})
        differing = dict(_differences(source.config, native.config_as_json(model)))
    return model, {".".join(path): values for path, values in differing.items() if path[-1] not in options}


def _differences(saved: Any, built: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], tuple]]:
    """Yield (path, (saved value, built value)) where two configurations differ in what may change outputs."""
    if isinstance(saved, dict) and isinstance(built, dict):
        for key, value in saved.items():
            if key in built and key not in _NEUTRAL:
                yield from _differences(value, built[key], (*path, key))
    elif saved != built:
        yield path, (saved, built)


def _load_h5(model: "keras.Model", path: Path) -> None:
    try:
        model.load_weights(path)
    except Exception as error:  # h5py and Keras raise OSError, KeyError, ValueError ...
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{path} does not fit {model.name} with {model.num_classes} classes ({reason}); give the options "
            "and num_classes that it was saved with"
        ) from error


def _build(entry: Entry, num_classes: int | None, options: Mapping[str, Any]) -> "keras.Model":
    builder = import_attribute(entry.builder)
    arguments = {} if num_classes is None else {"num_classes": num_classes}
    return builder(**arguments, **options)


def _check_options(entry: Entry, options: Mapping[str, Any]) -> None:
    """Refuse an option that the builder does not take.

    Raises:
        ValueError: Naming the accepted options.
    """
    if not options:
        return
    accepted = builder_options(entry)
    for option in options:
        if option not in accepted:
            close = difflib.get_close_matches(option, accepted, n=1)
            hint = f"did you mean `{close[0]}`? It takes" if close else "it takes"
            raise ValueError(f"`{option}` is no option of {entry.name}; {hint} {', '.join(accepted)}")


def builder_options(entry: Entry) -> list[str]:
    """Return the names of the options that an entry's builder takes.

    They are the builder's own keywords and, if it passes the others on (``**options``), those of the model's
    class and of its bases up to Keras.
    """
    builder = import_attribute(entry.builder)
    names, passes_on = _keywords(builder)
    if passes_on:
        for cls in import_attribute(entry.architecture).__mro__:
            if cls.__module__.startswith("keras.") or not passes_on:
                break
            if "__init__" in vars(cls):
                more, passes_on = _keywords(cls.__init__)
                names += more
        if passes_on:
            names += ["name", "dtype"]  # what a Keras model takes
    return list(dict.fromkeys(name for name in names if name not in ("self", "backbone", "num_classes")))


def _keywords(function: Any) -> tuple[list[str], bool]:
    """Return a function's keyword arguments, and whether it takes any others."""
    parameters = inspect.signature(function).parameters.values()
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters)

"""Data sets by name, opened for the tasks of models and with the classes that their masks and boxes mean."""

import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from kerasvision.cli_inputs import UserError, import_quietly, in_options, message_of, naming, progress_bar

DATA_HELP = "streets, streets:hard, voc:DIR, coco:DIR or tfds:NAME."
ClassesOption = Annotated[
    str | None,
    typer.Option(
        metavar="auto|FILE",
        help="Class names of voc:DIR: 'auto' for those in its XML files, or a file with one name a line. "
        "Default: its class_names.txt, or VOC's 20.",
        show_default=False,
    ),
]
# Those of `kerasvision.data.class_weights`, which is not imported for --help.
WeightMethod = Literal["median_frequency", "inverse", "effective_number", "enet"]
_BACKGROUND = ("background", "_background_", "__background__")


@dataclass(frozen=True)
class Card:
    """What a model does, as far as it can be known without building it.

    Args:
        task: ``"detection"`` or ``"segmentation"``.
        class_names: The names of its classes, or None.
    """

    task: str
    class_names: tuple[str, ...] | None


def card_of(name: str, *, option: str = "--model") -> Card:
    """Return what a model does, from the zoo or, for a ``.keras`` file, from its configuration."""
    import zoo

    if not name.endswith(".keras"):
        with naming(option, name):
            entry = zoo.info(name)
        weights = entry.default_weights
        return Card(entry.task, None if weights is None or weights.class_names is None else tuple(weights.class_names))
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"{option} {name}: no such file; check the path, or give a name that `kerasvision list` shows")
    try:
        with zipfile.ZipFile(path) as archive:
            saved = json.loads(archive.read("config.json"))
        architecture, names = f"{saved['module']}:{saved['class_name']}", saved["config"].get("class_names")
    except (zipfile.BadZipFile, OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{option} {name}: cannot be loaded as a Keras model ({message_of(error)})") from error
    for entry in map(zoo.info, zoo.list_models()):
        if entry.architecture == architecture:
            return Card(entry.task, None if names is None else tuple(names))
    raise UserError(f"{option} {name}: is a {architecture}; expected a model of kerasvision, as train writes it")


def open_data(
    name: str,
    split: str,
    *,
    task: str | None = None,
    classes: str | None = None,
    models: Iterable[Card] = (),
    split_option: str = "--split",
    strict: bool = True,
) -> Any:
    """Return the data set that ``--data`` and ``--split`` ask for; it has at least one sample.

    Args:
        name: What ``--data`` says.
        split: The split.
        task: The task to open it for; None for all that it has.
        classes: What ``--classes`` says.
        models: Models that will be scored on it; where `classes` is None they may tell what a VOC folder's classes are.
        split_option: What messages call `split`.
        strict: Whether a bad annotation is an error.
    """
    from kerasvision import data

    options: dict[str, Any] = {}
    names = _given_classes(name, classes)
    if names is None and task is not None:
        names = _classes_of_models(name, task, models)
    if names is not None:
        options["classes"] = names
    with naming(f"--data {name} {split_option}", split):
        if name.startswith("tfds:"):
            import_quietly("tensorflow")
        dataset: Any = data.load(name, split=split, task=task, strict=strict, **options)  # type: ignore[arg-type]
    if len(dataset) == 0:
        raise UserError(f"--data {name} {split_option} {split}: has no images; expected at least one")
    for problem in getattr(dataset, "problems", ()) if strict else ():
        if problem.severity == "note" and not problem.where:  # about the whole data set, not about one annotation
            typer.echo(f"note: {in_options(str(problem))}", err=True)
    return dataset


def count_weights(dataset: Any, method: WeightMethod, *, data: str, split: str) -> tuple[Any, Any]:
    """Return the `PixelCounts` of a data set and its class weights (C,), after a bar; `data` and `split` name it."""
    from kerasvision import data as data_sets

    with progress_bar() as progress, naming(f"--data {data} --split", split):
        bar = progress.add_task("counting", total=len(dataset))
        counts = data_sets.count_pixels(dataset, lambda done, total: progress.update(bar, completed=done))
        return counts, data_sets.class_weights(counts, method)


def open_for_models(name: str, split: str, *, classes: str | None, models: Iterable[Card]) -> dict[str, Any]:
    """Return a data set for each task of the models: one and the same, unless it has a list of images for each task."""
    models = list(models)
    tasks = list(dict.fromkeys(model.task for model in models))
    whole: Any = None
    if len(tasks) > 1 and not name.startswith("voc:"):
        whole = open_data(name, split, classes=classes)
    return {
        task: whole
        if whole is not None and task in whole.tasks
        else open_data(
            name, split, task=task, classes=classes, models=[model for model in models if model.task == task]
        )
        for task in tasks
    }


def _given_classes(data: str, classes: str | None) -> str | tuple[str, ...] | None:
    """Return what ``--classes`` means to a reader: None, "auto", or the names in the file."""
    if classes is None:
        return None
    if not data.startswith("voc:"):
        raise UserError(f"--classes {classes}: --data {data} names its classes itself; leave it out, it is for voc:DIR")
    if classes == "auto":
        return classes
    from kerasvision.data.voc import read_class_names

    with naming("--classes", classes):
        return read_class_names(Path(classes).expanduser())


def _classes_of_models(data: str, task: str, models: Iterable[Card]) -> tuple[str, ...] | None:
    """Return the classes of the model that a VOC folder seems to be annotated with; None for the reader's default.

    Boxes have names, so any list with all of them will do. Masks have numbers: the model's list is right if it was
    trained on them, and then its names are those in the folder's XML files.
    """
    if not data.startswith("voc:"):
        return None
    from kerasvision.data.voc import CLASS_NAMES_FILE, VOC_CLASSES, find_classes

    folder = Path(data.removeprefix("voc:")).expanduser()
    if (folder / CLASS_NAMES_FILE).is_file():
        return None
    lists: list[Sequence[str]] = [model.class_names or () for model in models]
    if task == "segmentation":
        lists = [names[1:] for names in lists if names and names[0] in _BACKGROUND]
    found = set(find_classes(folder)) if any(lists) else set()
    fitting = list(dict.fromkeys(tuple(names) for names in lists if names and found <= set(names)))
    if task == "detection":
        return fitting[0] if fitting else None
    own = not found <= set(VOC_CLASSES)
    certain = [names for names in fitting if own or set(names) == found or names == VOC_CLASSES]
    if len(certain) > 1 or (fitting and not certain):
        first, second = (*fitting, VOC_CLASSES)[:2]
        raise UserError(
            f"--data {data}: its mask values 1, 2, … may mean {', '.join(first[:3])}, …, as the model has it, or "
            f"{', '.join(second[:3])}, …; say so with --classes FILE, one name a line in the order of the values"
        )
    return certain[0] if certain else None

"""What the commands share: errors in one line, models by name, images by path, progress.

Only typer and rich are imported with this module; Keras comes when a command needs a model.
"""

import contextlib
import glob
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# Remedies of the library are written as Python; the longest come first.
_AS_OPTIONS = (
    ("weights=None", "--weights none"),
    ("classes='auto' or a list of names", "--classes auto, or --classes FILE with one name a line"),
    ("pass a list of names", "pass --classes FILE with one name a line"),
    ("the names passed as `classes`", "the file passed as --classes"),
    ("classes='auto'", "--classes auto"),
    ("pass task='segmentation'", "pass --task segmentation"),
    ("task='detection'", "detection"),
    ("task='segmentation'", "segmentation"),
)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


class UserError(ValueError):
    """A mistake in what the user asked for; the message says what came, what was expected and the remedy."""


@contextlib.contextmanager
def naming(option: str, value: Any) -> Iterator[None]:
    """Put the command line's option and value before the message of a user's error inside the block."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, OSError, ImportError) as error:
        raise UserError(f"{option} {value}: {in_options(message_of(error))}") from error


def in_options(message: str) -> str:
    """Return a message of the library with its remedies as options of the command line."""
    for python, option in _AS_OPTIONS:
        message = message.replace(python, option)
    return message


def import_quietly(module: str) -> None:
    """Import a module whose C++ libraries print to stderr, as TensorFlow's do whatever the log level.

    What was printed is shown if the import fails, or if the user has set TF_CPP_MIN_LOG_LEVEL below 3.
    """
    if module in sys.modules or os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3") < "3":
        importlib.import_module(module)
        return
    with tempfile.TemporaryFile() as printed:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(printed.fileno(), 2)
        try:
            importlib.import_module(module)
        except BaseException:
            printed.seek(0)
            os.write(stderr, printed.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def message_of(error: BaseException) -> str:
    """Return an error's message on one line, without terminal colours, of at most 600 characters."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= 600 else text[:599] + "…"


def load_model(name: str, weights: str | None = None, *, weights_option: str = "--weights", **options: Any) -> Any:
    """Return the model that ``--model`` and ``--weights`` ask for.

    Args:
        name: A zoo name, with a tag if wanted, or the path of a ``.keras`` file.
        weights: A tag, the path of a file, ``"none"`` for random weights, or None for the default.
        weights_option: What messages call `weights`.
        **options: Passed to the builder; only for zoo names.
    """
    if name.endswith(".keras"):
        return _load_keras_file(name, weights, options)
    import zoo

    with naming("--model", name):
        zoo.info(name)
    import_quietly("keras")

    if weights is None:
        with naming("--model", name):
            return zoo.get(name, **options)
    chosen = None if weights.lower() == "none" else weights
    with naming(weights_option, weights):
        return zoo.get(name, weights=chosen, **options)


def _load_keras_file(name: str, weights: str | None, options: dict) -> Any:
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"--model {name}: no such file; check the path, or give a name that `kerasvision list` shows")
    if options:
        raise UserError(
            f"--model {name}: a .keras file is a finished model; its {', '.join(sorted(options))} cannot "
            "be changed. Give the zoo name as --model and this file as --weights"
        )
    import_quietly("keras")
    import keras

    import zoo
    from zoo.registry import import_attribute

    for entry in map(zoo.info, zoo.list_models()):
        import_attribute(entry.architecture)  # registers its classes with Keras
    with naming("--model", name):
        try:
            model: Any = keras.saving.load_model(path, compile=False)
        except (KeyError, TypeError, AttributeError) as error:  # what Keras raises for damaged archives
            raise ValueError(f"cannot be loaded as a Keras model ({message_of(error)})") from error
    if weights is not None:
        with naming("--weights", weights):
            if weights.endswith(".safetensors"):
                zoo.load_weights(model, weights)
            else:
                model.load_weights(weights)
    return model


def task_of(model) -> str:
    """Return ``"detection"`` or ``"segmentation"``."""
    from kerasvision.models.base import Segmenter

    return "segmentation" if isinstance(model, Segmenter) else "detection"


def find_images(sources: Sequence[str]) -> list[Path]:
    """Return the image files that paths, folders and glob patterns name, each once, in a stable order.

    A folder means the images directly inside it.

    Raises:
        UserError: A path that does not exist, or a folder or pattern without images.
    """
    found: list[Path] = []
    for source in sources:
        path = Path(source).expanduser()
        if path.is_dir():
            matches = sorted(entry for entry in path.iterdir() if _is_image(entry))
            if not matches:
                raise UserError(
                    f"SOURCE {source}: the folder holds no image; expected files ending in {', '.join(IMAGE_SUFFIXES)}"
                )
        elif path.exists():
            matches = [path]
        elif glob.has_magic(source):
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
            matches = [match for match in matches if _is_image(match)]
            if not matches:
                raise UserError(f"SOURCE {source}: the pattern matches no image; check it, and quote it")
        else:
            raise UserError(f"SOURCE {source}: no such file or folder; check the path")
        found += matches
    return list({path.resolve(): path for path in found}.values())


def _is_image(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES


def new_path(path: Path, protected: set[Path]) -> Path:
    """Return `path`, or with "-2", "-3" … added if it is one of the protected (resolved) paths."""
    candidate, number = path, 2
    while candidate.resolve() in protected:
        candidate = path.with_stem(f"{path.stem}-{number}")
        number += 1
    return candidate


def list_of_ints(option: str, text: str) -> list[int]:
    """Parse "1,8" into integers of at least 1."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise UserError(f"{option} {text}: expected whole numbers of at least 1, such as 1,8")
    return list(dict.fromkeys(numbers))


def list_of_numbers(option: str, text: str) -> list[float]:
    """Parse "0.5,1" into numbers."""
    try:
        numbers = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers:
        raise UserError(f"{option} {text}: expected numbers with commas between, such as 0.5,1,1.5")
    return numbers


def error_console():
    """Return a rich console on stderr: progress and remarks go there, results to stdout."""
    from rich.console import Console

    return Console(stderr=True)


def output_console():
    """Return a rich console on stdout; wide where the output is not a terminal, so that nothing is cut."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=200)


def progress_bar():
    """Return a rich progress display on stderr that disappears when done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=error_console(),
        transient=True,
    )

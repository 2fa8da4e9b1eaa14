"""Which pictures there are. The caption of a picture is the docstring of the function that draws it."""

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass

# In the order of the page.
ROOMS = (
    "boxes",
    "anchors",
    "assignment",
    "suppression",
    "regions",
    "necks",
    "pooling",
    "convolutions",
    "normalization",
    "segmentation",
    "random_fields",
    "detection_losses",
    "mask_losses",
    "metrics",
)

_pictures: dict[str, "Picture"] = {}


@dataclass(frozen=True)
class Picture:
    """One picture of the gallery.

    Attributes:
        name: Of the function that draws it and of its file.
        section: Heading on the page.
        title: What it shows.
        pieces: Import paths of what is shown, without the leading "kerasvision.".
        caption: What is seen, in plain sentences.
        draw: Returns the matplotlib figure.
    """

    name: str
    section: str
    title: str
    pieces: tuple[str, ...]
    caption: str
    draw: Callable


def picture(section: str, *pieces: str):
    """Register a function that draws a picture; the first line of its docstring is the title, the rest the caption."""

    def register(draw):
        title, _, caption = inspect.cleandoc(draw.__doc__).partition("\n\n")
        caption = re.sub(r"\s+", " ", caption)
        _pictures[draw.__name__] = Picture(draw.__name__, section, title.rstrip("."), pieces, caption, draw)
        return draw

    return register


def pictures() -> dict[str, Picture]:
    """Return all pictures by name, in the order of the page."""
    for room in ROOMS:
        importlib.import_module(f"examples.gallery.{room}")
    return dict(_pictures)


def find_piece(path: str):
    """Return the function or class of an import path without the leading "kerasvision."."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f"kerasvision.{module}"), name)

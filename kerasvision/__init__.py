"""Building blocks and models for object detection and segmentation on Keras 3.

The packages (`kerasvision.layers`, `losses`, `metrics`, `models`, `ops`, `data`, `training`) and modules
(`kerasvision.inference`, `visualize`) are loaded when first used.
"""

import importlib
from typing import Any

from kerasvision.version import __version__

_ROOMS = ("backbones", "data", "inference", "layers", "losses", "metrics", "models", "ops", "training", "visualize")

__all__ = ["__version__", *_ROOMS]  # pyright: ignore[reportUnsupportedDunderAll] (made by __getattr__)


def __getattr__(name: str) -> Any:
    """Load a room of the package when it is first asked for."""
    if name in _ROOMS:
        return importlib.import_module(f"kerasvision.{name}")
    raise AttributeError(f"module 'kerasvision' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

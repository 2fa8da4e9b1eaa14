"""Stateless functions on `keras.ops`, a module for each subject, loaded when first used: `kerasvision.ops.boxes`."""

import importlib
import pkgutil
from typing import Any

_MODULES = sorted(module.name for module in pkgutil.iter_modules(__path__))


def __getattr__(name: str) -> Any:
    """Load a module when it is first asked for."""
    if name in _MODULES:
        return importlib.import_module(f"kerasvision.ops.{name}")
    raise AttributeError(f"module 'kerasvision.ops' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*_MODULES]

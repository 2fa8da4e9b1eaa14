"""Files that are written whole or not at all, and the folder of those that can be made again."""

import contextlib
import json
import math
import os
import time
from pathlib import Path
from typing import Any


def cache_home() -> Path:
    """Return the folder for what can be fetched or worked out again; it need not exist yet.

    It is ``$KERASVISION_HOME``, else ``$XDG_CACHE_HOME/kerasvision``, else ``~/.cache/kerasvision``.
    """
    home = os.environ.get("KERASVISION_HOME")
    if not home:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kerasvision"
    return Path(home).expanduser()


@contextlib.contextmanager
def replacing(path):
    """Give a path to write to, and put that file in the place of `path` when all went well.

    A reader sees the old file or the new one; a crash or an error in the block leaves the old one.

    Args:
        path: The file to make or to replace; its folder must exist.

    Yields:
        A path in the same folder with the same suffix.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}-{os.getpid()}-{time.monotonic_ns()}{path.suffix}")
    partial.touch(exist_ok=False)
    mode = partial.stat().st_mode  # what the user's umask gives a new file; some libraries make theirs private
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.chmod(mode)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path, text: str) -> Path:
    """Write UTF-8 text to `path`, whole or not at all, and return the path."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path, content) -> Path:
    """Write JSON to `path`, whole or not at all, and return the path; NaN and infinities become null."""
    return write_text(path, json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def finite(content) -> Any:
    """Return nested dicts and lists with ``None`` in the place of NaN and infinities, which JSON does not know."""
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, dict):
        return {key: finite(item) for key, item in content.items()}
    return [finite(item) for item in content] if isinstance(content, list | tuple) else content

"""What a measurement ran on, so that it can be read later and compared with another one."""

import contextlib
import importlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

_VERSIONS = (
    "keras",
    "tensorflow",
    "jax",
    "torch",
    "torchvision",
    "numpy",
    "kerasvision",
    "opencv-python-headless",
    "faster-coco-eval",
)


def describe(precision: str | None = None) -> dict:
    """Describe hardware, software and settings.

    Args:
        precision: Dtype policy of what was measured; default: Keras's global one.

    Returns:
        A dict that JSON can hold: ``cpu``, ``cores``, ``memory_bytes``, ``accelerator`` (None on a CPU),
        ``backend``, ``precision``, ``versions``, ``platform``, ``commit`` (None outside a git checkout),
        ``variables`` (environment variables that change speed, where set).
    """
    import keras

    return {
        "cpu": cpu_model(),
        "cores": available_cores(),
        "memory_bytes": memory_bytes(),
        "accelerator": accelerator(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "backend": keras.backend.backend(),
        "precision": precision or keras.config.dtype_policy().name,
        "versions": {"python": platform.python_version()} | installed_versions(),
        "commit": git_commit(),
        "variables": {
            name: os.environ[name]
            for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS")
            if name in os.environ
        },
    }


def cpu_model() -> str:
    """Return the processor's name as the operating system gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine() or "unknown"


def available_cores() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int | None:
    """Return the machine's memory, None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def accelerator() -> str | None:
    """Return the name of the first GPU or TPU that the active backend sees, None if it runs on the CPU."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        tensorflow = importlib.import_module("tensorflow")
        devices = tensorflow.config.list_physical_devices("GPU")
        details = tensorflow.config.experimental.get_device_details(devices[0]) if devices else {}
        return details.get("device_name", "GPU") if devices else None
    if backend == "jax":
        device = importlib.import_module("jax").devices()[0]
        return None if device.platform == "cpu" else device.device_kind
    if backend == "torch":
        cuda = importlib.import_module("torch").cuda
        return cuda.get_device_name(0) if cuda.is_available() else None
    return None


def installed_versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on, those that are installed."""
    versions = {}
    for name in _VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    if "kerasvision" not in versions:
        from kerasvision.version import __version__

        versions["kerasvision"] = __version__
    return versions


def git_commit() -> str | None:
    """Return the commit of the checkout this code runs from, with "+" if files differ; None without git."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()  # noqa: S603

    try:
        dirty = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if dirty else "")
    except (OSError, subprocess.SubprocessError):
        return None

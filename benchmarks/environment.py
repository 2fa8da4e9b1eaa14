"""What a measurement ran on, so that it can be read later and compared with another one."""

import contextlib
import importlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
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


def describe() -> dict:
    """Describe hardware, software and settings.

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
        "precision": keras.config.dtype_policy().name,
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


def _status_bytes(key: str) -> int | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    return None


def _reset_peak() -> bool:
    """Reset the kernel's high-water mark of this process; only Linux can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # man 5 proc: "5" resets VmHWM
        return True
    except OSError:
        return False


@contextlib.contextmanager
def peak_memory() -> Iterator[dict]:
    """Measure the peak memory of a block.

    Yields:
        A dict, filled when the block ends: ``peak_bytes``, resident memory of the whole process at its
        highest; ``before_bytes``, resident memory when the block began; ``method``, what was measured, in
        words; ``accelerator_peak_bytes`` where the backend tells.
    """
    measured: dict = {"before_bytes": _status_bytes("VmRSS")}
    fresh = _reset_peak()
    _accelerator_peak(reset=True)
    try:
        yield measured
    finally:
        peak = _status_bytes("VmHWM") if fresh else None
        if peak is not None:
            measured["peak_bytes"] = peak
            measured["method"] = "highest resident memory of the process while this model was loaded and run (VmHWM)"
        else:
            import resource  # not on Windows

            unit = 1 if sys.platform == "darwin" else 1024  # getrusage: bytes on macOS, KiB elsewhere
            measured["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
            measured["method"] = "highest resident memory of the process since it started (ru_maxrss)"
        measured["accelerator_peak_bytes"] = _accelerator_peak()


def _accelerator_peak(*, reset: bool = False) -> int | None:
    """Return the accelerator's peak memory in bytes since the last reset, None on a CPU."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        tensorflow = importlib.import_module("tensorflow")
        if not tensorflow.config.list_physical_devices("GPU"):
            return None
        if reset:
            tensorflow.config.experimental.reset_memory_stats("GPU:0")
        return int(tensorflow.config.experimental.get_memory_info("GPU:0")["peak"])
    if backend == "torch":
        cuda = importlib.import_module("torch").cuda
        if not cuda.is_available():
            return None
        if reset:
            cuda.reset_peak_memory_stats()
        return int(cuda.max_memory_allocated())
    if backend == "jax":
        statistics = importlib.import_module("jax").devices()[0].memory_stats() or {}
        return statistics.get("peak_bytes_in_use")
    return None

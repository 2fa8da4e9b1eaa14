"""Peak memory of a model, measured in a process of its own.

What one process has used before stays with its allocator: measured one after the other in one process, the second
model would look cheaper or dearer for having been second.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

_TIMEOUT_SECONDS = 900


def peak_of(predictor, files: Sequence[Path], batch_size: int) -> dict:
    """Load a model in a fresh process, run one batch of images three times, and return the peak.

    Args:
        predictor: A `kerasvision.inference.Predictor`.
        files: Image files, at least one; gone through from the start again if fewer than `batch_size`.
        batch_size: Images per batch.

    Returns:
        What `peak_memory` yields.

    Raises:
        RuntimeError: The process failed; the message holds its last words.
    """
    import keras

    with tempfile.TemporaryDirectory(prefix="kerasvision-memory-") as folder:
        path = Path(folder) / "model.keras"
        predictor.model.save(path)
        task = {
            "model": str(path),
            "resize": predictor.resize.get_config(),
            "class_names": list(predictor.class_names),
            "files": [str(files[index % len(files)]) for index in range(batch_size)],
        }
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory"],
            input=json.dumps(task),
            env=os.environ | {"KERAS_BACKEND": keras.backend.backend(), "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"the process that measures memory failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _measure(task: dict) -> dict:
    with peak_memory() as memory:
        import keras

        import kerasvision.models  # noqa: F401 (registers the classes that the file names)
        from benchmarks.timing import run_batch
        from kerasvision.inference import Predictor
        from kerasvision.ops.resizing import ResizeRule

        model = keras.saving.load_model(task["model"], compile=False)
        predictor = Predictor(model, resize=ResizeRule(**task["resize"]), class_names=task["class_names"], freeze=True)
        for _ in range(3):
            run_batch(predictor, task["files"])
    return memory


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
            measured["method"] = "highest resident memory of a process that loads and runs this model alone (VmHWM)"
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


if __name__ == "__main__":
    print(json.dumps(_measure(json.load(sys.stdin))))

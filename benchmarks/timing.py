"""Time what a user waits for: image files to results, stage by stage.

A batch goes through the four stages of `kerasvision.inference.Predictor` one after the other, and every
stage is timed on every batch. Nothing is trimmed: the slow tail is part of the answer.
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

STAGES = ("decode", "preprocess", "network", "postprocess")
END_TO_END = "end_to_end"

# A percentile is printed only if at least one sample is expected beyond it even in a short run:
# 2 of 20 lie above p90, 1 of 100 above p99.
REQUIRED_SAMPLES = {"p50": 5, "p90": 20, "p99": 100}

_WARM_UP_WINDOW = 3
_WARM_UP_TOLERANCE = 0.05


def distribution(seconds: Sequence[float]) -> dict[str, float | int | None]:
    """Summarise repeated timings.

    Args:
        seconds: One value per batch; may be empty.

    Returns:
        ``samples``, ``mean``, ``min``, ``max`` and the percentiles ``p50``, ``p90``, ``p99``, in seconds. A
        percentile with fewer than `REQUIRED_SAMPLES` is None.
    """
    values = np.asarray(seconds, float)
    summary: dict[str, float | int | None] = {"samples": len(values)}
    for name, function in (("mean", np.mean), ("min", np.min), ("max", np.max)):
        summary[name] = float(function(values)) if len(values) else None
    for name, required in REQUIRED_SAMPLES.items():
        enough = len(values) >= required
        summary[name] = float(np.percentile(values, int(name[1:]))) if enough else None
    return summary


def percentile_text(summary: dict, name: str, *, scale: float = 1e3, digits: int = 1) -> str:
    """Return percentile `name` as text in milliseconds, or "n<100" where the samples are too few for it."""
    value = summary.get(name)
    return f"n<{REQUIRED_SAMPLES[name]}" if value is None else f"{value * scale:.{digits}f}"


def is_stable(seconds: Sequence[float]) -> bool:
    """Return whether the median of the last three runs is within 5% of that of the three before."""
    if len(seconds) < 2 * _WARM_UP_WINDOW:
        return False
    last = statistics.median(seconds[-_WARM_UP_WINDOW:])
    before = statistics.median(seconds[-2 * _WARM_UP_WINDOW : -_WARM_UP_WINDOW])
    return abs(last - before) <= _WARM_UP_TOLERANCE * before


def synchronize(outputs: Any) -> None:
    """Wait until the accelerator has computed `outputs`, by fetching one element of each array to the host.

    Backends queue work and return at once; fetching a value is the one way to wait that all of them share.
    One element is enough, and copying all of a detector's raw outputs would be timed as network.
    """
    import keras

    for array in keras.tree.flatten(outputs):
        if hasattr(array, "shape") and not isinstance(array, np.ndarray):
            first = array[(slice(0, 1),) * len(array.shape)]
            keras.ops.convert_to_numpy(first)


def run_batch(predictor, sources: Sequence) -> tuple[dict[str, float], list, Any]:
    """Take one batch through the four stages.

    Args:
        predictor: A `kerasvision.inference.Predictor`.
        sources: What `predictor.read` takes, one per image.

    Returns:
        Seconds of each of `STAGES` and of `END_TO_END`; the results, one per image; the network's inputs.
    """
    marks = [time.perf_counter()]
    images = [predictor.read(source) for source in sources]
    marks.append(time.perf_counter())
    inputs, metas = predictor.preprocess(images)
    marks.append(time.perf_counter())
    raw = predictor.network(inputs)
    synchronize(raw)
    marks.append(time.perf_counter())
    results = list(predictor.postprocess(raw, inputs, metas))
    marks.append(time.perf_counter())
    seconds = {stage: after - before for stage, before, after in zip(STAGES, marks, marks[1:], strict=False)}
    return seconds | {END_TO_END: marks[-1] - marks[0]}, results, inputs


def input_shape(inputs: Any) -> tuple[int, ...]:
    """Return the shape (B, H, W, 3) of the images in a network's inputs."""
    images = inputs["images"] if isinstance(inputs, dict) else inputs
    return tuple(int(size) for size in images.shape)


def warm_up(
    run: Callable[[int], tuple[float, Any]], batches: int, *, max_runs: int = 60, max_seconds: float = 30.0
) -> dict[str, Any]:
    """Run batches untimed until the times settle and every input shape has been compiled.

    Args:
        run: Takes the number of a batch; returns its seconds and the network's input shape.
        batches: Number of different batches; each shape among them is met once before the timing starts.
        max_runs: Upper bound.
        max_seconds: No further run starts after this long.

    Returns:
        ``runs``, ``seconds``, ``stable`` (whether the times settled within the bounds) and
        ``input_shapes``, the number of different shapes met.
    """
    start = time.perf_counter()
    shapes: set = set()
    since_new_shape: list[float] = []
    runs = 0
    while True:
        seconds, shape = run(runs % batches)
        runs += 1
        # A first run of a shape is mostly compilation; it says nothing about whether the times have settled.
        if shape in shapes:
            since_new_shape.append(seconds)
        else:
            shapes.add(shape)
            since_new_shape.clear()
        stable = is_stable(since_new_shape) and (runs >= batches or len(shapes) == 1)
        elapsed = time.perf_counter() - start
        if stable or runs >= max_runs or elapsed > max_seconds:
            return {"runs": runs, "seconds": elapsed, "stable": stable, "input_shapes": len(shapes)}


def time_stages(
    predictor,
    sources: Sequence,
    batch_size: int,
    *,
    min_batches: int = 20,
    max_seconds: float = 60.0,
    warm_up_seconds: float = 30.0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Time a predictor over batches of real images.

    The images are gone through at least once and from the start again until there are `min_batches`, unless
    `max_seconds` end the run first. Only full batches are timed.

    Args:
        predictor: A `kerasvision.inference.Predictor`.
        sources: Encoded images that `predictor.read` takes, such as file paths; at least one.
        batch_size: Images per batch, 1 or more.
        min_batches: Timed batches to reach; 20 are needed for p90, 100 for p99.
        max_seconds: No further batch starts after this long.
        warm_up_seconds: Bound of the warm-up.
        progress: Called as ``progress(done, total)`` after each batch.

    Returns:
        ``batch_size``; ``stages``: for each of `STAGES` and `END_TO_END` the `distribution` of seconds per
        batch; ``images_per_second`` end to end; ``warm_up`` as `warm_up` gives it; ``complete``, whether the
        batches asked for were reached.

    Raises:
        ValueError: No sources, or a batch size below 1.
    """
    if not len(sources):
        raise ValueError("`sources` is empty; give at least one image to time")
    if batch_size < 1:
        raise ValueError(f"`batch_size` {batch_size} must be 1 or more")
    per_pass = math.ceil(len(sources) / batch_size)
    total = max(min_batches, per_pass)

    def batch(number: int) -> list:
        first = number * batch_size
        return [sources[(first + offset) % len(sources)] for offset in range(batch_size)]

    def warm(number: int) -> tuple[float, Any]:
        seconds, _, inputs = run_batch(predictor, batch(number))
        return seconds[END_TO_END], input_shape(inputs)

    warmed = warm_up(warm, per_pass, max_runs=max(60, per_pass + 10), max_seconds=warm_up_seconds)
    gc.collect()  # the garbage of the warm-up must not be collected on the clock
    timings: dict[str, list[float]] = {stage: [] for stage in (*STAGES, END_TO_END)}
    start = time.perf_counter()
    for number in range(total):
        seconds, _, _ = run_batch(predictor, batch(number))
        for stage, value in seconds.items():
            timings[stage].append(value)
        if progress is not None:
            progress(number + 1, total)
        if time.perf_counter() - start > max_seconds:
            break
    timed = len(timings[END_TO_END])
    return {
        "batch_size": batch_size,
        "stages": {stage: distribution(values) for stage, values in timings.items()},
        "images_per_second": timed * batch_size / sum(timings[END_TO_END]),
        "warm_up": warmed,
        "complete": timed == total,
    }

"""Timing two sides in one process, by turns."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that a call took, and its result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def times_by_turns(functions: dict[str, Callable[[], float]], repeats: int, pause: float) -> dict[str, list]:
    """Call the functions by turns; the order flips each time, so that neither always follows the other.

    Args:
        functions: Of each side; each returns the seconds it took.
        repeats: Calls of each that count, after three that do not: compilation, caches.
        pause: Seconds before each call. They let the other side's threads, which spin for a while after their work, go
            to sleep.

    Returns:
        dict of lists of seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        for _ in range(3):
            function()
    for repeat in range(repeats):
        for name, function in list(functions.items())[:: 1 if repeat % 2 else -1]:
            time.sleep(pause)
            times[name].append(function())
    return times


def figures(times: dict[str, list]) -> dict:
    """Return the medians of the sides ``ours`` and ``theirs`` in seconds, and their ratio."""
    ours, theirs = (statistics.median(times[side]) for side in ("ours", "theirs"))
    return {"ours_seconds": ours, "theirs_seconds": theirs, "ratio": ours / theirs}


def figures_as_text(title: str, row: dict) -> str:
    """Return a line for what `figures` gave."""
    return (
        f"  {title}: ours {row['ours_seconds']:.3f} s, torchvision {row['theirs_seconds']:.3f} s, "
        f"ratio {row['ratio']:.3f}"
    )


def heading(result: dict) -> list[str]:
    """Return two lines: the model, its image and the repeats; the machine."""
    machine, size = result["environment"], "x".join(map(str, result["image_hw"]))
    return [
        f"{result['model']} at {size}, batch 1, {result['repeats']} runs each by turns",
        f"  {machine['backend']} {machine['precision']}, {machine['cpu']}, {machine['cores']} cores",
    ]


def compare_models(
    description: str,
    models: Sequence[str],
    compare: Callable[..., dict],
    as_text: Callable[[dict], str],
    *,
    size: int,
    smallest: int,
) -> None:
    """Be the command line of a peer of several models: print the comparisons; ``--json`` writes them to a file.

    Args:
        description: What it compares.
        models: Names to choose from; by default all.
        compare: Called as ``compare(name, size, repeats=...)``.
        as_text: Turns its result into lines.
        size: Default side of the image in pixels.
        smallest: The least that is taken.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--models", nargs="+", choices=models, default=models)
    parser.add_argument("--size", type=int, default=size, metavar="PIXELS", help="side of the image")
    parser.add_argument("--repeats", type=int, default=9, help="timed runs of each side")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    options = parser.parse_args()
    if options.size < smallest or options.repeats < 3:
        parser.error(f"--size must be at least {smallest} pixels, --repeats at least 3")
    try:
        import torchvision  # noqa: F401
    except ImportError:
        parser.error("torchvision is not installed; pip install 'kerasvision[parity]'")
    results = []
    for name in options.models:
        results.append(compare(name, options.size, repeats=options.repeats))
        print(as_text(results[-1]), flush=True)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def randomize_normalization(model, generator) -> None:
    """Give a torch model's batch normalisation statistics and weights that differ from 0 and 1."""
    import torch

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                channels = module.num_features
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.copy_(0.1 * torch.randn(channels, generator=generator))
                module.running_var.copy_(0.5 + torch.rand(channels, generator=generator))
                module.weight.copy_(0.5 + 0.5 * torch.rand(channels, generator=generator))
                module.bias.copy_(0.1 * torch.randn(channels, generator=generator))

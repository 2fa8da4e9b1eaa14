"""Timing two sides in one process, by turns."""

import time
from collections.abc import Callable
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

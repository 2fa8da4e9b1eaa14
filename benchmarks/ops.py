"""Time single operations beside what others offer for the same, in one run, easy and worst case.

```
python -m benchmarks.ops [--only nms roi_align] [--repeats 9] [--json FILE] [--markdown FILE]
```

The comparisons stand in benchmarks/peers/ops.py and blocks.py. One more takes a few lines there:

    @comparison("boxes.area", case="100,000 boxes")
    def area():
        boxes = random_boxes(100_000)
        peers = {"torchvision box_area": lambda: torch_call(torchvision.ops.box_area, boxes)}
        return Sides(Call(kerasvision.ops.boxes.area, [boxes]), peers)

Every side is warmed up, then they take turns; the order flips each time, and a pause before each run lets the other
side's threads go to sleep. Medians are reported. Ours is compiled as its backend does it: tf.function, jax.jit,
eager PyTorch. Peers whose packages are missing show as not installed.
"""

import argparse
import importlib
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks import environment
from benchmarks.timing import synchronize
from kerasvision.files import write_json, write_text

OURS = "kerasvision"

# Less than this is noise between two runs.
_SLOWER = 0.95


class _Unsuited(ImportError):
    """A peer that works under another backend only."""


@dataclass(frozen=True)
class Call:
    """One operation and its arguments, to be compiled by Keras's backend.

    Args:
        function: Takes tensors.
        arguments: NumPy arrays, as many as it takes.
        open_sizes: Let a TensorFlow graph learn the arguments' sizes only when it runs, so that nothing that follows
            from them is computed beforehand.
    """

    function: Callable
    arguments: Sequence
    open_sizes: bool = False

    def prepare(self) -> Callable[[], Any]:
        """Return a function without arguments that runs the operation and waits for its end."""
        import keras

        tensors = [keras.ops.convert_to_tensor(array) for array in self.arguments]
        function, backend = self.function, keras.backend.backend()
        if backend == "tensorflow":
            tensorflow = importlib.import_module("tensorflow")
            shapes = [[None] * tensor.ndim if self.open_sizes else tensor.shape for tensor in tensors]
            specs = [tensorflow.TensorSpec(shape, tensor.dtype) for shape, tensor in zip(shapes, tensors, strict=True)]
            function = tensorflow.function(function, input_signature=specs)
        elif backend == "jax":
            function = importlib.import_module("jax").jit(function)
        elif backend == "torch":
            function = importlib.import_module("torch").inference_mode()(function)

        def run():
            outputs = function(*tensors)
            synchronize(outputs)
            return outputs

        return run


@dataclass(frozen=True)
class Sides:
    """What is compared.

    Args:
        ours: Our operation; a function without arguments if it runs on the host.
        peers: For each peer's name a function that returns a `Call`, or a function without arguments to time; it
            raises ImportError where the peer is not installed.
        differs: For peers that do less or other work than ours, what differs, in a few words.
        why: Where a peer is quicker: the reason.
    """

    ours: Call | Callable[[], Any]
    peers: dict[str, Callable[[], Any]]
    differs: dict[str, str] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True)
class Comparison:
    """A registered comparison: `make` builds the inputs and `Sides`."""

    op: str
    case: str
    make: Callable[[], Sides]


REGISTRY: list[Comparison] = []


def comparison(op: str, *, case: str):
    """Register the function below, which returns `Sides`, under an operation's name and a case."""

    def register(make):
        REGISTRY.append(Comparison(op, case, make))
        return make

    return register


def measure(entry: Comparison, *, repeats: int = 9, pause: float = 0.1) -> dict:
    """Time all sides of one comparison.

    Args:
        entry: From `REGISTRY`.
        repeats: Timed runs of each side.
        pause: Seconds of rest before each run.

    Returns:
        ``op``, ``case`` and ``sides``: for each a dict of ``name``, ``seconds`` (median, None if not run), ``best``
        (the quickest run), ``note`` (``"not installed"``, what differs, or the error) and ``ratio``, its median
        divided by ours; ``why`` a peer is quicker.
    """
    sides = entry.make()
    runs: dict[str, Callable] = {OURS: _prepared(sides.ours)}
    notes = dict(sides.differs)
    for name, make in sides.peers.items():
        try:
            runs[name] = _prepared(make())
            runs[name]()
        except ImportError as error:
            runs.pop(name, None)
            notes[name] = "not installed" if not isinstance(error, _Unsuited) else str(error)
        except Exception as error:  # a peer that fails is a result, too
            runs.pop(name, None)
            notes[name] = f"failed: {type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else ''}"
    times = _by_turns(runs, repeats, pause)
    ours = statistics.median(times[OURS])
    rows = []
    for name in (OURS, *sides.peers):
        median = statistics.median(times[name]) if name in times else None
        rows.append(
            {
                "name": name,
                "seconds": median,
                "best": min(times[name]) if name in times else None,
                "ratio": None if median is None else median / ours,
                "note": notes.get(name, ""),
            }
        )
    return {"op": entry.op, "case": entry.case, "sides": rows, "why": sides.why}


def _prepared(side):
    return side.prepare() if isinstance(side, Call) else side


def needs_backend(*names: str) -> None:
    """Raise what `measure` shows as a note, unless Keras runs one of these backends."""
    import keras

    if keras.backend.backend() not in names:
        raise _Unsuited(f"needs KERAS_BACKEND={' or '.join(names)}")


def _by_turns(runs: dict[str, Callable], repeats: int, pause: float) -> dict[str, list[float]]:
    for run in runs.values():  # compilation, caches
        for _ in range(2):
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats):
        for name, run in list(runs.items())[:: 1 if repeat % 2 else -1]:
            time.sleep(pause)
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def table(results: Sequence[dict]):
    """Return a rich table of what `measure` gave."""
    from rich.table import Table

    found = Table(title="Median milliseconds; ratio: time divided by ours", title_justify="left")
    for name in ("op", "case", "side"):
        found.add_column(name)
    for name in ("ms", "ratio"):
        found.add_column(name, justify="right")
    found.add_column("note", overflow="fold")
    for result in results:
        for row, side in enumerate(result["sides"]):
            first = row == 0
            found.add_row(
                result["op"] if first else "",
                result["case"] if first else "",
                side["name"],
                "" if side["seconds"] is None else f"{side['seconds'] * 1e3:.2f}",
                "" if side["ratio"] is None else f"{side['ratio']:.2f}",
                side["note"],
                end_section=row == len(result["sides"]) - 1,
            )
    return found


def as_markdown(document: dict) -> str:
    """Return a page of what was measured: the machine, a table, and why a peer is quicker where one is."""
    machine = document["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        "# Operations beside their peers",
        "",
        f"Written by `python -m benchmarks.ops --markdown docs/ops_speed.md`: {document['repeats']} runs of each side, "
        "by turns, medians. Ratios are a peer's time divided by ours: above 1, ours is the quicker.",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['accelerator'] or 'no accelerator'}; "
        f"{machine['backend']}, {machine['precision']}; {versions}; commit {machine['commit']}.",
        "",
        "| operation | case | side | ms | ratio | note |",
        "|---|---|---|---:|---:|---|",
    ]
    reasons = []
    for result in document["results"]:
        for row, side in enumerate(result["sides"]):
            labels = (f"`{result['op']}`", result["case"]) if row == 0 else ("", "")
            milliseconds = "" if side["seconds"] is None else f"{side['seconds'] * 1e3:.2f}"
            ratio = "" if side["ratio"] is None else f"{side['ratio']:.2f}"
            lines.append(f"| {' | '.join((*labels, side['name'], milliseconds, ratio, side['note']))} |")
        quicker = [side["name"] for side in result["sides"] if (side["ratio"] or 1) < _SLOWER]
        if quicker:
            reasons.append(
                f"- **{result['op']}, {result['case']}** ({', '.join(quicker)}): {result['why'] or 'unknown.'}"
            )
    if reasons:
        lines += ["", "## Why a peer is quicker there", "", *reasons]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparisons and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ops", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="OP", help="operations to time; default: all")
    parser.add_argument("--list", action="store_true", help="name the operations and stop")
    parser.add_argument("--repeats", type=int, default=9, help="timed runs of each side")
    parser.add_argument("--json", metavar="FILE", help='write the results here, "-" for standard output')
    parser.add_argument("--markdown", metavar="FILE", help="write a page here")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats {options.repeats} must be 1 or more")
    if "tensorflow" not in sys.modules and importlib.util.find_spec("torchvision"):
        importlib.import_module("torchvision")  # before TensorFlow: loaded after it, it crashes the process
    for module in ("ops", "blocks"):  # these fill the registry
        importlib.import_module(f"benchmarks.peers.{module}")
    names = list(dict.fromkeys(entry.op for entry in REGISTRY))
    unknown = sorted(set(options.only or ()) - set(names))
    if unknown:
        parser.error(f"--only {' '.join(unknown)} is unknown; use {', '.join(names)}")
    if options.list:
        print("\n".join(names))
        return 0
    from rich.console import Console

    to_stdout = options.json == "-"
    console = Console(stderr=to_stdout)
    if not console.is_terminal:
        console.width = 160  # in a file there is room
    results = []
    for entry in REGISTRY:
        if options.only is None or entry.op in options.only:
            console.print(f"{entry.op}, {entry.case} …", style="dim")
            results.append(measure(entry, repeats=options.repeats))
    console.print(table(results))
    document = {"environment": environment.describe(), "repeats": options.repeats, "results": results}
    if options.markdown:
        write_text(options.markdown, as_markdown(document))
    if to_stdout:
        print(json.dumps(document, indent=2))
    elif options.json:
        write_json(options.json, document)
    return 0


if __name__ == "__main__":
    # Through the import system, so that this module and its registry exist once.
    from benchmarks import ops

    sys.exit(ops.main())

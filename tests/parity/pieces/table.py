"""Compare all pieces with their references under every backend, and write what differs into a table.

```
python -m tests.parity.pieces.table [--write docs/equality.md] [--backends tensorflow jax torch]
```

Exits with 1 if a comparison fails.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
BACKENDS = ("tensorflow", "jax", "torch")


def run(backends) -> tuple[dict[str, list], bool]:
    """Run the comparisons in one process for each backend; returns {backend: rows} and whether all passed."""
    rows, passed = {}, True
    with tempfile.TemporaryDirectory(prefix="kerasvision-equality-") as folder:
        for backend in backends:
            print(f"== {backend}", flush=True)
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE),
                    *("-o", "addopts=--import-mode=importlib -ra --strict-markers"),
                    *("--numprocesses", "auto", "--maxprocesses", "4", "--dist", "worksteal"),
                ],
                # XLA takes longer to optimise these few operations than to run them; the flag concerns JAX alone.
                env=os.environ
                | {"KERAS_BACKEND": backend, "KERASVISION_EQUALITY": folder}
                | ({"XLA_FLAGS": "--xla_backend_optimization_level=0"} if backend == "jax" else {}),
                check=False,
            )
            passed &= done.returncode == 0
            parts = [json.loads(path.read_text()) for path in sorted(Path(folder).glob(f"{backend}-*.json"))]
            rows[backend] = [row for part in parts for row in part]
    return rows, passed


def as_markdown(rows: dict[str, list]) -> str:
    """Return the table: a line for each piece and reference, the largest differences of each backend."""
    largest: dict[tuple, dict] = {}
    for backend, entries in rows.items():
        for entry in entries:
            cell = largest.setdefault((entry["piece"], entry["reference"]), {}).setdefault(backend, [0.0, None])
            cell[0] = max(cell[0], entry["value"])
            if entry["gradient"] is not None:
                cell[1] = max(cell[1] or 0.0, entry["gradient"])
    lines = [
        "# How far each piece is from its reference",
        "",
        "Written by `python -m tests.parity.pieces.table --write docs/equality.md`. Largest difference over all",
        "comparisons, values / gradients: values relative to the largest of the reference (absolute where that is",
        "below 1), gradients relative to the largest gradient. JAX runs without XLA's optimiser here, which",
        "takes a third of the time: `--xla_backend_optimization_level=0`.",
        "",
        f"| piece | reference | {' | '.join(rows)} |",
        f"|---|---|{'---|' * len(rows)}",
    ]
    for (piece, reference), cells in sorted(largest.items()):
        shown = [_cell(*cells[backend]) if backend in cells else "not run" for backend in rows]
        lines.append(f"| `{piece}` | {reference} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _cell(value, gradient):
    return f"{value:.0e}" + ("" if gradient is None else f" / {gradient:.0e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="file for the table")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    arguments = parser.parse_args()
    rows, passed = run(arguments.backends)
    if arguments.write:
        arguments.write.parent.mkdir(parents=True, exist_ok=True)
        arguments.write.write_text(as_markdown(rows))
    sys.exit(not passed)


if __name__ == "__main__":
    main()

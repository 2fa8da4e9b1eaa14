"""The figures of all embedded `streets` weights as a page: `python -m zoo.recipes.table > docs/streets.md`."""

import zoo
from zoo.registry import Entry, Task, Weights

_COLUMNS: dict[Task, tuple[str, ...]] = {
    "detection": ("AP", "AP50", "AP75"),
    "segmentation": ("mIoU", "pixel_accuracy", "dice"),
}
_TITLES = {"pixel_accuracy": "pixel accuracy", "dice": "Dice"}
_INTRODUCTION = """# Models trained on `streets`

What the weights inside the package reach on 500 scenes that none of them has seen, and on 500 `hard` ones (night, rain,
blur, occlusion, small objects), which none was trained on. Measured with the stored weights, rounded to float16, when
they were made; `kerasvision evaluate --model NAME --data streets` measures them again, and
`kerasvision benchmark` measures time beside. All begin with random weights; steps tell how long each was trained, so
rows of different steps compare budgets, not architectures. Written by `python -m zoo.recipes.table`.
"""


def page() -> str:
    """Return the page in Markdown: a table a task, best first."""
    parts = [_INTRODUCTION]
    for task, columns in _COLUMNS.items():
        found = [
            (entry, weights)
            for entry in map(zoo.info, zoo.list_models(task=task))
            for weights in entry.weights
            if weights.embedded
        ]
        found.sort(key=lambda pair: -pair[1].measured[f"streets test (500) {columns[0]}"])
        titles = [_TITLES.get(column, column) for column in columns]
        head = ["model", "M parameters", "GMACs", *titles, *(f"hard {title}" for title in titles), "trained by"]
        parts.append(f"## {task.capitalize()}\n")
        parts.append("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
        parts += ["| " + " | ".join(_row(entry, weights, columns)) + " |" for entry, weights in found]
        parts.append("")
    return "\n".join(parts)


def _row(entry: Entry, weights: Weights, columns: tuple[str, ...]) -> list[str]:
    figures = [
        f"{weights.measured[f'{variant} test (500) {column}']:.3f}"
        for variant in ("streets", "streets:hard")
        for column in columns
    ]
    size = [f"{(entry.parameters or 0) / 1e6:.2f}", f"{(entry.macs or 0) / 1e9:.2f}"]
    return [f"`{entry.name}`", *size, *figures, f"`{weights.recipe}`"]


if __name__ == "__main__":
    print(page(), end="")

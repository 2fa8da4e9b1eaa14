"""``kerasvision data show``, ``check`` and ``weights``: look at a data set before training on it."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from kerasvision.cli_datasets import DATA_HELP, ClassesOption, WeightMethod, count_weights, open_data
from kerasvision.cli_inputs import UserError, in_options, naming, output_console, progress_bar

app = typer.Typer(help="Look at data sets and check them.", no_args_is_help=True)

TaskOption = Annotated[
    str | None,
    typer.Option(
        metavar="detection|segmentation",
        help="Only the images and annotations for this task. Default: what the data has for its main list of images.",
        show_default=False,
    ),
]

_CELL_WIDTH = 480  # pixels; narrower images are enlarged so that their tags can be read


@app.command()
def show(
    data: Annotated[str, typer.Argument(help=DATA_HELP)],
    split: Annotated[str, typer.Option(help="Split to draw from.")] = "train",
    task: TaskOption = None,
    classes: ClassesOption = None,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("data.png"),
    count: Annotated[int, typer.Option(min=1, max=400, help="Number of samples.")] = 12,
    first: Annotated[int, typer.Option(min=0, help="Number of the first sample.")] = 0,
    columns: Annotated[int | None, typer.Option(min=1, help="Samples per row.")] = None,
    masks: Annotated[bool, typer.Option("--masks/--no-masks", help="Draw masks, where there are any.")] = True,
    boxes: Annotated[bool, typer.Option("--boxes/--no-boxes", help="Draw boxes, where there are any.")] = True,
) -> None:
    """Draw annotated samples on one sheet.

    Boxes that are neither trained on nor scored are dashed.
    """
    _check_task(task)
    dataset = open_data(data, split, task=task, classes=classes)
    if first >= len(dataset):
        raise UserError(f"--first {first}: --data {data} --split {split} has samples 0 to {len(dataset) - 1}")
    from kerasvision import visualize

    indices = range(first, min(first + count, len(dataset)))
    pictures, titles = [], []
    with progress_bar() as progress:
        for index in progress.track(indices, description="drawing"):
            sample = dataset[index]
            pictures.append(_draw(sample, dataset, masks=masks, boxes=boxes))
            titles.append(sample.name)
    sheet = visualize.grid(pictures, columns, titles)
    with naming("--out", out):
        visualize.save_image(sheet, out)
    typer.echo(f"{len(pictures)} of {len(dataset)} samples in {out}")


def _check_task(task: str | None) -> None:
    from kerasvision.data.samples import check_task

    with naming("--task", task):
        check_task(task)


def _draw(sample, dataset, *, masks: bool, boxes: bool):
    """Return the sample's picture with its mask and, on top, its boxes."""
    from kerasvision import visualize

    scale = max(1, math.ceil(_CELL_WIDTH / sample.image.shape[1]))
    if masks and sample.mask is not None:
        drawn = visualize.draw_mask(
            sample.image, sample.mask, dataset.mask_classes, dataset.palette, alpha=0.4, scale=scale
        )
    else:
        drawn = visualize.draw_detections(sample.image, [], [], scale=scale)
    if not boxes or "detection" not in dataset.tasks:
        return drawn
    height = sample.image.shape[0] * scale  # below lies the legend of the mask
    drawn[:height] = visualize.draw_detections(
        drawn[:height],
        sample.boxes * scale,
        sample.labels,
        class_names=dataset.classes,
        ignored=sample.ignored,
    )
    return drawn


@app.command()
def check(
    data: Annotated[str, typer.Argument(help=DATA_HELP)],
    split: Annotated[str, typer.Option(help="Split to check.")] = "train",
    task: TaskOption = None,
    classes: ClassesOption = None,
    notes: Annotated[bool, typer.Option("--notes/--no-notes", help="Also what is allowed but unusual.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Read every sample and report bad files and annotations by name.

    The exit status is 1 if there is an error, 0 if there are only notes.
    """
    from kerasvision import data as data_sets

    _check_task(task)
    dataset = open_data(data, split, task=task, classes=classes, strict=False)
    with progress_bar() as progress:
        bar = progress.add_task("checking", total=len(dataset))
        problems = data_sets.check(dataset, lambda done, total: progress.update(bar, completed=done))
    problems = [replace(problem, message=in_options(problem.message)) for problem in problems]
    errors = [problem for problem in problems if problem.severity == "error"]
    shown = problems if notes else errors
    if as_json:
        typer.echo(json.dumps([asdict(problem) for problem in shown], ensure_ascii=False))
    elif shown:
        from rich.table import Table
        from rich.text import Text

        table = Table("", box=None, pad_edge=False)
        table.add_column("file", overflow="fold")
        table.add_column("where", overflow="fold")
        table.add_column("problem", overflow="fold")
        for problem in shown:
            style = "red" if problem.severity == "error" else "dim"
            table.add_row(Text(problem.severity, style), Text(problem.file), Text(problem.where), Text(problem.message))
        output_console().print(table)
    counted = f"{len(dataset)} samples, {len(errors)} errors, {len(problems) - len(errors)} notes"
    typer.echo(f"{data}, {split} split, {' and '.join(sorted(dataset.tasks))}: {counted}", err=as_json)
    if errors:
        raise typer.Exit(1)


@app.command()
def weights(
    data: Annotated[str, typer.Argument(help=DATA_HELP)],
    split: Annotated[str, typer.Option(help="Split to count.")] = "train",
    classes: ClassesOption = None,
    method: Annotated[WeightMethod, typer.Option(help="How weights follow from counts.")] = "median_frequency",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Count the pixels of each mask class, and weight rare classes more.

    The weights are for losses: compile(loss=CrossEntropyLoss(class_weights=[...])),
    or `train --loss cross_entropy --class-weights METHOD`, which counts by itself.
    A class without any pixel has weight 0.
    """
    dataset = open_data(data, split, task="segmentation", classes=classes)
    counts, found = count_weights(dataset, method, data=data, split=split)
    pixels, images = counts.pixels.tolist(), counts.images.tolist()
    rows = list(zip(dataset.mask_classes, pixels, images, found.tolist(), strict=True))
    if as_json:
        content = [{"class": row[0], "pixels": row[1], "images": row[2], "weight": row[3]} for row in rows]
        typer.echo(json.dumps(content, ensure_ascii=False))
        return
    from rich.table import Table

    table = Table("class", box=None, pad_edge=False)
    for column in ("pixels", "share", "images", "weight"):
        table.add_column(column, justify="right")
    for name, of_class, seen, weight in rows:
        table.add_row(name, str(of_class), f"{of_class / sum(pixels):.2%}", str(seen), f"{weight:.4g}")
    output_console().print(table)

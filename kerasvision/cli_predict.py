"""``kerasvision predict``: images in, pictures and a table out."""

import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from kerasvision.cli_inputs import (
    find_images,
    load_model,
    message_of,
    naming,
    new_path,
    output_console,
    progress_bar,
    task_of,
)


def predict(
    sources: Annotated[list[str], typer.Argument(help="Image files, folders of images or quoted patterns.")],
    model: Annotated[str, typer.Option(help="name[.tag] as `kerasvision list` shows, or a .keras file.")],
    weights: Annotated[
        str | None, typer.Option(help="A tag, a file, or 'none' for random weights.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("predictions"),
    draw: Annotated[bool, typer.Option("--draw/--no-draw", help="Whether to write pictures.")] = True,
    threshold: Annotated[float, typer.Option(min=0.0, max=1.0, help="Leave out detections with lower scores.")] = 0.5,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per call of the network.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Find objects or segment images; draw the results and print them.

    The pictures go to --out under the images' names; no input is ever overwritten.
    Photos are turned upright first, as their EXIF orientation says; boxes and sizes
    are those of the upright picture.

    A file that cannot be read is reported, the others are done, and the exit status is 2.
    """
    paths = find_images(sources)
    loaded = load_model(model, weights)
    from kerasvision.inference import Predictor

    task = task_of(loaded)
    with naming("--model", model):
        predictor = Predictor(loaded, score_threshold=threshold if task == "detection" else None, freeze=True)
    protected = {path.resolve() for path in paths}
    failures, done = [], []
    with progress_bar() as progress:
        bar = progress.add_task("predicting", total=len(paths))
        for path, image, result in _predictions(predictor, paths, batch_size, failures):
            picture = None
            if draw:
                picture = new_path(out / f"{path.stem}.png", protected)
                protected.add(picture.resolve())  # a/x.jpg and b/x.jpg get a picture each
                with naming("--out", out):
                    _draw(image, result, task, picture)
            done.append((path, result, picture))
            progress.update(bar, completed=len(done) + len(failures))
    if as_json:
        typer.echo(json.dumps([_as_dict(*entry) for entry in done], ensure_ascii=False))
    elif done:
        output_console().print((_boxes_table if task == "detection" else _masks_table)(done))
        if draw:
            typer.echo(f"{len(done)} picture{'s' if len(done) > 1 else ''} in {out}", err=True)
    for path, message in failures:
        print(f"error: SOURCE {path}: {message.removeprefix(f'{path}: ')}", file=sys.stderr)
    if failures:
        raise typer.Exit(2)


def _predictions(predictor, paths: Sequence[Path], batch_size: int, failures: list) -> Iterator[tuple[Path, Any, Any]]:
    """Yield (path, image, result); files that cannot be read go to `failures` as (path, message)."""
    for first in range(0, len(paths), batch_size):
        batch = []
        for path in paths[first : first + batch_size]:
            try:
                batch.append((path, predictor.read(path)))
            except (ValueError, OSError) as error:
                failures.append((path, message_of(error)))
        # Only images of one input size share a call: padding to a common size would change results a little.
        for _, group in itertools.groupby(batch, key=lambda entry: predictor.resize.canvas_hw(*entry[1].shape[:2])):
            names, images = zip(*group, strict=True)
            inputs, metas = predictor.preprocess(images, [str(name) for name in names])
            results = predictor.postprocess(predictor.network(inputs), inputs, metas)
            yield from zip(names, images, results, strict=True)


def _draw(image, result, task: str, path: Path) -> None:
    from kerasvision import visualize

    if task == "detection":
        drawn = visualize.draw_detections(image, result.boxes, result.labels, result.scores, result.class_names)
    else:
        drawn = visualize.draw_mask(image, result.mask, result.class_names)
    visualize.save_image(drawn, path)


def _as_dict(path: Path, result, picture: Path | None) -> dict:
    content = {**result.to_dict(), "file": str(path)}
    return content if picture is None else {**content, "picture": str(picture)}


def _name(class_names, label: int) -> str:
    return class_names[label] if class_names is not None and label < len(class_names) else str(label)


def _boxes_table(done: Sequence[tuple]):
    from rich.table import Table

    table = Table("image", "class", box=None, pad_edge=False)
    for column in ("score", "x1", "y1", "x2", "y2"):
        table.add_column(column, justify="right")
    for path, result, _ in done:
        if not len(result.labels):
            table.add_row(str(path), "[dim]nothing found[/]")
        for box, score, label in zip(result.boxes, result.scores, result.labels, strict=True):
            corners = [f"{float(value):.0f}" for value in box]
            table.add_row(str(path), _name(result.class_names, int(label)), f"{float(score):.2f}", *corners)
    return table


def _masks_table(done: Sequence[tuple]):
    import numpy as np
    from rich.table import Table

    table = Table("image", "class", box=None, pad_edge=False)
    table.add_column("share of pixels", justify="right")
    for path, result, _ in done:
        labels, counts = np.unique(result.mask, return_counts=True)
        for index in np.argsort(-counts):
            share = counts[index] / result.mask.size
            table.add_row(str(path), _name(result.class_names, int(labels[index])), f"{share:.1%}")
    return table

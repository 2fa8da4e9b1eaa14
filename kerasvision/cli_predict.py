"""``kerasvision predict``: images in, pictures, masks and a table out."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from kerasvision.cli_inputs import (
    UserError,
    find_images,
    list_of_numbers,
    load_model,
    message_of,
    naming,
    new_path,
    output_console,
    progress_bar,
    task_of,
)

# Overlays of images in tiles are drawn at a half, a third … of their size beyond it: they are looked at, not measured.
_LONGEST_DRAWN = 4096

# Options of segmenters, and the argument of `Predictor` that each is for.
_ARGUMENTS = {"--tile": "tiles", "--scales": "augment", "--flip": "augment", "--crf": "crf"}
_TileMode = Literal["linear", "average", "centre"]


def predict(
    sources: Annotated[list[str], typer.Argument(help="Image files, folders of images or quoted patterns.")],
    model: Annotated[str, typer.Option(help="name[.tag] as `kerasvision list` shows, or a .keras file.")],
    weights: Annotated[
        str | None, typer.Option(help="A tag, a file, or 'none' for random weights.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("predictions"),
    draw: Annotated[bool, typer.Option("--draw/--no-draw", help="Whether to write pictures.")] = True,
    masks: Annotated[
        Path | None,
        typer.Option(help="Segmenters: folder for masks, PNG files of class ids.", show_default=False),
    ] = None,
    threshold: Annotated[float, typer.Option(min=0.0, max=1.0, help="Leave out detections with lower scores.")] = 0.5,
    batch_size: Annotated[int, typer.Option(min=1, help="Images, or tiles, per call of the network.")] = 1,
    tile: Annotated[
        int | None,
        typer.Option(min=1, help="Segmenters: see the image in windows of so many pixels a side.", show_default=False),
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(min=0, help="Pixels that tiles share. Default: a quarter.", show_default=False)
    ] = None,
    tile_mode: Annotated[
        _TileMode | None, typer.Option(help="How tiles are joined. Default: linear.", show_default=False)
    ] = None,
    mirror: Annotated[bool, typer.Option("--mirror", help="Mirror the image at its border, for tiles.")] = False,
    scales: Annotated[
        str | None, typer.Option(help="Segmenters: mean over scales, such as 0.5,1,1.5.", show_default=False)
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Segmenters: mean over the image and its mirror image.")] = False,
    crf: Annotated[bool, typer.Option("--crf", help="Segmenters: let labels follow edges, by a dense CRF.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Find objects or segment images; draw the results and print them.

    The pictures go to --out, and masks to --masks, under the images' names; no
    input is ever overwritten. Photos are turned upright first, as their EXIF
    orientation says; boxes and sizes are those of the upright picture.

    With --tile, an image of any size is done in bounded memory, at its own size;
    best as a .npy file (uint8, height x width x 3), which is read piece by piece.

    A file that cannot be read is reported, the others are done, and the exit status is 2.
    """
    paths = find_images(sources)
    options = {**_tile_options(tile, overlap, tile_mode, mirror), **_view_options(scales, flip, crf)}
    loaded = load_model(model, weights)
    task = task_of(loaded)
    for option in (*options, *(["--masks"] if masks is not None else [])):
        if task == "detection":
            raise UserError(f"{option}: is for segmenters, but --model {model} is a detector; leave it out")
    failures, done = [], []
    protected = {path.resolve() for path in paths}
    with progress_bar() as progress:
        with naming("--model", model):
            predictor = _predictor(loaded, task, threshold, batch_size, progress, options)
        bar = progress.add_task("predicting", total=len(paths))
        for path, image, result in _predictions(predictor, paths, 1 if tile is not None else batch_size, failures):
            files = {}
            if draw:
                files["picture"] = _reserve(out, path, protected)
                with naming("--out", out):
                    _draw(image, result, task, files["picture"], reduced=tile is not None)
            if masks is not None:
                files["mask"] = _reserve(masks, path, protected)
                with naming("--masks", masks):
                    _save_mask(result, files["mask"])
            done.append(_summary(path, result, task, files))
            progress.update(bar, completed=len(done) + len(failures))
    if as_json:
        typer.echo(json.dumps([content for content, _ in done], ensure_ascii=False))
    elif done:
        output_console().print(_table(task, [row for _, rows in done for row in rows]))
        for what, folder in (("picture", out if draw else None), ("mask", masks)):
            if folder is not None:
                typer.echo(f"{len(done)} {what}{'s' if len(done) > 1 else ''} in {folder}", err=True)
    for path, message in failures:
        print(f"error: SOURCE {path}: {message.removeprefix(f'{path}: ')}", file=sys.stderr)
    if failures:
        raise typer.Exit(2)


def _tile_options(tile: int | None, overlap: int | None, mode: _TileMode | None, mirror: bool) -> dict[str, Any]:
    """Return the `Tiles` that ``--tile`` and its companions ask for, under the option's name."""
    if tile is None:
        given = {"--overlap": overlap is not None, "--tile-mode": mode is not None, "--mirror": mirror}
        for option in given:
            if given[option]:
                raise UserError(f"{option}: is for tiles; say how large they are with --tile, such as --tile 512")
        return {}
    from kerasvision.ops.tiles import Tiles

    with naming("--tile", tile):
        overlap = tile // 4 if overlap is None else overlap
        return {"--tile": Tiles(tile, overlap=overlap, mode=mode or "linear", mirror=mirror)}


def _view_options(scales: str | None, flip: bool, crf: bool) -> dict[str, Any]:
    """Return what ``--scales``, ``--flip`` and ``--crf`` ask for, under the options' names."""
    from kerasvision.segmentation import DenseCRF, TestTimeAugmentation

    options = {}
    if scales is not None or flip:
        factors = (1.0,) if scales is None else list_of_numbers("--scales", scales)
        with naming("--scales", scales):
            options["--flip" if scales is None else "--scales"] = TestTimeAugmentation(factors, flip=flip)
    if crf:
        options["--crf"] = DenseCRF()
    return options


def _predictor(loaded, task: str, threshold: float, batch_size: int, progress, options: dict[str, Any]):
    """Return the `Predictor`; its tiles have a bar of their own beside that of the images."""
    from kerasvision.inference import Predictor

    if task == "detection":
        return Predictor(loaded, score_threshold=threshold, freeze=True)
    from kerasvision.data import palette_of

    arguments: dict[str, Any] = {_ARGUMENTS[option]: value for option, value in options.items()}
    if "tiles" in arguments:
        bar = progress.add_task("tiles", total=None, visible=False)

        def show(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total, visible=done < total)

        arguments |= {"progress": show, "batch_size": batch_size}
    return Predictor(loaded, freeze=True, palette=palette_of(loaded.class_names), **arguments)


def _predictions(predictor, paths: Sequence[Path], batch_size: int, failures: list) -> Iterator[tuple[Path, Any, Any]]:
    """Yield (path, image, result); files that cannot be read go to `failures` as (path, message)."""
    for first in range(0, len(paths), batch_size):
        batch = []
        for path in paths[first : first + batch_size]:
            try:
                batch.append((path, predictor.read(path)))
            except (ValueError, OSError) as error:
                failures.append((path, message_of(error)))
        results = predictor.predict([image for _, image in batch], [str(path) for path, _ in batch])
        for (path, image), result in zip(batch, results, strict=True):
            yield path, image, result


def _reserve(folder: Path, source: Path, protected: set[Path]) -> Path:
    """Return a file in a folder, named as the source and not among the protected ones, to which it is added."""
    path = new_path(folder / f"{source.stem}.png", protected)
    protected.add(path.resolve())  # a/x.jpg and b/x.jpg get a picture each
    return path


def _draw(image, result, task: str, path: Path, *, reduced: bool) -> None:
    from kerasvision import visualize

    if task == "detection":
        drawn = visualize.draw_detections(image, result.boxes, result.labels, result.scores, result.class_names)
    else:
        step = -(-max(result.size_hw) // _LONGEST_DRAWN) if reduced else 1
        drawn = visualize.draw_mask(
            image[::step, ::step], result.mask[::step, ::step], result.class_names, result.palette
        )
    visualize.save_image(drawn, path)


def _save_mask(result, path: Path) -> None:
    from kerasvision import visualize

    palette = visualize.default_palette(len(result.class_names)) if result.palette is None else result.palette
    visualize.save_mask(result.mask, path, palette)


def _name(class_names, label: int) -> str:
    return class_names[label] if class_names is not None and label < len(class_names) else str(label)


def _summary(path: Path, result, task: str, files: dict[str, Path]) -> tuple[dict, list[tuple]]:
    """Return what the JSON and the table say of one image; a mask itself is not kept."""
    content = {**result.to_dict(), "file": str(path), **{what: str(file) for what, file in files.items()}}
    return content, (_box_rows if task == "detection" else _class_rows)(path, result)


def _box_rows(path: Path, result) -> list[tuple]:
    """Return the rows that the table shows for one image."""
    if not len(result.labels):
        return [(str(path), "[dim]nothing found[/]")]
    return [
        (str(path), _name(result.class_names, int(label)), f"{float(score):.2f}", *(f"{float(x):.0f}" for x in box))
        for box, score, label in zip(result.boxes, result.scores, result.labels, strict=True)
    ]


def _class_rows(path: Path, result) -> list[tuple]:
    """Return the rows that the table shows for one image."""
    counts = result.class_counts()
    return [
        (str(path), _name(result.class_names, int(label)), f"{counts[label] / result.mask.size:.1%}")
        for label in counts.argsort()[::-1]
        if counts[label]
    ]


def _table(task: str, rows: Sequence[tuple]):
    from rich.table import Table

    table = Table("image", "class", box=None, pad_edge=False)
    for column in ("score", "x1", "y1", "x2", "y2") if task == "detection" else ("share of pixels",):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    return table

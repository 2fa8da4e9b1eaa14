"""``kerasvision train``: fit a model to a data set, resumably."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kerasvision.cli_inputs import (
    UserError,
    classes_for,
    import_quietly,
    load_model,
    message_of,
    naming,
    open_data,
    output_console,
)


def train(
    model: Annotated[str, typer.Option(help="name[.tag] as `kerasvision list` shows.")],
    data: Annotated[str, typer.Option(help="streets, voc:DIR, coco:DIR or tfds:NAME.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, history, the trained model.")],
    split: Annotated[str, typer.Option(help="Split to train on.")] = "train",
    val_split: Annotated[
        str | None,
        typer.Option(help="Split to validate on after each epoch, or 'none'; default: validation or val."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data.")] = 10,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step.")] = 8,
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="H W", help="Letterbox images to this size; default: the model's rule."),
    ] = None,
    num_classes: Annotated[int | None, typer.Option(min=1, help="Default: as the data has.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Start from: a tag, a file, or 'none' for random weights.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last epoch in --out.")] = False,
    augment: Annotated[bool, typer.Option("--augment/--no-augment", help="Random changes of images.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights, shuffling and augmentation.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Train on only so many images.")] = None,
) -> None:
    """Train a model, or fine-tune one, on your data.

    Published weights with other classes keep everything but the head. After a kill, the same command with
    --resume goes on from the last epoch.
    """
    import zoo

    with naming("--model", model):
        task = zoo.info(model).task
    train_data = open_data(data, split)
    val_data = _validation_data(data, val_split)
    classes = classes_for(train_data, task)
    if num_classes not in (None, len(classes)):
        raise UserError(f"--num-classes {num_classes}: --data {data} has {len(classes)} classes; leave the option out")
    resumes = _resumes(out, resume)
    options: dict = {"num_classes": len(classes), "class_names": classes}
    if size is not None:
        from kerasvision.ops.resizing import ResizeRule

        with naming("--size", f"{size[0]} {size[1]}"):
            options["resize_rule"] = ResizeRule("letterbox", size_hw=size)
    import_quietly("keras")
    import keras

    keras.utils.set_random_seed(seed)
    built = load_model(model, weights, **options)
    from kerasvision.training import NonFiniteLossError
    from kerasvision.training import train as run_training

    verbose: Any = 1 if sys.stdout.isatty() else 2  # a bar, or in a log one line for each epoch
    try:
        history = run_training(
            built,
            _first(train_data, limit),
            val_data,
            epochs=epochs,
            batch_size=batch_size,
            run_dir=out,
            resume=resumes,
            seed=seed,
            augment=augment,
            verbose=verbose,
        )
    except NonFiniteLossError as error:
        raise UserError(message_of(error)) from error
    _show_history(history, out)


def _validation_data(data: str, split: str | None):
    """Return the data set to validate on, None if "none" is asked for."""
    if split is not None:
        return None if split.lower() == "none" else open_data(data, split, split_option="--val-split")
    for usual in ("validation", "val"):  # TensorFlow Datasets' word, and VOC's and COCO's
        with contextlib.suppress(UserError):
            return open_data(data, usual)
    raise UserError(f"--val-split: --data {data} has neither 'validation' nor 'val'; name the split, or 'none'")


def _resumes(out: Path, resume: bool) -> bool:
    """Return whether there is a checkpoint to go on from; an error if --resume and --out do not fit."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file; expected a folder")
    started = (out / "last.safetensors").exists()
    if started and not resume:
        raise UserError(f"--out {out}: holds a run already; give another folder, or --resume to go on with it")
    if resume and not out.exists():
        raise UserError(f"--out {out}: does not exist; check the path, or leave --resume out to start a run")
    if resume and not started:
        typer.echo(f"note: no epoch was finished in {out}; starting from the beginning", err=True)
    return started


def _first(dataset, limit: int | None):
    """Return the first `limit` samples of a data set as a data set."""
    if limit is None or limit >= len(dataset):
        return dataset
    import copy

    shortened = copy.copy(dataset)
    shortened.__class__ = type(f"First{type(dataset).__name__}", (type(dataset),), {"__len__": lambda _: limit})
    return shortened


def _show_history(history, out: Path) -> None:
    from rich.table import Table

    metrics = {name: values for name, values in history.items() if len(values)}
    table = Table("figure", box=None, pad_edge=False)
    table.add_column("first epoch", justify="right")
    table.add_column("last epoch", justify="right")
    for name, values in metrics.items():
        table.add_row(name, f"{float(values[0]):.4g}", f"{float(values[-1]):.4g}")
    output_console().print(table)
    typer.echo(f"run in {out}", err=True)

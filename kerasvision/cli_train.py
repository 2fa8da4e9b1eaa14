"""``kerasvision train``: fit a model to a data set, resumably."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kerasvision.cli_datasets import DATA_HELP, ClassesOption, WeightMethod, count_weights, open_data
from kerasvision.cli_inputs import UserError, import_quietly, load_model, message_of, naming, output_console


def train(
    model: Annotated[str, typer.Option(help="name[.tag] as `kerasvision list` shows.")],
    data: Annotated[str, typer.Option(help=DATA_HELP)],
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, history, the trained model.")],
    split: Annotated[str, typer.Option(help="Split to train on.")] = "train",
    val_split: Annotated[
        str | None,
        typer.Option(help="Split to validate on after each epoch, or 'none'; default: validation or val."),
    ] = None,
    classes: ClassesOption = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the data; default: the model's recipe.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per step; default: the model's recipe.")] = None,
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="H W", help="Letterbox images to this size; default: the model's rule."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Start from: a tag, a file, or 'none' for random weights.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last epoch in --out.")] = False,
    augment: Annotated[bool, typer.Option("--augment/--no-augment", help="Random changes of images.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights, shuffling and augmentation.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Train on only so many images.")] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="Segmenters: such as dice or 'cross_entropy + 0.5 * dice'; default: the model's."),
    ] = None,
    class_weights: Annotated[
        WeightMethod | None,
        typer.Option(help="Segmenters: weigh classes in --loss, as `data weights` does; default: all alike."),
    ] = None,
) -> None:
    """Train a model, or fine-tune one, on your data.

    Published weights with other classes keep everything but the head. The
    model's recipe says how long, in which batches and at which learning rate,
    unless --epochs and --batch-size do. After a kill, the same command with
    --resume goes on from the last epoch.

    The best model is OUT/best.keras, which the other commands take as --model.
    """
    import zoo

    if model.endswith(".keras"):
        raise UserError(
            f"--model {model}: a .keras file is a finished model; give its name in the zoo as --model and the file as "
            "--weights"
        )
    with naming("--model", model):
        task = zoo.info(model).task
    _check_loss(model, task, loss, class_weights)
    train_data = open_data(data, split, task=task, classes=classes)
    val_data = _validation_data(data, val_split, task=task, classes=classes)
    names = train_data.classes if task == "detection" else train_data.mask_classes
    resumes = _resumes(out, resume)
    options: dict = {"num_classes": len(names), "class_names": names}
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

    train_data = _first(train_data, limit)
    if loss is not None:
        found = None
        if class_weights is not None:
            _, found = count_weights(train_data, class_weights, data=data, split=split)
        with naming("--loss", loss):
            built.compile(loss=_loss(loss, found))
    recipe = built.recipe
    lengths: dict[str, Any] = {"epochs": epochs or recipe.epochs, "batch_size": batch_size or recipe.batch_size}
    _show_plan(built, train_data, val_data, **lengths)
    verbose: Any = 1 if sys.stdout.isatty() else 2  # a bar, or in a log one line for each epoch
    try:
        history = run_training(
            built,
            train_data,
            val_data,
            **lengths,
            run_dir=out,
            resume=resumes,
            seed=seed,
            augment=augment,
            verbose=verbose,
        )
    except NonFiniteLossError as error:
        raise UserError(message_of(error)) from error
    _show_history(history, out)


def _check_loss(model: str, task: str, loss: str | None, class_weights: str | None) -> None:
    """Raise UserError for options of segmenters with a detector, and for weights without a loss."""
    for option, value in (("--loss", loss), ("--class-weights", class_weights)):
        if value is not None and task == "detection":
            raise UserError(f"{option} {value}: is for segmenters, but --model {model} is a detector; leave it out")
    if class_weights is not None and loss is None:
        raise UserError(f"--class-weights {class_weights}: is for a loss; name it, such as --loss cross_entropy")


def _loss(name: str, class_weights) -> Any:
    """Return the loss of a name, or several with plus signs between, all of them with the class weights, if any."""
    from kerasvision import losses

    if class_weights is None:
        return losses.get(name)
    try:
        return losses.get(name, class_weights=class_weights)
    except TypeError:
        raise ValueError("takes no class weights; leave --class-weights out, or use cross_entropy or dice") from None


def _validation_data(data: str, split: str | None, **options: Any):
    """Return the data set to validate on, None if "none" is asked for."""
    from kerasvision.data import SplitError

    if split is not None:
        return None if split.lower() == "none" else open_data(data, split, split_option="--val-split", **options)
    for usual in ("validation", "val"):  # TensorFlow Datasets' word, and VOC's and COCO's
        try:
            return open_data(data, usual, split_option="--val-split", **options)
        except UserError as error:
            if not isinstance(error.__cause__, SplitError):
                raise
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


def _show_plan(model, train_data, val_data, *, epochs: int, batch_size: int) -> None:
    """Say what is about to be done, with the figures that the user may have left to the recipe."""
    names = ", ".join(model.class_names[:5]) + (", …" if len(model.class_names) > 5 else "")
    validation = "none" if val_data is None else f"{len(val_data)}"
    typer.echo(f"{model.name}: {len(train_data)} images to train on, {validation} to validate on")
    typer.echo(f"{model.num_classes} classes: {names}")
    recipe = model.recipe
    same = (epochs, batch_size) == (recipe.epochs, recipe.batch_size)
    source = "the recipe's" if same else f"the recipe's are {recipe.epochs} and {recipe.batch_size}"
    typer.echo(f"epochs: {epochs}, batch size: {batch_size} ({source}), learning rate: {recipe.learning_rate:g}")
    if val_data is not None:
        trained_on = {train_data.sample_name(index) for index in range(len(train_data))}
        shared = sum(val_data.sample_name(index) in trained_on for index in range(len(val_data)))
        if shared:
            message = f"note: {shared} of the {len(val_data)} images to validate on are also trained on; "
            typer.echo(message + "their figures say little about unseen images", err=True)


def _show_history(history, out: Path) -> None:
    """Show the figures of the first and the last epoch; "–" where one was not measured in that epoch."""
    from rich.table import Table

    epochs = max(map(len, history.values()), default=0)
    table = Table("figure", box=None, pad_edge=False)
    table.add_column("first epoch", justify="right")
    table.add_column("last epoch", justify="right")
    for name, values in history.items():
        padded = [*values, *[None] * (epochs - len(values))]
        ends = [padded[at] for at in (0, -1)] if padded else []
        if any(value is not None for value in ends):
            table.add_row(name, *("–" if value is None else f"{float(value):.4g}" for value in ends))
    output_console().print(table)
    best = next((out / name for name in ("best.keras", "final.keras") if (out / name).exists()), None)
    typer.echo(f"run in {out}" + (f"; use it with --model {best}" if best else ""), err=True)

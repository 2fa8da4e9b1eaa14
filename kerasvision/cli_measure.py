"""``kerasvision evaluate`` and ``kerasvision benchmark``: how good, and how fast."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from kerasvision.cli_datasets import DATA_HELP, Card, ClassesOption, card_of, open_data, open_for_models
from kerasvision.cli_inputs import (
    UserError,
    import_quietly,
    list_of_ints,
    load_model,
    naming,
    output_console,
    progress_bar,
)
from kerasvision.files import finite


def evaluate(
    model: Annotated[str, typer.Option(help="name[.tag] as `kerasvision list` shows, or a .keras file.")],
    data: Annotated[str, typer.Option(help=DATA_HELP)],
    split: Annotated[str, typer.Option(help="Split to score on.")] = "test",
    classes: ClassesOption = None,
    weights: Annotated[
        str | None, typer.Option(help="A tag, a file, or 'none' for random weights.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Score only so many images.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per call of the network.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Score a model: AP of boxes, or mIoU, pixel accuracy and Dice of masks, in original pixels.

    The model's classes are matched to the data's by name. A voc:DIR with classes
    of its own is read with the model's, if the model was trained on them.
    """
    card = card_of(model)
    task = card.task
    loaded: Any = None
    if weights is not None:  # a file may hold a model with classes of its own
        loaded = load_model(model, weights)
        card = Card(task, loaded.class_names)
    dataset = open_data(data, split, task=task, classes=classes, models=[card])
    if loaded is None:
        loaded = load_model(model)
    from benchmarks.accuracy import score
    from kerasvision.inference import Predictor

    with progress_bar() as progress:
        bar = progress.add_task("scoring", total=None)
        scored = score(
            Predictor(loaded),
            dataset,
            task=task,
            limit=limit,
            batch_size=batch_size,
            name=model,
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    if as_json:
        content = {
            "model": model,
            "data": data,
            "split": split,
            "images": scored.images,
            "metrics": finite(scored.metrics),
            "per_class": scored.per_class,
            "missing_classes": scored.classes.missing,
        }
        typer.echo(json.dumps(content, ensure_ascii=False))
        return
    _print_scores(scored, task, f"{model} on {scored.images} images of {data}, {split} split")


def _print_scores(scored, task: str, title: str) -> None:
    from rich.table import Table

    console = output_console()
    console.print(title)
    console.print("  ".join(f"[bold]{name}[/] {value:.3f}" for name, value in scored.metrics.items()))
    table = Table("class", box=None, pad_edge=False)
    table.add_column("AP" if task == "detection" else "IoU", justify="right")
    for name, value in scored.per_class.items():
        table.add_row(name, "–" if value is None else f"{value:.3f}")
    console.print(table)
    if scored.classes.missing:
        names = ", ".join(scored.classes.missing)
        typer.echo(f"note: the model does not know {names}; they count as not found", err=True)


def benchmark(
    models: Annotated[str, typer.Option(help="Names or .keras files, with commas between.")],
    data: Annotated[str, typer.Option(help=DATA_HELP)],
    split: Annotated[str, typer.Option(help="Split to measure on.")] = "test",
    classes: ClassesOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Images; p99 at batch 1 needs 100 of them.")] = 100,
    batch_sizes: Annotated[str, typer.Option(help="Images per batch, with commas between.")] = "1,8",
    max_seconds: Annotated[
        float, typer.Option(min=0.0, help="Bound of the timing of one model at one batch size.")
    ] = 60.0,
    out: Annotated[Path, typer.Option(help="Folder for report.html and results.json.")] = Path("benchmark"),
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json instead of a table.")] = False,
) -> None:
    """Measure accuracy and speed of models on the same images, and write a report.

    Time is end to end, from an image file to results in its own pixels. Detectors
    and segmenters may be mixed; each is measured on the data's images for its task.
    """
    names = list(dict.fromkeys(name.strip() for name in models.split(",") if name.strip()))
    if not names:
        raise UserError(f"--models {models!r}: expected one name or more, such as unet_resnet10,unet_resnet34")
    sizes = list_of_ints("--batch-sizes", batch_sizes)
    # A mistake in a name or in the data is found before the first model is measured.
    datasets = open_for_models(
        data, split, classes=classes, models=[card_of(name, option="--models") for name in names]
    )
    import_quietly("keras")
    from benchmarks.run import benchmark as run_benchmark

    with progress_bar() as progress:
        bars: dict[tuple[str, str], Any] = {}

        def show(model: str, what: str, done: int, total: int) -> None:
            if (model, what) not in bars:
                bars[model, what] = progress.add_task(f"{model}: {what}")
            progress.update(bars[model, what], completed=done, total=total)

        results = run_benchmark(
            names,
            datasets,
            split=split,
            batch_sizes=sizes,
            limit=limit,
            max_seconds=max_seconds,
            load=load_model,
            progress=show,
        )
    with naming("--out", out):
        page = results.write(out)
    if as_json:
        typer.echo(json.dumps(results.document, ensure_ascii=False))
    else:
        _print_benchmark(results.document)
    typer.echo(f"report in {page}", err=True)
    for failure in results.document["failures"]:
        typer.echo(f"error: --models {failure['name']}: {failure['error']}", err=True)
    if results.document["failures"]:
        raise typer.Exit(2)


def _print_benchmark(document: dict) -> None:
    from rich.table import Table

    from benchmarks.report import METRICS
    from benchmarks.timing import END_TO_END, REQUIRED_SAMPLES, percentile_text

    console = output_console()
    for task, metrics in METRICS.items():
        measured = [model for model in document["models"] if model["task"] == task]
        if not measured:
            continue
        table = Table("model", *[metric.replace("_", " ") for metric in metrics], box=None, pad_edge=False)
        for title in (
            "batch",
            *[f"{name} ms" for name in REQUIRED_SAMPLES],
            "images/s",
            "params M",
            "MACs G",
        ):
            table.add_column(title, justify="right")
        for model in measured:
            figures = [model["accuracy"]["metrics"].get(metric) for metric in metrics]
            shown = [model["name"], *("–" if value is None else f"{value:.3f}" for value in figures)]
            size = [f"{model['parameters'] / 1e6:.2f}", f"{model['macs'] / 1e9:.2f}"]
            for times in model["timing"]:
                summary = times["stages"][END_TO_END]
                percentiles = [percentile_text(summary, name) for name in REQUIRED_SAMPLES]
                rate = f"{times['images_per_second']:.1f}"
                table.add_row(*shown, str(times["batch_size"]), *percentiles, rate, *size)
                shown, size = [""] * len(shown), []
        console.print(table)

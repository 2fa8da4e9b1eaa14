"""The command line: ``kerasvision list | info | predict | train | evaluate | benchmark | convert | data``.

``--help`` imports typer and rich alone; each command imports what it needs when it runs. A user's mistake
gets one line on stderr and exit status 2.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from kerasvision import cli_data, cli_measure, cli_predict, cli_train
from kerasvision.cli_inputs import UserError, load_model, message_of, naming, output_console

_USER_ERRORS = (ValueError, OSError, ImportError, FloatingPointError)


class _OneLineErrors(typer.core.TyperGroup):
    """A group of commands whose errors are one line on stderr, unless ``--debug`` asks for the traceback."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command and exit: 0 if all went well, 2 for a user's mistake, 1 for a fault of ours."""
        if not standalone_mode:
            return super().main(args, prog_name, standalone_mode=False, **extra)
        given = sys.argv[1:] if args is None else list(args)
        status = self._run(given, prog_name, extra)
        sys.exit(status)

    def _run(self, args: Sequence[str], prog_name: str | None, extra: dict) -> int:
        try:
            status = super().main(args, prog_name, standalone_mode=False, **extra)
            return status if isinstance(status, int) else 0
        except (KeyboardInterrupt, typer.Abort):
            _say("stopped")
            return 130  # 128 + SIGINT, as shells count it
        except BrokenPipeError:  # `kerasvision list | head`
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  what is still buffered must go somewhere
            return 1
        except Exception as error:
            return self._report(error, debug="--debug" in args)

    def _report(self, error: Exception, *, debug: bool) -> int:
        if hasattr(error, "format_message"):  # a usage error of click, which typer vendors or not by version
            message = " ".join(error.format_message().split())
            if message:  # empty where a group without a command has shown its help
                _say(f"{message} (see --help)")
            return 2
        if debug:
            raise error
        if isinstance(error, _USER_ERRORS):
            _say(message_of(error))
            return 2
        _say(
            f"unexpected {type(error).__name__}: {message_of(error)} "
            "(kerasvision --debug … shows the traceback; please report it)"
        )
        return 1


def _say(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)


app = typer.Typer(
    cls=_OneLineErrors,
    name="kerasvision",
    help="Object detection and segmentation with Keras: predict, train, evaluate and compare models.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from kerasvision.version import __version__

        typer.echo(f"kerasvision {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        return
    # TensorFlow's C++ log tells about CPU features and absent GPUs; nothing there is for this program's user.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _show_remarks()


def _show_remarks() -> None:
    """Show the package's own log, such as which weights are random, on stderr."""
    import logging

    logger = logging.getLogger("kerasvision")
    logger.propagate = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    logger.handlers = [handler]


@app.command("list")
def list_models(
    task: Annotated[str | None, typer.Option(help="Only 'detection' or 'segmentation'.")] = None,
    pretrained: Annotated[
        bool | None, typer.Option("--pretrained/--no-pretrained", help="Only with, or without, weights.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the models of the zoo and their weights."""
    import zoo

    with naming("--task", task):
        names = zoo.list_models(task=task, pretrained=pretrained)  # type: ignore[arg-type]
    entries = [zoo.info(name) for name in names]
    if as_json:
        _print_json([entry.to_dict() for entry in entries])
        return
    from rich.table import Table

    table = Table("model", "task", "weights", box=None, pad_edge=False)
    table.add_column("parameters", justify="right")
    table.add_column("about", overflow="fold")
    for entry in entries:
        tags = ", ".join(f"[bold]{tag}[/]" if tag == entry.default else tag for tag in entry.tags)
        size = "" if entry.parameters is None else f"{entry.parameters / 1e6:.2f} M"
        table.add_row(entry.name, entry.task, tags or "–", size, entry.description)
    output_console().print(table)


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="A model's name, with a tag for one set of weights.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what is known about a model: paper, licence, size, weights and their figures."""
    import zoo

    with naming("MODEL", model):
        entry = zoo.info(model)
    if as_json:
        _print_json(entry.to_dict())
    else:
        output_console().print(entry)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A .pth, .safetensors, .weights.h5 or .keras file.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    model: Annotated[str, typer.Option(help="The zoo model that the weights are for.")],
    num_classes: Annotated[int | None, typer.Option(min=1, help="If it is not that of the weights.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Store kernels as float16, in half the space.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> None:
    """Convert a file of weights to this package's own format, which loads without PyTorch.

    No code in the file is run.
    """
    import zoo

    if not source.is_file():
        raise UserError(f"SOURCE {source}: no such file; check the path")
    if out.suffix != ".safetensors":
        raise UserError(f"OUT {out}: must end in .safetensors")
    if out.exists() and (not overwrite or out.resolve() == source.resolve()):
        raise UserError(f"OUT {out}: exists already; give another name, or --overwrite to replace it")
    classes = {} if num_classes is None else {"num_classes": num_classes}
    filled = load_model(model, str(source), weights_option="SOURCE", **classes)
    with naming("OUT", out):
        out.parent.mkdir(parents=True, exist_ok=True)
        zoo.save_weights(filled, out, name=model.partition(".")[0], float16=half)
    typer.echo(f"{out}: {model}, {filled.num_classes} classes, {out.stat().st_size / 1e6:.1f} MB")


app.command("predict")(cli_predict.predict)
app.command("train")(cli_train.train)
app.command("evaluate")(cli_measure.evaluate)
app.command("benchmark")(cli_measure.benchmark)
app.add_typer(cli_data.app, name="data")


def _print_json(value: Any) -> None:
    import json

    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def main() -> None:
    """Run the command line; the entry point of the package."""
    app()


if __name__ == "__main__":
    main()

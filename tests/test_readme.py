"""What README, CONTRIBUTING and the Makefile tell a user to type: the commands exist, with these options."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer.main

from kerasvision.cli import app

ROOT = Path(__file__).parents[1]
TEXTS = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md", "Makefile")}
# A line of a shell block or of the Makefile, up to a comment; or code within a sentence that has arguments.
LINES = re.compile(r"^(?:\t\$\(BIN\)/)?kerasvision ([^\n#]+)|`kerasvision (\w+ [^`\n]+)`", re.MULTILINE)


def commands_in(text):
    return [line or code for line, code in LINES.findall(text)]


def parse(words):
    """Parse a command line as the program would, and run nothing; return the command's full name."""
    command = typer.main.get_command(app)
    context, name = command.make_context("kerasvision", list(words)), []
    while hasattr(command, "resolve_command"):
        # click keeps what follows a group's own options in one of two lists, by version.
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        word, command, rest = command.resolve_command(context, rest)
        context = command.make_context(word, rest, parent=context)
        name.append(word)
    return " ".join(name)


def test_readme_shows_each_of_the_main_commands():
    shown = {parse(shlex.split(line)) for line in commands_in(TEXTS["README.md"])}
    main = {"list", "info", "predict", "train", "evaluate", "benchmark", "convert", "data show", "data check"}
    assert shown >= main


@pytest.mark.parametrize("line", [line for text in TEXTS.values() for line in commands_in(text)])
def test_command_in_the_documents_parses(line):
    parse(shlex.split(line))


@pytest.mark.parametrize("line", ["data check --data streets", "train --model unet --data streets", "benchmrk"])
def test_parse_refuses_what_the_program_refuses(line):
    with pytest.raises(Exception, match=r"No such option|Missing|No such command|unexpected extra"):
        parse(shlex.split(line))


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", TEXTS["README.md"], re.DOTALL))
def test_python_in_readme_names_what_there_is(block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom):
            module = __import__(node.module, fromlist=[alias.name for alias in node.names])
            for alias in node.names:
                assert getattr(module, alias.name) is not None

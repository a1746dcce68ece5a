"""The program `codex-ml`: its commands, each in a file of its own that imports what is heavy only when it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from codex_ml.cli.boundary import guarded, leave_before_anything_begins
from codex_ml.cli.configs import configs_app
from codex_ml.cli.data import data_app
from codex_ml.cli.evaluate import evaluate
from codex_ml.cli.generate import generate
from codex_ml.cli.runs import runs_app
from codex_ml.cli.safety import safety_app
from codex_ml.cli.serve import serve
from codex_ml.cli.train import train
from codex_ml.cli.validate import validate_command
from codex_ml.errors import UserError

app = typer.Typer(
    name="codex-ml",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)
app.command()(train)
app.command()(evaluate)
app.command()(generate)
app.command()(serve)
app.command("validate")(guarded(validate_command))
app.add_typer(configs_app, name="configs")
app.add_typer(data_app, name="data")
app.add_typer(runs_app, name="runs")
app.add_typer(safety_app, name="safety")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"codex-ml {version('codex-ml')}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Fine-tune causal language models with LoRA on this machine, with no network."""


def refuse_undecodable(arguments: Sequence[str], directory: str) -> None:
    """Refuse names that are no UTF-8: neither a run's JSON files nor a report could hold them.

    Raises
    ------
    UserError
        With the number of the argument, or the working directory.
    """
    named = [(f"argument {number}", text) for number, text in enumerate(arguments, start=1)]
    for place, text in [*named, ("the working directory", directory)]:
        if not text.isascii() and any("\udc80" <= character <= "\udcff" for character in text):
            raise UserError(
                f"{place} is not UTF-8: {text.encode('utf-8', 'backslashreplace').decode()}",
                why="a run records the names of its files as UTF-8 text, and this one could not be found again by them",
                fix="rename the file or directory",
            )


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        # Where it was removed, each command says itself what it misses there.
        return ""


def run() -> None:
    """Entry point of the console script."""
    leave_before_anything_begins()
    try:
        refuse_undecodable(sys.argv[1:], _working_directory())
    except UserError as error:
        typer.echo(error.block(), err=True)
        raise SystemExit(error.exit_code) from None
    app(prog_name="codex-ml")


if __name__ == "__main__":
    run()

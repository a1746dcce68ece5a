"""The program `codex-ml`: its commands, each in a file of its own that imports what is heavy only when it runs."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from codex_ml.cli.boundary import guarded, leave_before_anything_begins
from codex_ml.cli.configs import configs_app
from codex_ml.cli.data import data_app
from codex_ml.cli.evaluate import evaluate
from codex_ml.cli.runs import runs_app
from codex_ml.cli.train import train
from codex_ml.cli.validate import validate_command

app = typer.Typer(
    name="codex-ml",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)
app.command()(train)
app.command()(evaluate)
app.command("validate")(guarded(validate_command))
app.add_typer(configs_app, name="configs")
app.add_typer(data_app, name="data")
app.add_typer(runs_app, name="runs")


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


def run() -> None:
    """Entry point of the console script."""
    leave_before_anything_begins()
    app(prog_name="codex-ml")


if __name__ == "__main__":
    run()

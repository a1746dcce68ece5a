"""`codex-ml data`: what is done to records before a run; each command in a file of its own, named after it."""

from __future__ import annotations

import typer

from codex_ml.cli.boundary import guarded
from codex_ml.cli.data_split import split

data_app = typer.Typer(help="Divide files of records.", rich_markup_mode=None, no_args_is_help=True)


@data_app.callback()
def _group() -> None:
    # Without a callback Typer makes an application of one command into that command.
    """Divide files of records."""


data_app.command("split")(guarded(split))

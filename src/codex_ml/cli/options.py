"""Options that several commands share, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codex_ml.errors import UserError

ConfigName = Annotated[
    str | None,
    typer.Option("--config-name", help="Config name, such as examples/minimal (default: default)."),
]
ConfigDirectory = Annotated[
    Path | None, typer.Option("--config-dir", help="Directory of your own configs; searched before the packaged one.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print every setting with its origin, and the plan; run nothing.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help=("Settings that override the config, such as adapter.r=16 or training.max_steps=100."),
        show_default=False,
    ),
]
OutputDirectory = Annotated[
    Path | None,
    typer.Option(
        "--output-dir",
        metavar="DIR",
        help="Parent directory of run directories (default: runs/ in the working directory).",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunReference = Annotated[str, typer.Argument(metavar="RUN", help="Run directory, its name below runs/, or latest.")]

# The place that run.output_dir has without a config.
DEFAULT_DIRECTORY = Path("runs")


def runs_directory(given: Path | None) -> Path:
    """Return where the runs lie that a command looks at.

    Raises
    ------
    UserError
        If the directory that was named is none.
    """
    if given is not None and not given.is_dir():
        raise UserError(
            f"--output-dir: {given} is no directory",
            fix="name the directory that holds the runs",
            code="FILE_NOT_A_DIRECTORY",
        )
    return given or DEFAULT_DIRECTORY

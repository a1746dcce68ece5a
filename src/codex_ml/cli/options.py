"""Options that several commands share, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigName = Annotated[
    str | None,
    typer.Option("--config-name", help="Config to run, such as examples/minimal (default: default)."),
]
ConfigDirectory = Annotated[
    Path | None, typer.Option("--config-dir", help="Your own directory of configs; searched before the packaged one.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print every value with its origin, and the plan; run nothing.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Values that win over the config, such as adapter.r=16 or training.max_steps=100.",
        show_default=False,
    ),
]

"""`codex-ml runs rm`: removes runs after a question, or with --yes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from codex_ml.cli.options import OutputDirectory, runs_directory
from codex_ml.errors import UserError


def remove_command(
    runs: Annotated[list[str], typer.Argument(metavar="RUN…", help="Run directories, names below runs/, or latest.")],
    output_dir: OutputDirectory = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go and how large it is.")] = False,
) -> None:
    """Remove runs with all they hold; MLflow's entries of them stay. All are looked at before the first one goes."""
    from codex_ml.runs.naming import resolve_run
    from codex_ml.runs.removal import finish_removals, plan_removal, remove_run
    from codex_ml.storage import Storage

    directory, storage = runs_directory(output_dir), Storage()
    if not dry_run:
        for name in finish_removals(directory, storage):
            typer.echo(f"finished an interrupted removal: {name}", err=True)
    planned = [plan_removal(resolve_run(run, directory)) for run in runs]
    removals = list({removal.layout.directory: removal for removal in planned}.values())
    for removal in removals:
        typer.echo(removal.line())
    byte_count = sum(removal.byte_count for removal in removals)
    total = f"{len(removals)} run{'s' if len(removals) != 1 else ''}, {byte_count:,} bytes"
    if dry_run:
        typer.echo(f"would remove {total}; nothing was removed")
        return
    if not yes and not _confirmed(total):
        typer.echo("nothing was removed", err=True)
        return
    for removal in removals:
        remove_run(removal, storage)
    for place in dict.fromkeys(removal.layout.directory.parent for removal in removals):
        if (place / "mlflow.db").exists():
            typer.echo(f"the entries of removed runs in {place / 'mlflow.db'} stay", err=True)
    typer.echo(f"removed {total}")


def _confirmed(total: str) -> bool:
    """Ask on a terminal; elsewhere nobody can answer.

    Raises
    ------
    UserError
        If there is no terminal.
    """
    if not sys.stdin.isatty():
        raise UserError(
            f"not removed without a question: {total}",
            why="there is no terminal to ask on",
            fix="add --yes, or look first with --dry-run",
        )
    return typer.confirm(f"remove {total}, for good?", err=True)

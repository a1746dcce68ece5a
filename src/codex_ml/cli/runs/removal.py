"""`codex-ml runs rm`: removes runs after a question, or with --yes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from codex_ml.cli.boundary import print_results
from codex_ml.cli.options import OutputDirectory, runs_directory
from codex_ml.errors import UserError
from codex_ml.io.terminal import write_message


def remove_command(
    runs: Annotated[list[str], typer.Argument(metavar="RUN…", help="Run directories, names below runs/, or latest.")],
    output_dir: OutputDirectory = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be deleted, with sizes.")] = False,
) -> None:
    """Remove runs with all they hold; MLflow's entries of them stay. All are looked at before the first one goes."""
    from codex_ml.io.atomic import Storage
    from codex_ml.runs.layout import resolve_run
    from codex_ml.runs.removal import finish_removals, plan_removal, remove_run

    directory, storage = runs_directory(output_dir), Storage()
    finished: set[str] = set()
    if not dry_run:
        # A run that was named by its path may be anywhere: only what is left of it is looked for there.
        for place, wanted in [(directory, None), *((Path(run).absolute().parent, Path(run).name) for run in runs)]:
            for name in finish_removals(place, storage, wanted):
                write_message(f"finished an interrupted removal: {name}")
                finished.add(name)
    runs = [run for run in runs if Path(run).name not in finished or _is_there(run, directory)]
    if not runs:
        return
    planned = [plan_removal(resolve_run(run, directory)) for run in runs]
    removals = list({removal.layout.directory: removal for removal in planned}.values())
    print_results(removal.line() for removal in removals)
    byte_count = sum(removal.byte_count for removal in removals)
    total = f"{len(removals)} run{'s' if len(removals) != 1 else ''}, {byte_count:,} bytes"
    if dry_run:
        print_results([f"would remove {total}; nothing was removed"])
        return
    if not yes and not _confirmed(total):
        write_message("nothing was removed")
        return
    for removal in removals:
        remove_run(removal, storage)
    for place in dict.fromkeys(removal.layout.directory.parent for removal in removals):
        if (place / "mlflow.db").exists():
            write_message(f"the entries of removed runs in {place / 'mlflow.db'} stay")
    print_results([f"removed {total}"])


def _is_there(run: str, directory: Path) -> bool:
    return any(os.path.lexists(path) for path in (Path(run), directory / run))


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
            code="CLI_NOT_CONFIRMED",
        )
    write_message(f"remove {total}, for good? [y/N]: ", end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")

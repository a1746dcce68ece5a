"""What the word RUN on the command line means: a directory, the name of one below runs/, or `latest`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from codex_ml.errors import UserError
from codex_ml.runs.layout import RunLayout, find_runs

_SHOWN_RUNS = 5


def resolve_run(reference: str, output_dir: Path) -> RunLayout:
    """Return the run that a reference means.

    Parameters
    ----------
    reference : str
        ``latest`` (the newest run by its recorded start), a run directory, or the name of a directory below
        ``output_dir``.
    output_dir : Path
        Where runs lie.

    Raises
    ------
    UserError
        If there is no such run; the message names those that are there.
    """
    if reference == "latest":
        runs = find_runs(output_dir)
        if not runs:
            raise UserError(f"there is no run in {output_dir}", fix="train first, or name the place: --output-dir DIR")
        return runs[0][0]
    for directory in (Path(reference), output_dir / reference):
        layout = RunLayout(directory)
        if layout.record.is_file():
            return layout
    raise UserError(
        f"there is no run {reference}",
        why=f"neither {Path(reference).absolute()} nor {(output_dir / reference).absolute()} holds a run.json",
        fix=_advice(reference, output_dir),
    )


def near_names(name: str, names: Iterable[str]) -> list[str]:
    """Return the names that a mistyped one probably meant, each once, the nearest first."""
    return difflib.get_close_matches(name, dict.fromkeys(names))


def _advice(reference: str, output_dir: Path) -> str:
    runs = find_runs(output_dir)
    if not runs:
        return f"{output_dir} holds no runs; name the place: --output-dir DIR"
    directories = [layout.directory.name for layout, _ in runs]
    meant = next((layout.directory.name for layout, record in runs if record.name == reference), None)
    near = difflib.get_close_matches(reference, directories, n=1)
    meant = meant or (near[0] if near else None)
    hint = f"did you mean {meant}? " if meant else ""
    more = " …" if len(directories) > _SHOWN_RUNS else ""
    return f"{hint}{output_dir} holds {', '.join(directories[:_SHOWN_RUNS])}{more}"

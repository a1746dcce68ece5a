"""One line for each run: who it is, how it ended, how far it got and how well; read without torch, and quickly."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codex_ml.errors import CheckpointError
from codex_ml.runs.checkpoints import list_checkpoints
from codex_ml.runs.layout import TRAINER_STATE_NAME, RunLayout, RunRecord
from codex_ml.runs.manifest import read_manifest
from codex_ml.terminal import visible_name
from codex_ml.untrusted import UntrustedFileError, open_regular, parse_json, read_json

_TAIL_BYTES = 8192


@dataclass(frozen=True)
class RunSummary:
    """What a list shows of one run.

    Attributes
    ----------
    steps : int, optional
        Optimizer steps: of the newest checkpoint or the newest metric, whichever is further; None where neither is.
    best_validation_loss : float, optional
        As the newest checkpoint knows it; None where no validation came before one.
    safety : str, optional
        ``"on"`` or ``"OFF"``, as provenance says; None where it says nothing.
    """

    directory: str
    name: str
    run_id: str
    started: str
    ended: str | None
    found_dead: str | None
    last_sign_of_life: str | None
    status: str
    steps: int | None
    best_validation_loss: float | None
    safety: str | None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def summarise(layout: RunLayout, record: RunRecord) -> RunSummary:
    """Return the summary of a run; a damaged checkpoint or log is passed over, never an error."""
    saved_step, best = saved_progress(layout.checkpoints)
    reached = [step for step in (saved_step, last_logged_step(layout.metrics)) if step is not None]
    return RunSummary(
        directory=str(layout.directory),
        name=record.name,
        run_id=record.run_id,
        started=record.started,
        ended=record.ended,
        found_dead=record.found_dead,
        last_sign_of_life=record.last_sign_of_life,
        status=record.status,
        steps=max(reached, default=None),
        best_validation_loss=best,
        safety=_safety(layout.provenance),
    )


def _safety(provenance: Path) -> str | None:
    """Return whether the filters were on; a run that was killed early, or an evaluation, has nothing that says it."""
    try:
        enabled = read_json(provenance, follow_links=False)["safety"]["enabled"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return "on" if enabled is True else "OFF"


def saved_progress(checkpoints: Path) -> tuple[int | None, float | None]:
    """Return step and best validation loss of the newest checkpoint that has a manifest and a readable state."""
    for step, directory in reversed(list_checkpoints(checkpoints)):
        try:
            read_manifest(directory)
            state = read_json(directory / TRAINER_STATE_NAME, follow_links=False)["trainer"]
            best = state["best_metric"]
        except (CheckpointError, OSError, ValueError, KeyError, TypeError):
            continue
        return step, float(best) if isinstance(best, int | float) else None
    return None, None


def last_logged_step(metrics: Path) -> int | None:
    """Return the step of the last whole line of the metrics; rotated files are older and not asked."""
    try:
        with open_regular(metrics, follow_links=False) as handle:
            handle.seek(0, 2)
            handle.seek(max(0, handle.tell() - _TAIL_BYTES))
            lines = handle.read().split(b"\n")
    except (OSError, UntrustedFileError):
        return None
    # The last piece is empty or a line that is being written, the first may begin inside a line: neither is JSON.
    for line in reversed(lines):
        try:
            step = parse_json(line)["step"]
        except (ValueError, KeyError, TypeError):
            continue
        if isinstance(step, int):
            return step
    return None


def render_list(summaries: list[RunSummary]) -> str:
    """Return the table that people read, newest run first, with one line for each run."""
    rows = [("started (UTC)", "name", "status", "steps", "best valid loss", "safety", "directory")]
    rows += [
        (
            summary.started[:19].replace("T", " "),
            summary.name,
            summary.status,
            "-" if summary.steps is None else str(summary.steps),
            "-" if summary.best_validation_loss is None else f"{summary.best_validation_loss:.4f}",
            summary.safety or "-",
            summary.directory,
        )
        for summary in summaries
    ]
    # A name from elsewhere may hold line ends, which would begin rows of their own.
    cells = [[visible_name(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]) - 1)]
    return "\n".join(
        "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in cells
    )

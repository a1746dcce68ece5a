"""Runs below a directory, and runs or checkpoints named on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from codex_ml.errors import CheckpointError
from codex_ml.io.terminal import visible_name
from codex_ml.io.untrusted import UntrustedFileError, open_regular, parse_json, read_json
from codex_ml.runs.checkpoints import (
    checkpoint_name,
    is_validated,
    list_checkpoints,
    locate_run,
    resolve_checkpoint,
    run_of_checkpoint,
)
from codex_ml.runs.layout import TRAINER_STATE_NAME, RunLayout, RunRecord, require_own_files
from codex_ml.runs.lock import CheckpointHold, hold_checkpoint
from codex_ml.runs.manifest import read_manifest, verify_checkpoint

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


BASE = "base"
ResolveCheckpoint = Callable[[str, Path, str | None], Path | None]
# A run saves once in minutes; five times in a row is no coincidence.
_MOST_ATTEMPTS = 5


@dataclass(frozen=True)
class Target:
    """One model to score: the base (no directory), or a verified checkpoint."""

    name: str
    directory: Path | None
    manifest: dict[str, Any]
    # As long as the target is in use, retention of a live run does not delete its checkpoint.
    hold: CheckpointHold | None = field(default=None, compare=False, repr=False)
    warning: str | None = field(default=None, compare=False)

    @property
    def shown(self) -> str:
        """The name to show to a person, with its run, so that runs are not confused."""
        run = run_of_checkpoint(self.directory) if self.directory is not None else None
        name = f"{run.directory.name}/{self.directory.name}" if run is not None and self.directory else self.name
        return visible_name(name)


def find_checkpoint(
    reference: str, output_dir: Path, run_name: str | None, resolve: ResolveCheckpoint = resolve_checkpoint
) -> Target:
    """Find, hold and verify the checkpoint that a reference means.

    A run in progress deletes checkpoints that retention does not keep, also between the moment a name is resolved and
    the moment its files are opened. The reference is then resolved again.

    Parameters
    ----------
    reference, output_dir, run_name
        As for `resolve_checkpoint`.
    resolve : callable
        Does that; tests pass others.

    Raises
    ------
    CheckpointError, UserError
        If it is absent or fails its verification.
    """
    earlier: str | None = None
    for _ in range(_MOST_ATTEMPTS):
        try:
            directory = resolve(reference, output_dir, run_name)
            if directory is None:
                return Target(BASE, None, {})
            hold = hold_checkpoint(directory)
            if hold is not None:
                manifest = verify_checkpoint(directory)
                step = manifest.get("step")
                name = checkpoint_name(step) if isinstance(step, int) else directory.name
                warning = _best_without_validation(reference, output_dir, directory)
                return Target(name, directory, manifest, hold, warning)
        except (CheckpointError, FileNotFoundError) as error:
            # What does not change was not deleted meanwhile.
            if str(error) == earlier and isinstance(error, CheckpointError):
                raise
            earlier = str(error)
    raise CheckpointError(
        f"--checkpoint {reference}: it was deleted each time it was about to be read",
        why="its run is in progress and deletes the checkpoints that training.keep_last does not keep",
        fix="try again, wait for the run to end, or train with a larger training.keep_last",
        code="CHECKPOINT_NOT_FOUND",
    )


def _best_without_validation(reference: str, output_dir: Path, directory: Path) -> str | None:
    """Return a warning if a reference means the best checkpoint of a run that has no validation."""
    run = run_of_checkpoint(directory)
    means_best = reference == "best" or (
        reference != "latest" and RunLayout(locate_run(reference, output_dir)).record.is_file()
    )
    if run is None or not means_best or is_validated(list_checkpoints(run.checkpoints)):
        return None
    return (
        f"{visible_name(run.directory.name)} has no validation: {directory.name} is its last checkpoint, not its best"
    )


def resolve_targets(references: Sequence[str], output_dir: Path, run_name: str | None) -> list[Target]:
    """Find and verify every checkpoint that was named, each once, in the order given.

    Raises
    ------
    CheckpointError, UserError
        If one is absent or fails its verification; nothing has been loaded then.
    """
    targets: dict[Path | None, Target] = {}
    for reference in references:
        target = find_checkpoint(reference, output_dir, run_name)
        if target.directory in targets:
            continue
        if target.directory is not None and (run := run_of_checkpoint(target.directory)) is not None:
            # Its results are written there.
            require_own_files(run.directory)
        targets[target.directory] = target
    names = [target.name for target in targets.values()]
    # Two runs may both have a step-00000100: then the run's name goes in front.
    return [
        target
        if target.directory is None or names.count(target.name) == 1
        else _with_run_name(target, target.directory)
        for target in targets.values()
    ]


def _with_run_name(target: Target, directory: Path) -> Target:
    layout = run_of_checkpoint(directory)
    prefix = layout.directory.name if layout is not None else directory.parent.name
    return replace(target, name=f"{prefix}-{directory.name}")

"""What an evaluation is asked to score: checkpoint references turned into verified, distinctly named targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from codex_ml.errors import CheckpointError
from codex_ml.runs.best import is_validated
from codex_ml.runs.checkpoints import (
    checkpoint_name,
    list_checkpoints,
    locate_run,
    resolve_checkpoint,
    run_of_checkpoint,
)
from codex_ml.runs.holding import CheckpointHold, hold_checkpoint
from codex_ml.runs.layout import RunLayout
from codex_ml.runs.manifest import verify_checkpoint
from codex_ml.runs.own_files import require_own_files
from codex_ml.terminal import visible_name

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
        """The name to show to a person, with the run it lies in, so that nobody takes one run for another."""
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

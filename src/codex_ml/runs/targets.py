"""What an evaluation is asked to score: checkpoint references turned into verified, distinctly named targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codex_ml.runs.checkpoints import checkpoint_name, resolve_checkpoint, run_of_checkpoint
from codex_ml.runs.manifest import verify_checkpoint
from codex_ml.runs.own_files import require_own_files

BASE = "base"


@dataclass(frozen=True)
class Target:
    """One model to score: the base (no directory), or a verified checkpoint."""

    name: str
    directory: Path | None
    manifest: dict[str, Any]

    @property
    def shown(self) -> str:
        """The name to show to a person, with the run it lies in, so that nobody takes one run for another."""
        run = run_of_checkpoint(self.directory) if self.directory is not None else None
        return f"{run.directory.name}/{self.directory.name}" if run is not None and self.directory else self.name


def resolve_targets(references: Sequence[str], output_dir: Path, run_name: str | None) -> list[Target]:
    """Find and verify every checkpoint that was named, each once, in the order given.

    Raises
    ------
    CheckpointError, UserError
        If one is absent or fails its verification; nothing has been loaded then.
    """
    targets: dict[Path | None, Target] = {}
    for reference in references:
        directory = resolve_checkpoint(reference, output_dir, run_name)
        if directory in targets:
            continue
        if directory is None:
            targets[None] = Target(BASE, None, {})
            continue
        manifest = verify_checkpoint(directory)
        if (run := run_of_checkpoint(directory)) is not None:
            # Its results are written there.
            require_own_files(run.directory)
        step = manifest.get("step")
        name = checkpoint_name(step) if isinstance(step, int) else directory.name
        targets[directory] = Target(name, directory, manifest)
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

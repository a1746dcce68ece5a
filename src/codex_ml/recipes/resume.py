"""What `--resume-from` means: which run goes on, from which checkpoint, and whether it is still the same run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from codex_ml.errors import CheckpointError, UserError
from codex_ml.monitoring.codex_logging import no_redaction, write_ndjson
from codex_ml.runs.checkpoints import (
    PassedOver,
    is_set_aside,
    list_checkpoints,
    names_with_checkpoints,
    newest_whole,
    run_of_checkpoint,
    way_back,
)
from codex_ml.runs.closing import close_if_dead
from codex_ml.runs.last_memory import read_last_memory
from codex_ml.runs.layout import RunLayout, RunRecord, is_named_for, is_renamed, read_record, read_runs
from codex_ml.runs.lock import hold_lock
from codex_ml.runs.manifest import MANIFEST_NAME
from codex_ml.runs.naming import near_names
from codex_ml.storage import Storage

if TYPE_CHECKING:  # a list of runs asks this file, and must not import torch
    from codex_ml.config.schema.root import TrainConfig
    from codex_ml.training.checkpoint import LoadedState
    from codex_ml.training.plan import Plan


@dataclass(frozen=True)
class ResumePoint:
    """The run that goes on, or none; the checkpoint to start from, or none; what to tell the user."""

    layout: RunLayout | None = None
    record: RunRecord | None = None
    checkpoint: Path | None = None
    passed_over: tuple[PassedOver, ...] = ()
    message: str | None = None


def find_resume_point(reference: str | Path | None, output_dir: Path, name: str) -> ResumePoint:
    """Work out what a `resume_from` asks for.

    ``latest`` is the newest run of the name by its recorded start; without one, a new run begins. A run directory means
    its newest whole checkpoint; a checkpoint directory means itself, within its run.

    Raises
    ------
    CheckpointError
        If a path names neither a run nor a checkpoint inside one.
    """
    if reference is None:
        return ResumePoint()
    if reference == "latest":
        return _latest_of(output_dir, name)
    path = Path(reference).resolve()
    if (path / "run.json").is_file():
        layout = RunLayout(path)
        return _newest_of(layout, read_record(layout))
    run = run_of_checkpoint(path)
    if run is not None and (path / MANIFEST_NAME).is_file():
        return ResumePoint(run, read_record(run), path, message=f"resuming {run.directory.name} from {path.name}")
    if is_set_aside(path) and (path / MANIFEST_NAME).is_file():
        raise CheckpointError(
            f"run.resume_from: {reference} was set aside when its run went back to an earlier checkpoint",
            why="a run goes on from what lies in its own checkpoints directory; the log lines of the steps that were "
            "given up were cut",
            fix=way_back(path),
        )
    raise CheckpointError(
        f"run.resume_from: {reference} is neither a run directory nor a checkpoint inside one",
        why="a run goes on in its own directory, with its own logs",
        fix="name runs/<run>, runs/<run>/checkpoints/step-…, or latest",
    )


def close_dead_run(resume: ResumePoint, now: datetime, storage: Storage) -> ResumePoint:
    """Close the run that goes on as KILLED if its process died without a word, before anything else can go wrong.

    Raises
    ------
    UserError
        If another process is at work in the run.
    """
    layout, record = resume.layout, resume.record
    if layout is None or record is None or record.status != "RUNNING":
        return resume
    closed = close_if_dead(layout, record, now, storage, partial(note_death, storage=storage))
    if closed.record.status == "RUNNING":
        # Refused now, not after the data has been read and the model loaded.
        with hold_lock(layout.lock):
            pass
    messages = [message for message in (closed.message, resume.message) if message]
    return replace(resume, record=closed.record, message="\n".join(messages))


def note_death(layout: RunLayout, record: RunRecord, storage: Storage | None = None) -> None:
    """Write into the events of a run that its process died without a word, and what it last said of its memory."""
    memory = read_last_memory(layout.metrics)
    event = {
        "run_id": record.run_id,
        "kind": "previous_process_died",
        "closed_as": record.status,
        "last_sign_of_life": record.last_sign_of_life,
        "last_memory": asdict(memory) if memory is not None else None,
    }
    write_ndjson(layout.events, event, redact=no_redaction, storage=storage)


def _latest_of(output_dir: Path, name: str) -> ResumePoint:
    """Return the newest run of a name, or none; what only looks like one and holds work stops the search."""
    found, unreadable = read_runs(output_dir)
    for item in unreadable:
        if _may_be_latest(RunLayout(item.directory), name):
            raise UserError(
                f"run.resume_from: which run is the latest is unknown: {item.directory.name} cannot be read",
                why=item.reason,
                fix="restore its run.json from a copy or move the directory away, or name a run instead of latest",
            )
    runs = [(layout, record) for layout, record in found if record.name == name]
    if not runs:
        # Only what has a checkpoint is worth a hint: a mistyped name would train all of it again.
        near = near_names(name, names_with_checkpoints(output_dir))
        hint = f" (did you mean run.name={' or run.name='.join(near)}?)" if near else ""
        return ResumePoint(message=f"no run named {name!r} in {output_dir} yet: starting one{hint}")
    return _newest_of(*runs[0])


def _may_be_latest(layout: RunLayout, name: str) -> bool:
    """Tell whether a directory that cannot be read as a run holds work that may be of a run of this name."""
    holds_checkpoints = bool(list_checkpoints(layout.checkpoints))
    if is_renamed(layout.directory):
        # It may be of any name; without checkpoints it is more likely no run at all.
        return holds_checkpoints
    # A process killed while it made its directory leaves one without a record, and with nothing to lose.
    return is_named_for(layout.directory, name) and (holds_checkpoints or layout.record.exists())


def _newest_of(layout: RunLayout, record: RunRecord) -> ResumePoint:
    checkpoint, passed_over = newest_whole(layout.checkpoints)
    if checkpoint is None and list_checkpoints(layout.checkpoints):
        reasons = "; ".join(f"{item.directory.name}: {item.reason}" for item in passed_over)
        raise CheckpointError(
            f"run.resume_from: no checkpoint of {layout.directory.name} passes its verification",
            why=reasons,
            fix="restore one from a copy, or start a new run without --resume-from",
        )
    if checkpoint is None:
        message = f"the run {layout.directory.name} has no checkpoint yet: starting it again at step 0"
    else:
        message = f"resuming {layout.directory.name} from {checkpoint.name}"
    return ResumePoint(layout, record, checkpoint, tuple(passed_over), message)


def changes(config: TrainConfig, loaded: LoadedState, plan: Plan) -> list[str]:
    """Return what a resumed run does otherwise than the one it goes on from."""
    before = loaded.values["total_steps"]
    if before == plan.total_steps:
        return []
    if loaded.state.step >= plan.total_steps:
        return [f"the run now has {plan.total_steps} steps instead of {before}, and all of them are made"]
    return [
        f"the run now has {plan.total_steps} steps instead of {before}: the learning rate of the steps to come follows "
        f"the {config.training.schedule} schedule of the new length"
    ]

"""Resume: the checkpoint to continue from, and the settings that must not have changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from codex_ml.config.messages import describe_schema, section_names
from codex_ml.config.schema.root import TrainConfig
from codex_ml.errors import CheckpointError, UserError
from codex_ml.io.atomic import Storage
from codex_ml.modeling.forward import LayoutKind
from codex_ml.models.registry import BaseModel
from codex_ml.monitoring.codex_logging import no_redaction, write_ndjson
from codex_ml.recipes.preparation import Prepared
from codex_ml.runs.checkpoints import (
    PassedOver,
    is_set_aside,
    list_checkpoints,
    names_with_checkpoints,
    newest_whole,
    restore_instructions,
    run_of_checkpoint,
)
from codex_ml.runs.closing import finalize_if_dead
from codex_ml.runs.last_memory import read_last_memory
from codex_ml.runs.layout import RunLayout, RunRecord, is_named_for, is_renamed, near_names, read_record, read_runs
from codex_ml.runs.lock import hold_lock
from codex_ml.runs.manifest import MANIFEST_NAME
from codex_ml.runs.run_manifest import manifest_path
from codex_ml.runs.tokenizer_files import EXTRA_TOKENIZER

if TYPE_CHECKING:
    from codex_ml.training.checkpoint.load import LoadedState
    from codex_ml.training.checkpoint.state import TrainerState
    from codex_ml.training.plan import Plan


# Every key or whole section of the configuration that a resume may change, and why. What is named neither here nor
# below is compared: a new key is part of what makes a run the same run until somebody has thought about it.
MAY_CHANGE: Mapping[str, str] = MappingProxyType(
    {
        "schema_version": "a newer toolkit reads the same settings under a newer version",
        "offline": "what may be reached changes no number",
        "run.name": "decides which run latest is; the directory keeps its name",
        "run.output_dir": "runs may be moved",
        "run.resume_from": "says where to go on",
        "data.test": "never seen in training",
        "data.max_line_bytes": "stops a run or not; which records are kept is compared",
        "data.on_bad_record": "stops a run or not; which records are kept is compared",
        "data.max_bad_share": "stops a run or not; which records are kept is compared",
        "data.max_overlap_share": "stops a run or not; which records are kept is compared",
        "data.cache_dir": "the cache holds what would be built anew; token ids and masks are compared",
        "data.cache_min_bytes": "decides what is kept for the next start, not what is computed",
        "training.epochs": "a finished run can be extended, a long one cut short",
        "training.max_steps": "a finished run can be extended, a long one cut short",
        "training.gradient_checkpointing": "computes the same numbers in less memory",
        "training.logging_steps": "decides what is written, not what is computed",
        "training.eval_steps": "validation changes no weight",
        "training.save_steps": "decides what is written, not what is computed",
        "training.save_minutes": "decides what is written, not what is computed",
        "training.keep_last": "decides what is kept, not what is computed",
        "training.keep_best": "decides what is kept, not what is computed",
        "training.keep_every_steps": "decides what is kept, not what is computed",
        "training.early_stopping_patience": "decides where a run ends",
        "training.early_stopping_min_delta": "decides where a run ends",
        "eval": "scores change no weight",
        "generation": "texts change no weight",
        "serve": "answers change no weight",
        "tracking": "trackers change no number",
        "logging": "logs change no number",
    }
)
# Keys whose value may change because what it leads to is compared: by digest, or as what was chosen in the end.
BY_CONTENT: Mapping[str, str] = MappingProxyType(
    {
        "model.path": "base_model_digest",
        "model.name": "base_model_digest",
        "model.revision": "base_model_digest",
        "model.preset": "base_model_digest",
        "model.tokenizer": "tokenizer_digest",
        "model.device": "device",
        "model.dtype": "dtype",
        "model.batch_layout": "batch_layout",
        "data.path": "data_digest",
        "data.train": "data_digest",
        "data.valid": "validation_data_digest",
        "safety.policy": "safety_policy_digest",
    }
)
_VALIDATION_DATA = "validation_data_digest"
# What was chosen in the end, by the setting that decides it.
_SETTING_OF = {"batch_layout": "model.batch_layout"}
# Raised with every change to what a step computes, if only in its last bits: a resume after it would be another run.
_ARITHMETIC = 3
_ARITHMETIC_KEY = "arithmetic"
# The whole list stands in docs/runs.md; in an error message nobody reads to its end.
_IN_SHORT = (
    "its length (training.max_steps, training.epochs), intervals, retention, training.gradient_checkpointing, "
    "tracking and a few more, listed in docs/runs.md"
)


def settings_fingerprint(config: TrainConfig) -> dict[str, Any]:
    """Return the part that is known before any file is read, as JSON values by dotted key."""
    values = config.model_dump(mode="json")
    keys = [field.key for field in describe_schema(TrainConfig)]
    return {key: _value(values, key) for key in keys if not may_change(key) and key not in BY_CONTENT}


def run_fingerprint(config: TrainConfig, prepared: Prepared, base: BaseModel, layout: LayoutKind) -> dict[str, Any]:
    """Return all of it: settings, digests of model and data, and what the numbers are computed in.

    The data are compared as the very token ids and masks that are trained on, so that nothing between a file and a
    token (a template, a filter, a library) can change unseen.
    """
    dataset = prepared.dataset
    return {
        **settings_fingerprint(config),
        "base_model_digest": base.digest,
        "tokenizer_digest": prepared.tokenizer_digest,
        EXTRA_TOKENIZER: prepared.extra_tokenizer_digest,
        "data_digest": dataset.digest("train"),
        "data_token_digest": dataset.content_digest("train"),
        _VALIDATION_DATA: dataset.content_digest("valid") if dataset.splits.get("valid") else None,
        "safety_policy_digest": prepared.filters.policy.digest,
        "device": base.device.value.partition(":")[0],
        "dtype": base.dtype.value,
        "batch_layout": layout,
        _ARITHMETIC_KEY: _ARITHMETIC,
    }


def check_fingerprint(
    saved: Mapping[str, Any], current: Mapping[str, Any], checkpoint: Path, has_validated: bool = True
) -> None:
    """Stop when a checkpoint belongs to another run than the one described; only keys of ``current`` are compared.

    Parameters
    ----------
    saved, current : mapping
        Fingerprints of the checkpoint and of what is asked for now.
    checkpoint : Path
        For the message.
    has_validated : bool
        Whether the run has a best loss already, which losses on other records must not be compared with.

    Raises
    ------
    CheckpointError
        With every difference, as the checkpoint has it and as it is now, and with what may differ in short. A setting
        that is absent from an older checkpoint counts as its default, which is how the older code computed; the digest
        of extra tokenizer files is compared where it was recorded.
    """
    compared = [key for key in sorted(current) if has_validated or key != _VALIDATION_DATA]
    older = [key for key in compared if key not in {*saved, EXTRA_TOKENIZER} and not _is_default(key, current[key])]
    differing = [key for key in compared if key in saved and saved[key] != current[key]]
    if not older and not differing:
        return
    settings = {field.key for field in describe_schema(TrainConfig)}
    why = [f"{_SETTING_OF.get(key, key)}: {saved[key]!r} there, {current[key]!r} now" for key in differing]
    why += [
        f"{key}: {current[key]!r} now, written by an older codex-ml that did not know this option"
        if key in settings
        else f"{key}: written by an older codex-ml that did not record it, so it cannot be compared"
        for key in older
    ]
    fixes = ["put the settings and files back to resume"] if set(differing) - {_ARITHMETIC_KEY} else []
    fixes += [f"leave {key} out, which is its default" for key in older if key in settings]
    if any(key not in settings for key in older) or _ARITHMETIC_KEY in differing:
        fixes = ["resume with the codex-ml that wrote the checkpoint"]
    raise CheckpointError(
        f"run.resume_from: {checkpoint.name} belongs to a run with other settings or files",
        why="; ".join(why),
        fix=f"{'; '.join(fixes)}, or start a new run without --resume-from; what a resume may change: {_IN_SHORT}",
    )


def may_change(key: str) -> bool:
    """Tell whether a resume may change a key, whatever its value leads to."""
    return key in MAY_CHANGE or key.partition(".")[0] in MAY_CHANGE


def changeable_keys() -> list[str]:
    """Return what a resume may change, for people: keys, and sections as ``eval.*``."""
    sections = section_names(TrainConfig)
    return [f"{key}.*" if key in sections else key for key in MAY_CHANGE]


def _is_default(key: str, value: Any) -> bool:
    """Tell whether a setting has the value that every run had before there was the setting."""
    return any(field.key == key and field.default == value for field in describe_schema(TrainConfig))


def _value(values: Mapping[str, Any], key: str) -> Any:
    found: Any = values
    for part in key.split("."):
        found = found[part]
    return found


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
            fix=restore_instructions(path),
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
    closed = finalize_if_dead(layout, record, now, storage, partial(record_crash, storage=storage))
    if closed.record.status == "RUNNING":
        # Refused now, not after the data has been read and the model loaded.
        with hold_lock(layout.lock):
            pass
    messages = [message for message in (closed.message, resume.message) if message]
    return replace(resume, record=closed.record, message="\n".join(messages))


def record_crash(layout: RunLayout, record: RunRecord, storage: Storage | None = None) -> None:
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


def is_finished(state: TrainerState, total_steps: int) -> bool:
    """Tell whether a run has nothing left to do."""
    return (state.step >= total_steps or state.stop_reason is not None) and state.pending_validation_metrics is None


def is_over(resume: ResumePoint, state: TrainerState, config: TrainConfig) -> bool:
    """Tell, before anything heavy is loaded, whether a run with a fixed number of steps has nothing left to do."""
    return is_finished(state, config.training.max_steps or 0) and has_ended_well(resume)


def has_ended_well(resume: ResumePoint) -> bool:
    """Tell whether the run was closed; one that died after its last checkpoint still owes its account and its end."""
    layout, record = resume.layout, resume.record
    if layout is None or record is None or record.status != "FINISHED":
        return False
    # Its last file is written after the record: a process may have died in between.
    return manifest_path(layout).exists()

"""The training job, top to bottom: prepare data, build the model, plan, train, account for every row and token."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from codex_ml.config.paths import check_paths
from codex_ml.config.schema.root import TrainConfig
from codex_ml.errors import InterruptedRun
from codex_ml.recipes.config_check import refuse_unsafe_values
from codex_ml.recipes.hooks import training_hooks
from codex_ml.recipes.model_setup import TrainableModel, build_trainable_model, model_size
from codex_ml.recipes.preparation import Prepared, prepare, safety_summary
from codex_ml.recipes.records import write_run_files
from codex_ml.recipes.resume import ResumePoint, check_fingerprint, close_dead_run, find_resume_point, run_fingerprint
from codex_ml.recipes.session import Session, SessionDependencies, open_session, utc_now
from codex_ml.recipes.signals import StopRequest, listen_for_stop
from codex_ml.storage import Storage
from codex_ml.tracking.opening import TrackingDependencies, check_sinks
from codex_ml.training.checkpoint import LoadedState, load_checkpoint
from codex_ml.training.plan import Plan, check_disk, make_plan
from codex_ml.training.state import TrainerState
from codex_ml.training.trainer import TrainerDependencies, TrainingJob, TrainingResult, run_training


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@dataclass(frozen=True)
class TrainCollaborators:
    """What the job uses of the outside world; tests pass others."""

    storage: Storage = field(default_factory=Storage)
    say: Callable[[str], None] = _say
    clock: Callable[[], datetime] = utc_now
    tracking: TrackingDependencies = field(default_factory=TrackingDependencies)


@dataclass(frozen=True)
class TrainOutcome:
    """What the command prints at the end; the directory is None when nothing was run."""

    directory: Path | None
    lines: tuple[str, ...]


def train(config: TrainConfig, collaborators: TrainCollaborators | None = None) -> TrainOutcome:
    """Train as a config says and return where the outputs lie.

    Everything that can be refused is refused before a run directory exists.

    Raises
    ------
    CodexError
        Of the kind that fits: configuration, data, model, adapter, checkpoint, disk, non-finite, interrupted.
    """
    outside = collaborators or TrainCollaborators()
    check_paths(config)
    refuse_unsafe_values(config)
    check_sinks(config.tracking.sinks, outside.tracking)
    resume = close_dead_run(_find_resume(config), outside.clock(), outside.storage)
    if resume.message:
        outside.say(resume.message)
    prepared = prepare(config)
    records = prepared.dataset.require("train")
    trainable = build_trainable_model(config, prepared.tokenizer)
    _announce(trainable, prepared, outside.say)
    plan = make_plan(config.training, records, model_size(trainable))
    fingerprint = run_fingerprint(
        config,
        trainable.base.digest,
        prepared.tokenizer_digest,
        prepared.dataset.digest("train"),
        prepared.filters.policy.digest,
    )
    loaded = _load_state(resume, fingerprint)
    if loaded is not None and is_finished(loaded.state, plan) and _ended_well(resume):
        return _already_finished(resume, loaded.state)
    if loaded is not None and loaded.values["total_steps"] != plan.total_steps:
        outside.say(
            f"the run now has {plan.total_steps} steps instead of {loaded.values['total_steps']}: the learning rate of "
            f"the steps to come follows the {config.training.schedule} schedule of the new length"
        )
    _check_disk(config, plan, outside.storage)
    for line in plan.lines():
        outside.say(line)
    if loaded is not None:
        trainable.restore_weights(loaded.directory)
    tracker_run_ids = loaded.values.get("tracker_run_ids", {}) if loaded is not None else {}
    with (
        listen_for_stop() as stop,
        open_session(
            config,
            prepared.filters,
            resume,
            tracker_run_ids,
            SessionDependencies(outside.storage, outside.say, outside.clock, outside.tracking),
        ) as session,
    ):
        write_run_files(config, prepared, trainable, session, plan, outside.storage)
        result = _run(config, prepared, trainable, session, plan, fingerprint, loaded, stop, outside)
        # A signal during the last step changes nothing: the run is finished.
        if result.stopped_by_request is not None and not is_finished(result.state, plan):
            raise InterruptedRun(
                f"stopped by {result.stopped_by_request} after step {result.state.step}; a checkpoint was written, "
                f"resume with --resume-from {session.layout.directory}",
                stop.exit_code,
            )
        return _finish(prepared, session, result, outside.storage)


def plan_only(config: TrainConfig) -> tuple[str, ...]:
    """Return the lines of a dry run: the plan of what `train` would do, with data read and nothing written."""
    check_paths(config)
    refuse_unsafe_values(config)
    resume = _find_resume(config)
    prepared = prepare(config)
    records = prepared.dataset.require("train")
    trainable = build_trainable_model(config, prepared.tokenizer)
    plan = make_plan(config.training, records, model_size(trainable))
    lines = [
        f"device: {trainable.base.device.value} ({trainable.base.device.reason})",
        f"dtype: {trainable.base.dtype.value} ({trainable.base.dtype.reason})",
        f"trainable: {trainable.share}",
        *plan.lines(),
    ]
    if resume.message:
        lines.append(f"resume: {resume.message}")
    return (*lines, *prepared.dataset.account.lines())


def is_finished(state: TrainerState, plan: Plan) -> bool:
    """Tell whether a run has nothing left to do."""
    return state.step >= plan.total_steps or state.stop_reason is not None


def _find_resume(config: TrainConfig) -> ResumePoint:
    output_dir = config.run.output_dir
    assert output_dir is not None, "composing a config fills run.output_dir in"
    return find_resume_point(config.run.resume_from, output_dir, config.run.name)


def _load_state(resume: ResumePoint, fingerprint: Mapping[str, Any]) -> LoadedState | None:
    if resume.checkpoint is None:
        return None
    loaded = load_checkpoint(resume.checkpoint)
    check_fingerprint(loaded.values["fingerprint"], fingerprint, resume.checkpoint)
    return loaded


def _ended_well(resume: ResumePoint) -> bool:
    """Tell whether the run was closed; one that died after its last checkpoint still owes its account and its end."""
    return resume.record is not None and resume.record.status == "FINISHED"


def _already_finished(resume: ResumePoint, state: TrainerState) -> TrainOutcome:
    assert resume.layout is not None, "a checkpoint that was loaded lies in a run"
    why = f": {state.stop_reason}" if state.stop_reason else ""
    return TrainOutcome(
        resume.layout.directory,
        (
            f"the run {resume.layout.directory.name} is finished at step {state.step}{why}; nothing to do",
            f"outputs: {resume.layout.directory}",
        ),
    )


def _check_disk(config: TrainConfig, plan: Plan, storage: Storage) -> None:
    directory = config.run.output_dir
    while directory is not None and not directory.exists() and directory != directory.parent:
        directory = directory.parent
    if directory is not None:
        check_disk(plan, directory, storage.free_bytes)


def _announce(trainable: TrainableModel, prepared: Prepared, say: Callable[[str], None]) -> None:
    say(f"device {trainable.base.device.value}: {trainable.base.device.reason}")
    say(f"dtype {trainable.base.dtype.value}: {trainable.base.dtype.reason}")
    say(f"trainable: {trainable.share}")
    if prepared.filters.bypassed:
        say("warning: safety filters are bypassed; the reason stands in provenance.json and events.ndjson")
    elif prepared.findings:
        found = ", ".join(f"{rule} {count}" for rule, count in sorted(prepared.findings.items()))
        say(f"safety findings in the data: {found} (positions in events.ndjson)")


def _run(
    config: TrainConfig,
    prepared: Prepared,
    trainable: TrainableModel,
    session: Session,
    plan: Plan,
    fingerprint: dict[str, Any],
    loaded: LoadedState | None,
    stop: StopRequest,
    outside: TrainCollaborators,
) -> TrainingResult:
    state = loaded.state if loaded is not None else TrainerState()
    session.context.rewind_to_step(state.step)
    job = TrainingJob(
        model=trainable.model,
        records=prepared.dataset.require("train"),
        pad_token_id=_pad_token_id(prepared),
        seed=config.run.seed,
        settings=config.training,
        total_steps=plan.total_steps,
        checkpoints=session.layout.checkpoints,
        write_weights=trainable.write_weights,
        checkpoint_values={
            "fingerprint": fingerprint,
            "total_steps": plan.total_steps,
            "tracker_run_ids": session.context.tracker_run_ids(),
        },
        manifest={
            "kind": trainable.kind,
            "run_id": session.record.run_id,
            "base_model_digest": trainable.base.digest,
            "tokenizer_digest": prepared.tokenizer_digest,
            "safety": safety_summary(prepared.filters, prepared.findings),
        },
    )
    hooks = training_hooks(config, prepared, trainable, session, state, plan)
    dependencies = TrainerDependencies(storage=outside.storage, stop_requested=stop)
    return run_training(job, state, hooks, loaded, dependencies)


def _pad_token_id(prepared: Prepared) -> int:
    pad_token_id = prepared.tokenizer.pad_token_id
    assert isinstance(pad_token_id, int), "loading gives every tokenizer a pad token"
    return pad_token_id


def _finish(prepared: Prepared, session: Session, result: TrainingResult, storage: Storage) -> TrainOutcome:
    state = result.state
    account = prepared.dataset.account.to_dict()
    account["run"] = {
        "positions_computed": state.trained_tokens + state.masked_tokens + state.padding_tokens,
        "trained": state.trained_tokens,
        "masked": state.masked_tokens,
        "padding": state.padding_tokens,
    }
    storage.write_json(session.layout.data_account, prepared.filters.redact_value(account))
    session.context.log_event("data_account", account=account)
    best = ""
    if state.best_step is not None:
        best = f", best validation loss {state.best_metric:.4f} at step {state.best_step}"
    ended = f"trained {state.step} steps{best}"
    if state.stop_reason is not None:
        ended += f"; stopped early: {state.stop_reason}"
    return TrainOutcome(
        session.layout.directory,
        (
            *prepared.dataset.account.lines(),
            f"positions computed {account['run']['positions_computed']:,} = trained {state.trained_tokens:,} + masked "
            f"{state.masked_tokens:,} + padding {state.padding_tokens:,}",
            ended,
            f"outputs: {session.layout.directory}",
        ),
    )

"""The training job, top to bottom: prepare data, build the model, plan, train, account for every row and token."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from codex_ml.config.paths import check_paths
from codex_ml.config.schema.root import TrainConfig
from codex_ml.errors import CheckpointError, InterruptedRun
from codex_ml.io.atomic import Storage
from codex_ml.io.clock import utc_now
from codex_ml.io.stopping import STOP
from codex_ml.modeling.determinism import find_nondeterministic_ops, fixed_kernels
from codex_ml.monitoring.debug_log import LOGGER
from codex_ml.recipes.inputs import BypassRecorder, bypass_warnings, emit, refuse_unsafe_values, user_name
from codex_ml.recipes.preparation import Prepared, prepare
from codex_ml.recipes.train.calibration import Machine, calibrate
from codex_ml.recipes.train.hooks import OpenProgress, training_hooks
from codex_ml.recipes.train.plan import (
    MemoryUse,
    build_memory_probe,
    resolve_micro_batch_size,
    restore_micro_batch_size,
)
from codex_ml.recipes.train.resume import (
    ResumePoint,
    changes,
    check_fingerprint,
    close_dead_run,
    find_resume_point,
    has_ended_well,
    is_finished,
    is_over,
    run_fingerprint,
    settings_fingerprint,
)
from codex_ml.recipes.train.run_files import environment_summary, write_account, write_run_files
from codex_ml.recipes.train.session import (
    Session,
    SessionDependencies,
    listen_for_stop,
    open_session,
    suppress_secondary_error,
    translate_run_errors,
)
from codex_ml.recipes.train.setup import (
    FindRefused,
    TrainableModel,
    build_trainable_model,
    check_determinism,
    prepare_process,
    refuse_end_before_checkpoint,
    refuse_precision_that_does_not_fit,
    refuse_records_beyond_positions,
    refuse_several_processes,
    require_disk,
)
from codex_ml.runs.tokenizer_files import EXTRA_TOKENIZER
from codex_ml.tracking.opening import TrackingDependencies, build_sinks, check_sinks
from codex_ml.training.averaging import AveragedWeights, averaging_lines
from codex_ml.training.checkpoint.load import LoadedState
from codex_ml.training.checkpoint.save import CheckpointStore, DirectoryStore
from codex_ml.training.checkpoint.state import TrainerState
from codex_ml.training.hooks import Hook, Progress
from codex_ml.training.job import TrainingJob
from codex_ml.training.loop import TrainerDependencies, run_training
from codex_ml.training.optimizer import precision_lines
from codex_ml.training.plan import Plan


@dataclass(frozen=True)
class TrainDependencies:
    """What the job uses of the outside world; tests pass others."""

    storage: Storage = field(default_factory=Storage)
    emit: Callable[[str], None] = emit
    clock: Callable[[], datetime] = utc_now
    who: Callable[[], str] = user_name
    tracking: TrackingDependencies = field(default_factory=TrackingDependencies)
    find_nondeterministic_ops: FindRefused = find_nondeterministic_ops
    open_store: Callable[[Path, Storage], CheckpointStore] = DirectoryStore
    machine: Machine = field(default_factory=Machine)
    open_progress: OpenProgress = Progress
    callbacks: Sequence[Hook] = ()


@dataclass(frozen=True)
class TrainOutcome:
    """What the command prints at the end; the directory is None when nothing was run."""

    directory: Path | None
    lines: tuple[str, ...]


def train(
    config: TrainConfig,
    dependencies: TrainDependencies | None = None,
    stop_at: Callable[[int], bool] | None = None,
) -> TrainOutcome:
    """Train as a config says and return where the outputs lie.

    Everything that can be refused is refused before a run directory exists.

    Parameters
    ----------
    config : TrainConfig
        What to train.
    dependencies : TrainDependencies, optional
        Others, for tests.
    stop_at : callable, optional
        Asked after each step whether the run is to stop there, as at a signal: with a checkpoint, and unfinished.

    Raises
    ------
    CodexError
        Of the kind that fits: configuration, data, model, adapter, checkpoint, disk, non-finite, interrupted.
    """
    dependencies = dependencies or TrainDependencies()
    refuse_several_processes(os.environ)
    prepare_process(config, os.environ)
    check_sinks(config.tracking.sinks, dependencies.tracking)
    resume, loaded = _resume(config, dependencies)
    config = restore_micro_batch_size(config, loaded)
    if loaded is not None and config.training.max_steps is not None and is_over(resume, loaded.state, config):
        return _already_finished(resume, loaded.state)
    config, prepared, trainable, plan = _prepare(config, loaded, dependencies, dependencies.storage)
    introduction = _introduction(config, prepared, trainable, plan)
    for line in introduction:
        dependencies.emit(line)
    if loaded is not None and is_finished(loaded.state, plan.total_steps) and has_ended_well(resume):
        return _already_finished(resume, loaded.state)
    if loaded is not None:
        if loaded.weights is None:
            trainable.restore_weights(loaded.directory)
        for line in changes(config, loaded, plan):
            dependencies.emit(line)
    require_disk(config, plan, dependencies.storage, resume)
    STOP.check()
    records = prepared.dataset.require("train")
    trainable = check_determinism(config, records, trainable, dependencies.find_nondeterministic_ops)
    for line in trainable.kernels.trial_lines():
        dependencies.emit(line)
    tracker_run_ids = loaded.values.get("tracker_run_ids", {}) if loaded is not None else {}
    state = loaded.state if loaded is not None else TrainerState()
    memory_use = _memory_use(config, prepared, trainable, plan)
    with (
        listen_for_stop() as stop,
        fixed_kernels(trainable.kernels),
        open_session(
            config,
            prepared.filters,
            resume,
            tracker_run_ids,
            SessionDependencies(dependencies.storage, dependencies.emit, dependencies.clock, dependencies.tracking),
        ) as session,
        translate_run_errors(session.layout, lambda: state.step, memory_use.explain),
    ):
        for line in [*bypass_warnings(prepared.filters), *introduction]:
            LOGGER.info(line)
        provenance = write_run_files(
            config, prepared, trainable, session, plan, dependencies.storage, dependencies.emit
        )
        try:
            job = _job(config, prepared, trainable, session, plan, provenance)
            hooks = training_hooks(
                config,
                prepared,
                trainable,
                session,
                state,
                plan,
                job.average,
                stop,
                dependencies.open_progress,
                dependencies.callbacks,
            )
            # The lines of a step come after its validation: where that is owed, none of them counts.
            session.context.rewind_to_step(state.step if state.pending_validation_metrics is None else state.step - 1)
            loop_dependencies = TrainerDependencies(
                open_store=dependencies.open_store,
                storage=dependencies.storage,
                stop_requested=lambda: stop() or _wished_stop(stop_at, state.step),
                sync_logs=session.context.sync,
                log_event=session.context.log_event,
            )
            result = run_training(job, state, hooks, loaded, loop_dependencies)
        except BaseException as error:
            # What the run dies of is the error to show, whatever becomes of its account.
            with suppress_secondary_error(error, session.layout.data_account.name):
                write_account(prepared, session, state, dependencies.storage)
            raise
        account = write_account(prepared, session, state, dependencies.storage)
        # A signal during the last step changes nothing: the run is finished.
        if result.stopped_by_request is not None and not is_finished(state, plan.total_steps):
            raise InterruptedRun(
                f"stopped by {result.stopped_by_request} after step {state.step}; a checkpoint was written, "
                f"resume with --resume-from {session.layout.directory}",
                stop.exit_code,
                code="RUN_INTERRUPTED",
            )
        return _outcome(prepared, session, state, account)


def plan_only(config: TrainConfig, dependencies: TrainDependencies | None = None) -> tuple[str, ...]:
    """Return the lines of a dry run: what `train` would do, after the same checks, with nothing written."""
    dependencies = dependencies or TrainDependencies()
    refuse_several_processes(os.environ)
    assert config.run.output_dir is not None, "composing a config fills run.output_dir in"
    _, missing = build_sinks(config.tracking.sinks, config.run.output_dir, dependencies.tracking)
    resume = _find_resume(config)
    # Without a disk to write on: the cache of tokenised data is used, and left as it is.
    loaded = _load_state(config, resume, dependencies)
    config, prepared, trainable, plan = _prepare(restore_micro_batch_size(config, loaded), loaded, dependencies)
    require_disk(config, plan, dependencies.storage, resume)
    records = prepared.dataset.require("train")
    plan = calibrate(config, records, trainable, plan, prepared.pad_token_id, dependencies.machine)
    lines = [*_introduction(config, prepared, trainable, plan), *prepared.dataset.account.lines()]
    if resume.message:
        lines.append(f"resume: {resume.message}")
    lines.extend(f"warning: {status.message()}" for status in missing)
    return tuple(lines)


def _wished_stop(stop_at: Callable[[int], bool] | None, step: int) -> str | None:
    """Return why to stop after a step if the caller requests it."""
    return f"the end of what was asked for (step {step})" if stop_at is not None and stop_at(step) else None


def _resume(config: TrainConfig, dependencies: TrainDependencies) -> tuple[ResumePoint, LoadedState | None]:
    """Find the run to resume, mark it KILLED if its process died, and read its state."""
    resume = close_dead_run(_find_resume(config), dependencies.clock(), dependencies.storage)
    if resume.message:
        dependencies.emit(resume.message)
    return resume, _load_state(config, resume, dependencies)


def _find_resume(config: TrainConfig) -> ResumePoint:
    output_dir = config.run.output_dir
    assert output_dir is not None, "composing a config fills run.output_dir in"
    check_paths(config)
    refuse_unsafe_values(config)
    return find_resume_point(config.run.resume_from, output_dir, config.run.name)


def _load_state(config: TrainConfig, resume: ResumePoint, dependencies: TrainDependencies) -> LoadedState | None:
    """Verify and read the checkpoint to start from; other settings are refused here, before any data are read."""
    if resume.checkpoint is None:
        return None
    STOP.check()
    loaded = dependencies.open_store(resume.checkpoint.parent, dependencies.storage).load(resume.checkpoint)
    absent = sorted({"fingerprint", "random", "total_steps"} - set(loaded.values))
    if absent:
        raise CheckpointError(
            f"checkpoint {resume.checkpoint} holds no training state that can be resumed",
            why=f"{', '.join(absent)} is absent from it",
            fix="resume from a checkpoint that training wrote",
            code="CHECKPOINT_NOT_RESUMABLE",
        )
    check_fingerprint(
        loaded.values["fingerprint"], settings_fingerprint(restore_micro_batch_size(config, loaded)), resume.checkpoint
    )
    if (asked := config.training.max_steps) is not None:
        refuse_end_before_checkpoint(config, resume.checkpoint, loaded.state.step, asked)
    patience = config.training.early_stopping_patience
    if patience is None or loaded.state.evaluations_without_improvement < patience:
        # The patience that ended the run is no longer the one that is asked for.
        loaded.state.stop_reason = None
    return loaded


def _prepare(
    config: TrainConfig, loaded: LoadedState | None, dependencies: TrainDependencies, storage: Storage | None = None
) -> tuple[TrainConfig, Prepared, TrainableModel, Plan]:
    """Read the data, plan the run and build the model; whatever does not fit together is refused.

    The config comes back with a number for what it left to the memory at hand.
    """
    bypass_recorder = BypassRecorder("train", dependencies.who, dependencies.clock)
    prepared = prepare(config, dependencies.emit, storage=storage, bypass_recorder=bypass_recorder)
    STOP.check()
    memory_probe = build_memory_probe(config, prepared)
    refuse_records_beyond_positions(config, prepared, memory_probe.meta_model.model)
    config, plan = resolve_micro_batch_size(config, prepared, memory_probe, dependencies.machine.available_bytes)
    trainable = build_trainable_model(config, prepared.tokenizer)
    STOP.check()
    refuse_precision_that_does_not_fit(config, trainable)
    if loaded is not None:
        current = run_fingerprint(config, prepared, trainable.base, trainable.kernels.layout.kind)
        has_validated = bool(loaded.state.validation_losses)
        check_fingerprint(loaded.values["fingerprint"], current, loaded.directory, has_validated)
        refuse_end_before_checkpoint(config, loaded.directory, loaded.state.step, plan.total_steps)
    return config, prepared, trainable, plan


def _already_finished(resume: ResumePoint, state: TrainerState) -> TrainOutcome:
    assert resume.layout is not None, "a loaded checkpoint belongs to a run"
    why = f": {state.stop_reason}" if state.stop_reason else ""
    return TrainOutcome(
        resume.layout.directory,
        (
            f"the run {resume.layout.directory.name} is finished at step {state.step}{why}; nothing to do "
            "(its checkpoint was verified; base and data were not read: codex-ml runs verify does that)",
            f"outputs: {resume.layout.directory}",
        ),
    )


def _introduction(config: TrainConfig, prepared: Prepared, trainable: TrainableModel, plan: Plan) -> list[str]:
    """Return what the user is told before the first step: what was chosen and why, what was found, the plan."""
    base = trainable.base
    lines = [
        f"device {base.device.value}: {base.device.reason}",
        f"dtype {base.dtype.value}: {base.dtype.reason}",
        *trainable.kernels.lines(),
        f"trainable: {trainable.share}",
        *precision_lines(config.training.mixed_precision),
        *averaging_lines(config.training.ema_decay),
        *(f"warning: {text}" for text in prepared.dataset.warnings),
        *(
            f"warning: the split {name} has no record; nothing can be evaluated on it later"
            for name in ("valid", "test")
            if config.data.has_split(name) and not prepared.dataset.splits.get(name)
        ),
    ]
    if prepared.findings:
        found = ", ".join(f"{rule} {count}" for rule, count in sorted(prepared.findings.items()))
        lines.append(f"safety findings in the data: {found} (positions in events.ndjson)")
    return [*lines, *plan.lines()]


def _memory_use(config: TrainConfig, prepared: Prepared, trainable: TrainableModel, plan: Plan) -> MemoryUse:
    longest_tokens = int(prepared.dataset.require("train").lengths.max())
    return MemoryUse(config, plan, longest_tokens, trainable.base.device.value, trainable.base.dtype.value)


def _job(
    config: TrainConfig,
    prepared: Prepared,
    trainable: TrainableModel,
    session: Session,
    plan: Plan,
    provenance: Mapping[str, Any],
) -> TrainingJob:
    fingerprint = run_fingerprint(config, prepared, trainable.base, trainable.kernels.layout.kind)
    decay = config.training.ema_decay
    average = AveragedWeights(trainable.model, decay) if decay is not None else None
    return TrainingJob(
        model=trainable.model,
        records=prepared.dataset.require("train"),
        pad_token_id=prepared.pad_token_id,
        seed=config.run.seed,
        settings=config.training,
        total_steps=plan.total_steps,
        checkpoints=session.layout.checkpoints,
        write_weights=trainable.write_weights,
        checkpoint_values=lambda: {
            "fingerprint": fingerprint,
            "total_steps": plan.total_steps,
            "tracker_run_ids": session.context.tracker_run_ids(),
        },
        manifest={
            "kind": trainable.kind,
            "run_id": session.record.run_id,
            "base_model_digest": trainable.base.digest,
            "tokenizer_digest": prepared.tokenizer_digest,
            EXTRA_TOKENIZER: prepared.extra_tokenizer_digest,
            "data_digest": prepared.dataset.digest("train"),
            "config_digest": provenance["config_digest"],
            "environment": environment_summary(provenance),
            "safety": provenance["safety"],
        },
        checkpoint_bytes=plan.checkpoint_bytes,
        layout=trainable.kernels.layout.kind,
        average=average,
        write_averaged=trainable.write_averaged if average is not None else None,
    )


def _outcome(prepared: Prepared, session: Session, state: TrainerState, account: dict[str, Any]) -> TrainOutcome:
    ended = f"trained {state.step} steps"
    if state.best_step is not None:
        ended += f", best validation loss {state.best_metric:.4f} at step {state.best_step}"
    if state.stop_reason is not None:
        ended += f"; stopped early: {state.stop_reason}"
    return TrainOutcome(
        session.layout.directory,
        (
            *prepared.dataset.account.lines(),
            f"positions computed {account['run']['positions_computed']:,} = trained {state.trained_tokens:,} + masked "
            f"{state.masked_tokens:,} + padding {state.padding_tokens:,}",
            ended,
            *bypass_warnings(prepared.filters),
            f"outputs: {session.layout.directory}",
        ),
    )

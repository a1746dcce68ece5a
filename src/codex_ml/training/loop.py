"""The one training loop: optimizer steps over accumulation windows, with hooks and checkpoints at their borders."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin
from torch import nn

from codex_ml.config.schema.training import TrainingSection
from codex_ml.errors import (
    NOTE_ALSO,
    CodexError,
    NonFiniteError,
    VanishedGradientError,
    is_out_of_memory,
    release_exception_frames,
)
from codex_ml.io.atomic import Storage
from codex_ml.training.checkpoint.load import LoadedState
from codex_ml.training.checkpoint.save import (
    CheckpointSaver,
    CheckpointStore,
    DirectoryStore,
    StepSnapshot,
    step_border,
)
from codex_ml.training.checkpoint.state import TrainerState, restore_random, seed_everything
from codex_ml.training.hooks import (
    VALIDATION_LOSS,
    FrozenGarbage,
    Hook,
    ValidationAbandonedError,
    frozen_garbage,
    line_is_due,
)
from codex_ml.training.job import TrainingJob
from codex_ml.training.optimizer import (
    LossScaler,
    build_optimizer,
    check_gradient,
    learning_rate_at,
    restore_optimizer,
    restore_weights,
    set_learning_rate,
)
from codex_ml.training.window import WindowGradients, WindowOutcome


def _never_stop() -> str | None:
    return None


def _no_logs() -> None:
    return None


def _unheard(kind: str, /, **fields: Any) -> None:  # noqa: ARG001 - interface
    return None


@dataclass(frozen=True)
class TrainerDependencies:
    """Collaborators of the loop; the defaults are the real ones, and giving them explicitly changes nothing.

    Parameters
    ----------
    open_store : callable
        Returns where checkpoints go to and come from, for a directory and a storage.
    storage : Storage
        Durable file operations.
    clock : callable
        Seconds, for throughput, time left, and when a timed checkpoint is due; no number of the run comes from it.
    memory_bytes : callable
        Resident bytes of this process, for the log line.
    stop_requested : callable
        Returns a reason when the run was asked to stop (a signal); asked after each step and each checkpoint.
    sync_logs : callable
        Forces to the disk what was logged so far; called before each checkpoint, so that a checkpoint which survives a
        power failure never stands beside logs in which its steps are missing.
    log_event : callable
        Takes the kind of an event and its fields.
    """

    open_store: Callable[[Path, Storage], CheckpointStore] = DirectoryStore
    storage: Storage = field(default_factory=Storage)
    clock: Callable[[], float] = time.monotonic
    memory_bytes: Callable[[], int] = lambda: int(psutil.Process().memory_info().rss)
    stop_requested: Callable[[], str | None] = _never_stop
    sync_logs: Callable[[], None] = _no_logs
    log_event: Callable[..., None] = _unheard


@dataclass(frozen=True)
class TrainingResult:
    """Where training ended."""

    state: TrainerState
    last_checkpoint: Path | None
    stopped_by_request: str | None


def run_training(
    job: TrainingJob,
    state: TrainerState,
    hooks: Sequence[Hook] = (),
    resume: LoadedState | None = None,
    dependencies: TrainerDependencies | None = None,
) -> TrainingResult:
    """Train until the last step, or until a hook or a signal requests a stop; the only training loop of the toolkit.

    When a step fails before it has changed anything (no memory, a window without a supervised token, a hook that
    raises), a checkpoint of the steps made so far is written first. Not so when a loss or gradient is not finite or has
    vanished: the weights just before it are seldom worth the place of an older checkpoint.

    Parameters
    ----------
    job : TrainingJob
        What to train.
    state : TrainerState
        Counters, shared with hooks that read them; those of the checkpoint when resuming.
    hooks : sequence of Hook
        Called around each optimizer step.
    resume : LoadedState, optional
        Verified checkpoint; its weights are in the model already, unless it carries them itself.
    dependencies : TrainerDependencies, optional
        Other collaborators, for tests.

    Raises
    ------
    NonFiniteError, VanishedGradientError
        Before the optimizer step, when what it would use is worthless.
    DataError
        When a window of accumulation holds no supervised token.
    DiskSpaceError
        When a checkpoint has no room; the ones before it are untouched.
    """
    loop = _Loop(job, state, dependencies or TrainerDependencies())
    loop.prepare(resume)
    with frozen_garbage() as garbage:
        return loop.run(hooks, garbage)


class _Loop:
    """The parts of one run that live as long as its loop."""

    def __init__(self, job: TrainingJob, state: TrainerState, dependencies: TrainerDependencies) -> None:
        self.job = job
        self.state = state
        self.dependencies = dependencies
        device = next(job.model.parameters()).device
        # Only the model is prepared: accelerate's accumulation, schedulers and samplers change what a mean or a step
        # is (promise 6), so the windows are ours and `backward` divides by nothing.
        # Precision and accumulation are said outright: left out, environment variables would decide them.
        accelerator = Accelerator(
            cpu=device.type == "cpu",
            device_placement=False,
            mixed_precision="no",
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        )
        self.model: nn.Module = accelerator.prepare(job.model)
        self.optimizer = build_optimizer(job.model, job.settings)
        self.scaler = LossScaler(state) if job.settings.mixed_precision == "float16" else None
        self.window = WindowGradients(job, self.model, accelerator.backward, self.scaler, dependencies.log_event)
        store = dependencies.open_store(job.checkpoints, dependencies.storage)
        self.saver = CheckpointSaver(job, self.optimizer, store, dependencies.clock, dependencies.sync_logs)

    def prepare(self, resume: LoadedState | None) -> None:
        """Bring every source of chance, the optimizer and the average to where the run stands."""
        seed_everything(self.job.seed)
        if resume is None:
            return
        if resume.weights is not None:
            restore_weights(self.job.model, resume.weights)
        restore_optimizer(self.job.model, self.optimizer, resume.tensors)
        if self.job.average is not None:
            self.job.average.restore(resume.tensors)
        restore_random(resume.tensors, resume.values["random"])
        self.saver.point_and_prune(self.state)

    def run(self, hooks: Sequence[Hook], garbage: FrozenGarbage) -> TrainingResult:
        """Take the remaining steps."""
        self.model.train()
        started = self.dependencies.clock()
        first_step = self.state.step
        stopped = (
            self._after_step(hooks, self.state.pending_validation_metrics)
            if self.state.pending_validation_metrics is not None
            else None
        )
        while self.state.step < self.job.total_steps and self.state.stop_reason is None and stopped is None:
            border = step_border(self.state)
            step_started = self.dependencies.clock()
            try:
                for hook in hooks:
                    hook.before_step(self.state.step + 1)
                window = self._window()
            except Exception as error:
                if self.state.step > first_step:
                    self._save_after(error, border)
                raise
            self._step(window)
            now = self.dependencies.clock()
            metrics = self._metrics(window, now - step_started, (now - started) / (self.state.step - first_step))
            stopped = self._after_step(hooks, metrics)
            garbage.freeze_once()
        return TrainingResult(self.state, self.saver.last_checkpoint, stopped)

    def _after_step(self, hooks: Sequence[Hook], metrics: Mapping[str, float]) -> str | None:
        """Call the hooks, save where a checkpoint is due, and return why the run was asked to stop, if it was."""
        owed, self.state.pending_validation_metrics = self.state.pending_validation_metrics, None
        try:
            is_best = self._call_hooks(hooks, dict(metrics))
        except ValidationAbandonedError:
            # The step is made and its validation is not: nobody waits for that now, a resume begins with it.
            self.state.pending_validation_metrics = dict(metrics)
            self.saver.save(step_border(self.state))
            return self.dependencies.stop_requested()
        stopped = self.dependencies.stop_requested()
        # The checkpoint that a resume began with would owe the validation for ever.
        if owed is not None or self.saver.is_due(self.state, is_best, stopped):
            self.saver.save(step_border(self.state))
            # Whoever asked during the save need not wait for another step.
            stopped = stopped or self.dependencies.stop_requested()
        return stopped

    def _window(self) -> WindowOutcome:
        """Compute the gradients of the next step, or raise; weights and optimizer are as they were either way."""
        window = self.window.compute(self.state.step)
        try:
            check_gradient(
                self.state.step + 1, window.loss, window.gradient_norm, self._learning_rate(), window.records
            )
        except CodexError:
            self.window.clear()
            raise
        return window

    def _save_after(self, error: Exception, border: StepSnapshot) -> None:
        """Keep the steps made before a step that failed, where they are sound and not kept already."""
        if isinstance(error, NonFiniteError | VanishedGradientError) or self.saver.last_step == border.state.step:
            return
        if is_out_of_memory(error):
            # A checkpoint needs some memory itself.
            self.window.clear()
            release_exception_frames(error)
        try:
            self.dependencies.log_event("checkpoint_after_failure", step=border.state.step, error=type(error).__name__)
            self.saver.save(border)
        except (CodexError, OSError, RuntimeError, MemoryError) as second:
            # What made the step fail may make this fail too; the first error is the one to show.
            error.add_note(f"{NOTE_ALSO}no checkpoint of step {border.state.step} could be written: {second}")

    def _step(self, window: WindowOutcome) -> None:
        """Take the optimizer step of a window, and count."""
        set_learning_rate(self.optimizer, self._learning_rate())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        state = self.state
        state.step += 1
        state.trained_tokens += window.supervised_tokens
        state.masked_tokens += window.masked_tokens
        state.padding_tokens += window.padding_tokens
        state.interval_loss_sum += window.loss_sum
        state.interval_tokens += window.supervised_tokens
        if self.scaler is not None:
            self.scaler.step_made()
        if self.job.average is not None:
            self.job.average.update(state.step)

    def _learning_rate(self, steps_back: int = 0) -> float:
        """Return the rate of the next step, or of one before it."""
        settings: TrainingSection = self.job.settings
        return learning_rate_at(
            self.state.step - steps_back,
            self.job.total_steps,
            settings.warmup_steps,
            settings.learning_rate,
            settings.schedule,
        )

    def _metrics(self, window: WindowOutcome, step_seconds: float, mean_step_seconds: float) -> dict[str, float]:
        state = self.state
        metrics = {
            "loss": state.interval_loss_sum / state.interval_tokens,
            "step_loss": window.loss,
            "learning_rate": self._learning_rate(steps_back=1),
            "gradient_norm": window.gradient_norm,
            "supervised_tokens": float(state.trained_tokens),
            "supervised_tokens_per_second": window.supervised_tokens / max(step_seconds, 1e-9),
            "memory_bytes": float(self.dependencies.memory_bytes()),
            "seconds_left": mean_step_seconds * (self.job.total_steps - state.step),
        }
        if state.loss_scale is not None:
            metrics |= {"loss_scale": state.loss_scale, "loss_scale_overflows": float(state.overflows)}
        return metrics

    def _call_hooks(self, hooks: Sequence[Hook], metrics: dict[str, float]) -> bool:
        """Call every hook once, note a validation, and tell whether it was the best so far."""
        is_best = False
        for hook in hooks:
            result = hook.after_step(self.state.step, metrics)
            if result is None:
                continue
            metrics |= result.metrics
            if VALIDATION_LOSS in result.metrics:
                self._check_validation(result.metrics)
                delta = self.job.settings.early_stopping_min_delta
                is_best = self.state.note_validation(result.metrics[VALIDATION_LOSS], delta)
            self.state.stop_reason = self.state.stop_reason or result.stop_reason
        if line_is_due(self.state.step, metrics, self.job.settings.logging_steps, self.job.total_steps):
            self.state.interval_loss_sum, self.state.interval_tokens = 0.0, 0
        # An evaluation hook may have switched the model to evaluation.
        self.model.train()
        return is_best

    def _check_validation(self, metrics: Mapping[str, float]) -> None:
        if not math.isfinite(metrics[VALIDATION_LOSS]):
            raise NonFiniteError(
                f"step {self.state.step}: the validation loss is not finite",
                fix="lower training.learning_rate; the last good checkpoint is untouched",
            )

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
from torch import Tensor, nn

from codex_ml.config.schema.training import TrainingSection
from codex_ml.data.batches import collate, micro_batches, window_of_step
from codex_ml.data.tokenize import TokenizedRecord
from codex_ml.errors import DataError, NonFiniteError, VanishedGradientError
from codex_ml.modeling.loss import supervised_loss
from codex_ml.storage import Storage
from codex_ml.training.callbacks import VALIDATION_LOSS, Hook, line_is_due
from codex_ml.training.checkpoint import (
    CheckpointContent,
    LoadedState,
    point_and_prune,
    save_checkpoint,
)
from codex_ml.training.optim import (
    build_optimizer,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
    trainable_parameters,
)
from codex_ml.training.random_state import random_tensors, random_values, restore_random, seed_everything
from codex_ml.training.schedule import learning_rate_at
from codex_ml.training.state import TrainerState

# Mean loss in nats below which a window is known by heart, and its gradient may honestly round to zero.
_LEARNT_LOSS = 1e-4


def _never_stop() -> str | None:
    return None


def _no_logs() -> None:
    return None


@dataclass(frozen=True)
class TrainerDependencies:
    """Collaborators of the loop; the defaults are the real ones, and giving them explicitly changes nothing.

    Parameters
    ----------
    save_checkpoint : callable
        Where checkpoints go to; they come from `LoadedState`, which the caller read and verified.
    storage : Storage
        Durable file operations.
    clock : callable
        Seconds for throughput and time left; never read by anything that decides.
    memory_bytes : callable
        Resident bytes of this process, for the log line.
    stop_requested : callable
        Returns a reason when the run was asked to stop (a signal); asked once a step.
    sync_logs : callable
        Forces to the disk what was logged so far; called before each checkpoint, so that a checkpoint which survives a
        power failure never stands beside logs in which its steps are missing.
    """

    save_checkpoint: Callable[[Path, CheckpointContent, Storage], Path] = save_checkpoint
    storage: Storage = field(default_factory=Storage)
    clock: Callable[[], float] = time.monotonic
    memory_bytes: Callable[[], int] = lambda: int(psutil.Process().memory_info().rss)
    stop_requested: Callable[[], str | None] = _never_stop
    sync_logs: Callable[[], None] = _no_logs


@dataclass(frozen=True)
class TrainingJob:
    """What is to be trained, on what, for how long.

    Parameters
    ----------
    model : nn.Module
        On its device; what requires a gradient is trained.
    records : sequence
        Tokenised training records; their order is part of the run.
    pad_token_id : int
        Fills short rows; masked by position, so any id will do.
    seed : int
        Decides the order of data and every random draw.
    settings : TrainingSection
        The `training` section of the config.
    total_steps : int
        Optimizer steps of the whole run.
    checkpoints : Path
        Directory that receives checkpoints.
    write_weights : callable
        Writes adapter or model, tokenizer and generation settings into a directory.
    checkpoint_values : callable
        Returns JSON values that each checkpoint keeps, as they are when it is written.
    manifest : dict
        What the manifest of each checkpoint says of the run.
    """

    model: nn.Module
    records: Sequence[TokenizedRecord]
    pad_token_id: int
    seed: int
    settings: TrainingSection
    total_steps: int
    checkpoints: Path
    write_weights: Callable[[Path], None]
    checkpoint_values: Callable[[], dict[str, Any]] = dict
    manifest: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingResult:
    """Where training ended."""

    state: TrainerState
    last_checkpoint: Path | None
    stopped_by_request: str | None


@dataclass(frozen=True)
class _StepOutcome:
    """Loss and counts of one optimizer step."""

    loss_sum: float
    supervised_tokens: int
    gradient_norm: float
    masked_tokens: int
    padding_tokens: int


def run_training(
    job: TrainingJob,
    state: TrainerState,
    hooks: Sequence[Hook] = (),
    resume: LoadedState | None = None,
    dependencies: TrainerDependencies | None = None,
) -> TrainingResult:
    """Train until the last step, a hook's wish or a request to stop; every path of the toolkit trains through here.

    Parameters
    ----------
    job : TrainingJob
        What to train.
    state : TrainerState
        Counters, shared with hooks that read them; those of the checkpoint when resuming.
    hooks : sequence of Hook
        Called around each optimizer step.
    resume : LoadedState, optional
        Verified checkpoint whose weights are already in the model.
    dependencies : TrainerDependencies, optional
        Other collaborators, for tests.

    Raises
    ------
    NonFiniteError
        Before the optimizer step, when a loss or gradient norm is not finite.
    DataError
        When a window of accumulation holds no supervised token.
    """
    loop = _Loop(job, state, dependencies or TrainerDependencies())
    loop.prepare(resume)
    return loop.run(hooks)


class _Loop:
    """The parts of one run that live as long as its loop."""

    def __init__(self, job: TrainingJob, state: TrainerState, dependencies: TrainerDependencies) -> None:
        self.job = job
        self.state = state
        self.dependencies = dependencies
        self.device = next(job.model.parameters()).device
        # Only the model is prepared: accelerate's accumulation, schedulers and samplers change what a mean or a step
        # is (promise 6), so the windows are ours and `backward` divides by nothing.
        # Precision and accumulation are said outright: left out, environment variables would decide them.
        self.accelerator = Accelerator(
            cpu=self.device.type == "cpu",
            device_placement=False,
            mixed_precision="no",
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        )
        self.model: nn.Module = self.accelerator.prepare(job.model)
        self.parameters = list(trainable_parameters(job.model).values())
        self.optimizer = build_optimizer(job.model, job.settings)
        self.window_size = job.settings.micro_batch_size * job.settings.gradient_accumulation_steps

    def prepare(self, resume: LoadedState | None) -> None:
        """Bring every source of chance and the optimizer to where the run stands."""
        seed_everything(self.job.seed)
        if resume is not None:
            restore_optimizer(self.job.model, self.optimizer, resume.tensors)
            restore_random(resume.tensors, resume.values["random"])

    def run(self, hooks: Sequence[Hook]) -> TrainingResult:
        """Take the remaining steps."""
        self.model.train()
        started = self.dependencies.clock()
        first_step = self.state.step
        last_checkpoint: Path | None = None
        stopped: str | None = None
        while self.state.step < self.job.total_steps and self.state.stop_reason is None and stopped is None:
            for hook in hooks:
                hook.before_step(self.state.step + 1)
            step_started = self.dependencies.clock()
            outcome = self._step()
            now = self.dependencies.clock()
            metrics = self._metrics(outcome, now - step_started, (now - started) / (self.state.step - first_step))
            is_best = self._call_hooks(hooks, metrics)
            stopped = self.dependencies.stop_requested()
            if self._checkpoint_is_due(is_best, stopped):
                last_checkpoint = self._save()
        return TrainingResult(self.state, last_checkpoint, stopped)

    def _step(self) -> _StepOutcome:
        """Take one optimizer step over one accumulation window, or raise before anything has changed."""
        step = self.state.step
        indices = window_of_step(self.job.seed, step, len(self.job.records), self.window_size)
        records = [self.job.records[index] for index in indices]
        # Labels are shifted by one: the first position of a record is never predicted.
        window_tokens = sum(sum(record.supervised[1:]) for record in records)
        if window_tokens == 0:
            raise DataError(
                f"step {step + 1}: the accumulation window holds no supervised token",
                why=f"records {_names(records)}: nothing in them would be learnt from",
                fix="check the completions, or raise data.max_length_tokens",
            )
        loss_sum, masked, padding = 0.0, 0, 0
        for part in micro_batches(indices, self.job.settings.micro_batch_size):
            batch = collate([self.job.records[index] for index in part], self.job.pad_token_id).to(self.device)
            loss = supervised_loss(self.model, batch)
            # Divided by the tokens of the whole window, not of the micro-batch: the mean is the mean (promise 6).
            self.accelerator.backward(loss.loss_sum / window_tokens)
            loss_sum += loss.loss_sum.item()
            attended = int(batch.attention_mask.sum())
            masked += attended - loss.supervised
            padding += batch.attention_mask.numel() - attended
        gradient_norm = self._gradient_norm()
        self._check_gradient(loss_sum / window_tokens, gradient_norm, records)
        set_learning_rate(self.optimizer, self._learning_rate())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._count(loss_sum, window_tokens, masked, padding)
        return _StepOutcome(loss_sum, window_tokens, gradient_norm, masked, padding)

    def _learning_rate(self) -> float:
        settings = self.job.settings
        return learning_rate_at(
            self.state.step, self.job.total_steps, settings.warmup_steps, settings.learning_rate, settings.schedule
        )

    def _gradient_norm(self) -> float:
        """Return the total 2-norm of the gradients, clipped to the configured maximum where there is one."""
        maximum = self.job.settings.max_grad_norm
        gradients: list[Tensor] = [p.grad for p in self.parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients, foreach=False)
        if maximum is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, maximum, norm, foreach=False)
        return float(norm)

    def _check_gradient(self, loss: float, gradient_norm: float, records: Sequence[TokenizedRecord]) -> None:
        """Stop before the optimizer step when what it would use is worthless."""
        finite = math.isfinite(loss) and math.isfinite(gradient_norm)
        if finite and (gradient_norm > 0.0 or loss < _LEARNT_LOSS):
            return
        self.optimizer.zero_grad(set_to_none=True)
        seen = (
            f"loss {loss:.6g}, gradient norm {gradient_norm:.6g}, learning rate {self._learning_rate():.3g}; "
            f"the optimizer step was not made; records of the window: {_names(records)}"
        )
        fix = (
            "lower training.learning_rate, add training.warmup_steps, or set training.max_grad_norm; checkpoints "
            "written before this step are whole"
        )
        step = self.state.step + 1
        if not finite:
            what = "loss" if not math.isfinite(loss) else "gradient norm"
            raise NonFiniteError(f"step {step}: the {what} is not finite", why=seen, fix=fix)
        # A normalisation layer turns an overflow into zeros, and training would go on for hours without learning.
        raise VanishedGradientError(
            f"step {step}: the gradient is exactly zero, though the loss is not",
            why=f"the weights have left the range in which the model computes: {seen}",
            fix=fix,
        )

    def _count(self, loss_sum: float, supervised: int, masked: int, padding: int) -> None:
        state = self.state
        state.step += 1
        state.trained_tokens += supervised
        state.masked_tokens += masked
        state.padding_tokens += padding
        state.interval_loss_sum += loss_sum
        state.interval_tokens += supervised

    def _metrics(self, outcome: _StepOutcome, step_seconds: float, mean_step_seconds: float) -> dict[str, float]:
        state, settings = self.state, self.job.settings
        return {
            "loss": state.interval_loss_sum / state.interval_tokens,
            "step_loss": outcome.loss_sum / outcome.supervised_tokens,
            "learning_rate": learning_rate_at(
                state.step - 1, self.job.total_steps, settings.warmup_steps, settings.learning_rate, settings.schedule
            ),
            "gradient_norm": outcome.gradient_norm,
            "supervised_tokens": float(state.trained_tokens),
            "supervised_tokens_per_second": outcome.supervised_tokens / max(step_seconds, 1e-9),
            "memory_bytes": float(self.dependencies.memory_bytes()),
            "seconds_left": mean_step_seconds * (self.job.total_steps - state.step),
        }

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

    def _checkpoint_is_due(self, is_best: bool, stopped: str | None) -> bool:
        settings, step = self.job.settings, self.state.step
        return (
            step == self.job.total_steps
            or stopped is not None
            or self.state.stop_reason is not None
            or (is_best and settings.keep_best > 0)
            or (settings.save_steps is not None and step % settings.save_steps == 0)
        )

    def _save(self) -> Path:
        content = CheckpointContent(
            state=self.state,
            tensors=optimizer_tensors(self.job.model, self.optimizer) | random_tensors(),
            values={"random": random_values(), **self.job.checkpoint_values()},
            write_weights=self.job.write_weights,
            manifest=self.job.manifest,
        )
        self.dependencies.sync_logs()
        directory = self.dependencies.save_checkpoint(self.job.checkpoints, content, self.dependencies.storage)
        settings = self.job.settings
        point_and_prune(
            self.job.checkpoints, self.state, settings.keep_last, settings.keep_best, self.dependencies.storage
        )
        return directory


def _names(records: Sequence[TokenizedRecord]) -> str:
    names = [record.record_id for record in records]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")

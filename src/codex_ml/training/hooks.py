"""Hooks of the training loop."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TextIO

from tqdm import tqdm

from codex_ml.io.terminal import write_message
from codex_ml.monitoring.debug_log import LOGGER
from codex_ml.training.checkpoint.state import TrainerState

# Name of the metric that ranks checkpoints and drives early stopping.
VALIDATION_LOSS = "validation_loss"


@dataclass(frozen=True)
class HookResult:
    """What a hook gives back: metrics that later hooks and the trainer see, and a reason to end training."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    stop_reason: str | None = None


class Hook(Protocol):
    """Called once per optimizer step, in the order given; steps count from 1."""

    def before_step(self, step: int) -> None:
        """Run before the first micro-batch of a step."""

    def after_step(self, step: int, metrics: Mapping[str, float]) -> HookResult | None:
        """Run after the optimizer step, with its metrics and those of the hooks before this one."""


class ValidationAbandonedError(Exception):
    """A validation was given up because the run was asked to stop; the step before it is whole."""


class Evaluation:
    """Runs a validation at an interval of steps and after the last step."""

    def __init__(self, evaluate: Callable[[], Mapping[str, float]], every_steps: int | None, total_steps: int) -> None:
        self._evaluate = evaluate
        self._every_steps = every_steps
        self._total_steps = total_steps

    def before_step(self, step: int) -> None:
        """Do nothing."""

    def after_step(self, step: int, metrics: Mapping[str, float]) -> HookResult | None:  # noqa: ARG002 - interface
        """Return the validation metrics where a validation is due."""
        due = step == self._total_steps or (self._every_steps is not None and step % self._every_steps == 0)
        return HookResult(metrics=self._evaluate()) if due else None


class EarlyStopping:
    """Ends training after a number of validations without improvement."""

    def __init__(self, state: TrainerState, patience: int) -> None:
        self._state = state
        self._patience = patience

    def before_step(self, step: int) -> None:
        """Do nothing."""

    def after_step(self, step: int, metrics: Mapping[str, float]) -> HookResult | None:  # noqa: ARG002 - interface
        """Return a reason to stop once patience is used up."""
        if VALIDATION_LOSS not in metrics or self._state.evaluations_without_improvement < self._patience:
            return None
        count = self._state.evaluations_without_improvement
        return HookResult(stop_reason=f"no improvement of {VALIDATION_LOSS} in {count} evaluations")


class MetricLog:
    """Forwards the metrics of a step at the logging interval, at validations and at the last step."""

    def __init__(self, write: Callable[[int, Mapping[str, float]], None], every_steps: int, total_steps: int) -> None:
        self._write = write
        self._every_steps = every_steps
        self._total_steps = total_steps

    def before_step(self, step: int) -> None:
        """Do nothing."""

    def after_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics when they are due."""
        if line_is_due(step, metrics, self._every_steps, self._total_steps):
            self._write(step, metrics)


class Progress:
    """A bar on a terminal, one plain line an interval elsewhere; always on the error stream."""

    def __init__(self, total_steps: int, every_steps: int, start_step: int = 0, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._total_steps = total_steps
        self._every_steps = every_steps
        self._bar = (
            tqdm(total=total_steps, initial=start_step, file=self._stream, unit="step", dynamic_ncols=True)
            if self._stream.isatty()
            else None
        )

    def before_step(self, step: int) -> None:
        """Do nothing."""

    def after_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Move the bar, or print the line that is due."""
        line = None
        if line_is_due(step, metrics, self._every_steps, self._total_steps):
            line = progress_line(step, self._total_steps, metrics)
            LOGGER.info(line)
        # A reader that went away, a terminal that hung up, or a full disk behind the stream is no reason to end a run.
        with contextlib.suppress(OSError):
            self._show(step, metrics["loss"], line)

    def _show(self, step: int, loss: float, line: str | None) -> None:
        if self._bar is None:
            if line is not None:
                write_message(line, stream=self._stream)
            return
        self._bar.update(1)
        self._bar.set_postfix_str(f"loss {loss:.4f}")
        if line is not None:
            self._bar.write(line, file=self._stream)
        if step == self._total_steps:
            self._bar.close()


def line_is_due(step: int, metrics: Mapping[str, float], every_steps: int, total_steps: int) -> bool:
    """Tell whether a log line belongs to this step; the trainer resets its interval means by the same rule."""
    return step % every_steps == 0 or step == total_steps or VALIDATION_LOSS in metrics


def progress_line(step: int, total_steps: int, metrics: Mapping[str, float]) -> str:
    """Return the one line that carries all that matters of a step."""
    line = (
        f"step {step}/{total_steps} | loss {metrics['loss']:.4f} | learning rate {metrics['learning_rate']:.2e} | "
        f"gradient norm {metrics['gradient_norm']:.3f} | {metrics['supervised_tokens_per_second']:,.0f} supervised "
        f"tokens/s | memory {metrics['memory_bytes'] / 2**20:,.0f} MiB | {format_seconds(metrics['seconds_left'])} left"
    )
    if VALIDATION_LOSS in metrics:
        line += f" | validation loss {metrics[VALIDATION_LOSS]:.4f}"
    return line


def format_seconds(seconds: float) -> str:
    """Return a duration as ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class FrozenGarbage:
    """Freezes, once, whatever Python has made so far: libraries, the model, the records.

    None of it becomes garbage while a run lasts, and a full round of the collector looks at all of it. What is made
    later is collected as before, so that a cycle in a hook does not grow without end.
    """

    def __init__(self) -> None:
        self._is_frozen = False

    def freeze_once(self) -> None:
        """Collect, and freeze what is left; after the first call nothing happens."""
        if not self._is_frozen:
            gc.collect()
            gc.freeze()
            self._is_frozen = True

    def thaw(self) -> None:
        """Let the collector see everything again."""
        if self._is_frozen:
            gc.unfreeze()
            self._is_frozen = False


@contextmanager
def frozen_garbage() -> Iterator[FrozenGarbage]:
    """Give what freezes, and thaw at the end of the block, however it ends."""
    garbage = FrozenGarbage()
    try:
        yield garbage
    finally:
        garbage.thaw()

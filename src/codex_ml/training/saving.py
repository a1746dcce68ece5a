"""When a checkpoint is written, and what is put into it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from codex_ml.config.schema.training import TrainingSection
from codex_ml.training.averaging import averaged_tensors
from codex_ml.training.checkpoint import CheckpointContent
from codex_ml.training.job import TrainingJob
from codex_ml.training.optim import optimizer_tensors, trainable_parameters
from codex_ml.training.random_state import RandomSnapshot, random_snapshot
from codex_ml.training.state import TrainerState
from codex_ml.training.store import CheckpointStore, Retention

AVERAGED_DIRECTORY = "ema"


class SaveTimer:
    """Tells when the minutes between two timed checkpoints are over.

    The clock decides when a checkpoint is written and never what is in it. One that was set back makes the wait start
    anew, so that neither every step is saved nor none for as long as it was set back.

    Parameters
    ----------
    minutes : float, optional
        Between two checkpoints; None: it is never time.
    clock : callable
        Seconds.
    """

    def __init__(self, minutes: float | None, clock: Callable[[], float]) -> None:
        self._seconds = None if minutes is None else minutes * 60
        self._clock = clock
        self._since = clock()

    def is_over(self) -> bool:
        """Tell whether the minutes since the last checkpoint, or the start, are over."""
        if self._seconds is None:
            return False
        now = self._clock()
        if now < self._since:
            self._since = now
        return now - self._since >= self._seconds

    def restart(self) -> None:
        """Count from now on."""
        self._since = self._clock()


@dataclass(frozen=True)
class StepBorder:
    """What changes while a window is computed, as it was before: counters and generators at the border of a step."""

    state: TrainerState
    random: RandomSnapshot


def step_border(state: TrainerState) -> StepBorder:
    """Note where counters and generators stand between two steps."""
    border = copy.copy(state)
    border.validation_losses = dict(state.validation_losses)
    return StepBorder(border, random_snapshot())


class CheckpointSaver:
    """Writes the checkpoints of one run, each through its store.

    Parameters
    ----------
    job : TrainingJob
        The run; its settings say when and what is kept.
    optimizer : torch.optim.Optimizer
        Whose moments are kept.
    store : CheckpointStore
        Where checkpoints go.
    clock : callable
        Seconds, for `training.save_minutes`.
    before_save : callable
        Called before anything is staged: what a checkpoint must not outlive is forced to the disk there.
    """

    def __init__(
        self,
        job: TrainingJob,
        optimizer: torch.optim.Optimizer,
        store: CheckpointStore,
        clock: Callable[[], float],
        before_save: Callable[[], None],
    ) -> None:
        self._job = job
        self._optimizer = optimizer
        self._store = store
        self._before_save = before_save
        self._timer = SaveTimer(job.settings.save_minutes, clock)
        self._size_bytes = job.checkpoint_bytes
        self.last_checkpoint: Path | None = None
        self.last_step: int | None = None

    def is_due(self, state: TrainerState, is_best: bool, stopped: str | None) -> bool:
        """Tell whether a checkpoint belongs after the step just made."""
        settings: TrainingSection = self._job.settings
        return (
            state.step == self._job.total_steps
            or stopped is not None
            or state.stop_reason is not None
            or (is_best and settings.keep_best > 0)
            or (settings.save_steps is not None and state.step % settings.save_steps == 0)
            or self._timer.is_over()
        )

    def save(self, border: StepBorder) -> None:
        """Write a checkpoint of a border between two steps, and let go what retention no longer keeps.

        Raises
        ------
        DiskSpaceError
            If there is no room for it; older checkpoints are untouched.
        """
        self._store.require_room(border.state.step, self._size_bytes)
        self._before_save()
        saved = self._store.save(self._content(border))
        self.last_checkpoint, self.last_step, self._size_bytes = saved.place, border.state.step, saved.size_bytes
        self._timer.restart()
        self.point_and_prune(border.state)

    def point_and_prune(self, state: TrainerState) -> None:
        """Name the latest and the best, and let go what retention no longer keeps.

        Asked for after each checkpoint, and by a run that goes on: the process before may have died between the two.
        """
        settings = self._job.settings
        retention = Retention(settings.keep_last, settings.keep_best, settings.keep_every_steps)
        self._store.point_and_prune(state, retention)

    def _content(self, border: StepBorder) -> CheckpointContent:
        job = self._job
        return CheckpointContent(
            state=border.state,
            tensors=optimizer_tensors(job.model, self._optimizer)
            | border.random.tensors
            | averaged_tensors(job.average),
            values={"random": border.random.values(), **job.checkpoint_values()},
            write_weights=self._write_weights,
            manifest=job.manifest,
            weights={name: parameter.detach() for name, parameter in trainable_parameters(job.model).items()},
        )

    def _write_weights(self, directory: Path) -> None:
        """Write the weights, and beside them their average where one is kept."""
        job = self._job
        job.write_weights(directory)
        if job.average is not None and job.write_averaged is not None:
            averaged = directory / AVERAGED_DIRECTORY
            averaged.mkdir(mode=0o700)
            with job.average.applied():
                job.write_averaged(averaged)

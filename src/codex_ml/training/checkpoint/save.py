"""Checkpoints written by the training loop, and retention of old ones."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from codex_ml.config.schema.training import TrainingSection
from codex_ml.errors import DiskSpaceError, no_room
from codex_ml.io.atomic import Storage
from codex_ml.runs.checkpoints import checkpoint_name, newest_whole, remove_staged
from codex_ml.runs.manifest import read_manifest
from codex_ml.training.averaging import averaged_tensors
from codex_ml.training.checkpoint.load import (
    CheckpointContent,
    LoadedState,
    load_checkpoint,
    point_and_prune,
    save_checkpoint,
)
from codex_ml.training.checkpoint.state import RandomSnapshot, TrainerState, random_snapshot
from codex_ml.training.job import TrainingJob
from codex_ml.training.optimizer import optimizer_tensors, trainable_parameters
from codex_ml.training.plan import format_bytes

# Besides the files themselves: directories, blocks that are not full, and the pointers written right after.
_MARGIN_SHARE = 0.05
_MARGIN_BYTES = 2**18


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint that is whole: what its store calls it, and the bytes it takes."""

    place: Path
    size_bytes: int


@dataclass(frozen=True)
class Retention:
    """Which checkpoints stay: the newest so many, the best so many, and those at multiples of a number of steps."""

    keep_last: int
    keep_best: int
    keep_every_steps: int | None = None


class CheckpointStore(Protocol):
    """All that training asks of the place where checkpoints lie; a test passes one that lives in memory."""

    def require_room(self, step: int, size_bytes: int) -> None:
        """Raise `DiskSpaceError` when a checkpoint of about this size has no room; nothing was written then."""
        ...

    def save(self, content: CheckpointContent) -> SavedCheckpoint:
        """Keep a checkpoint whole or not at all; one of the same step is replaced."""
        ...

    def load(self, place: Path) -> LoadedState:
        """Return a checkpoint that was kept, after it was verified."""
        ...

    def point_and_prune(self, state: TrainerState, retention: Retention) -> list[int]:
        """Name the latest and the best, let go what retention does not keep, and return the steps let go."""
        ...


class DirectoryStore:
    """Checkpoints as directories below one; see `save_checkpoint` for what makes them whole or absent.

    Parameters
    ----------
    checkpoints : Path
        The ``checkpoints/`` directory of a run.
    storage : Storage
        Durable file operations.
    """

    def __init__(self, checkpoints: Path, storage: Storage) -> None:
        self._checkpoints = checkpoints
        self._storage = storage

    def require_room(self, step: int, size_bytes: int) -> None:
        """Compare what a checkpoint needs, with a margin, with what the filesystem has left.

        Raises
        ------
        DiskSpaceError
            With both numbers and the last good checkpoint.
        """
        needed = int(size_bytes * (1 + _MARGIN_SHARE)) + _MARGIN_BYTES
        free = self._storage.free_bytes(self._checkpoints)
        if free < needed:
            raise self._no_room(step, f"{needed:,} bytes ({format_bytes(needed)}) are needed, {free:,} are free")

    def save(self, content: CheckpointContent) -> SavedCheckpoint:
        """Write a checkpoint directory; what a failed save staged is removed.

        Raises
        ------
        DiskSpaceError
            If the disk fills up, or a quota is reached, while it is written.
        """
        try:
            place = save_checkpoint(self._checkpoints, content, self._storage)
        except BaseException as error:
            # A torso would take the very room that is missing. On a disk that fails altogether the next start does it.
            # A second signal leaves at once all the same: removing files takes no time, and a third ends that, too.
            with contextlib.suppress(OSError):
                remove_staged(self._checkpoints, self._storage)
            limit = no_room(error)
            if limit is None:
                raise
            free = self._storage.free_bytes(self._checkpoints)
            why = f"{limit.problem}, while it was written; {free:,} bytes are free now"
            raise self._no_room(content.state.step, why, limit.fix) from error
        return SavedCheckpoint(place, sum(entry["bytes"] for entry in read_manifest(place)["files"].values()))

    def load(self, place: Path) -> LoadedState:
        """Verify a checkpoint directory and read its training state."""
        return load_checkpoint(place)

    def point_and_prune(self, state: TrainerState, retention: Retention) -> list[int]:
        """Write `latest` and `best`, and delete the directories that retention does not keep."""
        return point_and_prune(
            self._checkpoints,
            state,
            retention.keep_last,
            retention.keep_best,
            self._storage,
            keep_every_steps=retention.keep_every_steps,
        )

    def _no_room(self, step: int, why: str, fix: str = "free space") -> DiskSpaceError:
        good, _ = newest_whole(self._checkpoints)
        last = "there is no checkpoint before it" if good is None else f"the last good checkpoint is {good.name}"
        return DiskSpaceError(
            f"{checkpoint_name(step)} cannot be written to {self._checkpoints}",
            why=f"{why}; nothing of it was left there, and {last}",
            fix=f"{fix} (or lower training.keep_last or training.keep_best, or raise training.keep_every_steps, "
            "and delete checkpoints that are not needed), then resume with --resume-from latest",
        )


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
class StepSnapshot:
    """What changes while a window is computed, as it was before: counters and generators at the border of a step."""

    state: TrainerState
    random: RandomSnapshot


def step_border(state: TrainerState) -> StepSnapshot:
    """Note where counters and generators stand between two steps."""
    border = copy.copy(state)
    border.validation_losses = dict(state.validation_losses)
    return StepSnapshot(border, random_snapshot())


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

    def save(self, border: StepSnapshot) -> None:
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

    def _content(self, border: StepSnapshot) -> CheckpointContent:
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

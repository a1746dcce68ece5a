"""Where checkpoints go to and come from: one small protocol, and its store of directories on the disk."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from codex_ml.errors import DiskSpaceError, no_room
from codex_ml.runs.checkpoints import checkpoint_name, newest_whole, remove_staged
from codex_ml.runs.manifest import read_manifest
from codex_ml.storage import Storage
from codex_ml.training.checkpoint import (
    CheckpointContent,
    LoadedState,
    load_checkpoint,
    point_and_prune,
    save_checkpoint,
)
from codex_ml.training.plan import format_bytes
from codex_ml.training.state import TrainerState

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

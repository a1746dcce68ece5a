"""The store of directories: room is asked for before anything is staged, and a disk that fills up leaves no torso."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codex_ml.errors import DiskSpaceError
from codex_ml.io.atomic import Storage
from codex_ml.runs.checkpoints import list_checkpoints
from codex_ml.runs.manifest import verify_checkpoint
from codex_ml.training.checkpoint.load import CheckpointContent
from codex_ml.training.checkpoint.save import DirectoryStore, Retention
from codex_ml.training.checkpoint.state import TrainerState
from codex_ml.training.loop import TrainerDependencies, run_training

Workshop = Any  # the class lives in conftest.py, which cannot be imported by name


class SmallDisk(Storage):
    """A disk of a certain number of free bytes, which may run full in the middle of a write."""

    def __init__(self, free: int, full_at: str = "") -> None:
        self.free = free
        self.full_at = full_at
        self.operations: list[str] = []

    def free_bytes(self, path: Path) -> int:  # noqa: ARG002 - interface
        """Return what is free."""
        return self.free

    def make_one_directory(self, path: Path) -> None:
        """Note that something was staged."""
        self.operations.append(path.name)
        super().make_one_directory(path)

    def write_pieces(self, path: Path, pieces: Iterable[bytes | memoryview]) -> None:
        """Write half of a file and run full, where the test said so."""
        if path.name == self.full_at:
            data = b"".join(pieces)
            path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        super().write_pieces(path, pieces)


def content(step: int) -> CheckpointContent:
    """Return a small checkpoint."""
    return CheckpointContent(
        TrainerState(step=step), {}, {}, lambda directory: (directory / "w.json").write_text("{}") and None
    )


def test_require_room_too_little_says_both_numbers_and_the_last_good_checkpoint(tmp_path: Path) -> None:
    """Needed with a margin, free, which checkpoint is good, what to do; nothing was staged."""
    disk = SmallDisk(10**9)
    store = DirectoryStore(tmp_path, disk)
    with pytest.raises(DiskSpaceError) as caught:
        DirectoryStore(tmp_path, SmallDisk(1000)).require_room(1, 5_000)
    assert "there is no checkpoint before it" in caught.value.why
    store.save(content(4))
    disk.operations.clear()
    disk.free = 1_000_000
    with pytest.raises(DiskSpaceError, match="step-00000007 cannot be written") as caught:
        store.require_room(7, 1_000_000)
    assert "1,312,144 bytes (1.3 MiB) are needed, 1,000,000 are free" in caught.value.why
    assert "the last good checkpoint is step-00000004" in caught.value.why
    assert "--resume-from latest" in caught.value.fix
    # Every so many steps: the larger the number, the fewer are kept.
    assert "raise training.keep_every_steps" in caught.value.fix
    assert disk.operations == []


def test_require_room_last_good_is_one_that_verifies(tmp_path: Path) -> None:
    """A damaged newest checkpoint is not called good."""
    store = DirectoryStore(tmp_path, SmallDisk(0))
    for step in (2, 4):
        store.save(content(step))
    (tmp_path / "step-00000004" / "w.json").write_text("[]")
    with pytest.raises(DiskSpaceError) as caught:
        store.require_room(6, 10)
    assert "the last good checkpoint is step-00000002" in caught.value.why


def test_require_room_enough_is_silent(tmp_path: Path) -> None:
    """The margin is five percent and a quarter of a mebibyte."""
    store = DirectoryStore(tmp_path, SmallDisk(1_312_144))
    store.require_room(7, 1_000_000)
    with pytest.raises(DiskSpaceError):
        store.require_room(7, 1_000_001)


@pytest.mark.parametrize("name", ["training_state.safetensors", "trainer_state.json", "manifest.json"])
def test_save_disk_that_fills_up_leaves_no_torso_and_the_older_checkpoint(name: str, tmp_path: Path) -> None:
    """In the middle of any file: the staged part is gone, what was there before verifies, the message names it."""
    disk = SmallDisk(10**9)
    store = DirectoryStore(tmp_path, disk)
    store.save(content(2))
    disk.full_at, disk.free = name, 0
    with pytest.raises(DiskSpaceError, match="step-00000004 cannot be written") as caught:
        store.save(content(4))
    assert "the disk is full, while it was written; 0 bytes are free now" in caught.value.why
    assert "the last good checkpoint is step-00000002" in caught.value.why
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000002"]
    verify_checkpoint(tmp_path / "step-00000002")


def test_save_other_failure_leaves_no_torso_and_passes(tmp_path: Path) -> None:
    """An error of another kind is not called a full disk."""

    def fail(directory: Path) -> None:
        (directory / "half").write_text("x")
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        DirectoryStore(tmp_path, Storage()).save(replace(content(4), write_weights=fail))
    assert list(tmp_path.iterdir()) == []


def test_saved_checkpoint_size_is_that_of_its_files(tmp_path: Path) -> None:
    """The next checkpoint is measured by it."""
    saved = DirectoryStore(tmp_path, Storage()).save(content(3))
    files = [file for file in saved.place.iterdir() if file.name != "manifest.json"]
    assert saved.size_bytes == sum(file.stat().st_size for file in files)


def test_directory_store_prunes_by_its_retention(tmp_path: Path) -> None:
    """Every part of the retention reaches the disk."""
    store = DirectoryStore(tmp_path, Storage())
    for step in range(1, 8):
        store.save(content(step))
    state = TrainerState(step=7, validation_losses={2: 0.1, 5: 0.3})
    assert store.point_and_prune(state, Retention(keep_last=1, keep_best=1, keep_every_steps=3)) == [1, 4, 5]
    assert [step for step, _ in list_checkpoints(tmp_path)] == [2, 3, 6, 7]


def test_run_training_asks_for_room_by_the_plan_first_and_by_the_last_checkpoint_then(workshop: Workshop) -> None:
    """A plan that was too hopeful is put right by what a checkpoint really takes."""
    store = workshop.memory_store()
    job = replace(workshop.job(total_steps=4, save_steps=2, on_disk=False), checkpoint_bytes=77)
    run_training(job, TrainerState(), dependencies=TrainerDependencies(open_store=store))
    real = sum(tensor.nbytes for tensor in store.kept[4].tensors.values())
    assert store.asked == [(2, 77), (4, real)]


def test_run_training_without_room_stops_with_the_last_good_checkpoint(workshop: Workshop) -> None:
    """The run ends, the checkpoint before it stays and is the one that goes on."""
    disk = SmallDisk(10**9)

    def fill(step: int) -> None:
        disk.free = 10**9 if step < 4 else 1000

    job = workshop.job(total_steps=6, save_steps=2)
    with pytest.raises(DiskSpaceError, match="step-00000004"):
        run_training(
            job, TrainerState(), [workshop.recorder(before=fill)], dependencies=TrainerDependencies(storage=disk)
        )
    assert [step for step, _ in list_checkpoints(job.checkpoints)] == [2]
    verify_checkpoint(job.checkpoints / "step-00000002")

"""Checkpoints and run records from a stranger: links, pipes, names outside, bombs; refused, and nothing followed."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from codex_ml.errors import CheckpointError, UserError
from codex_ml.io.atomic import Storage, file_digest
from codex_ml.runs.checkpoints import checkpoint_name, list_checkpoints, newest_whole, read_pointer, write_pointer
from codex_ml.runs.layout import RunLayout, create_run, find_runs, read_record, read_runs
from codex_ml.runs.lock import hold_lock, is_locked
from codex_ml.runs.manifest import MANIFEST_NAME, read_manifest, verify_checkpoint, write_manifest

# A read that waits, or that a bomb keeps busy, would otherwise take the five minutes of every test.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    """Return a run that ended, without checkpoints."""
    return create_run(tmp_path / "runs", "a", datetime(2026, 11, 22, tzinfo=UTC), Storage())[0]


@pytest.fixture
def checkpoint(run: RunLayout) -> Path:
    """Return a whole checkpoint of it."""
    return _checkpoint(run, 2)


def _checkpoint(run: RunLayout, step: int) -> Path:
    directory = run.checkpoints / checkpoint_name(step)
    directory.mkdir()
    (directory / "adapter_model.safetensors").write_bytes(b"weights")
    (directory / "trainer_state.json").write_text("{}")
    write_manifest(directory, {"step": step, "kind": "adapter"}, Storage())
    return directory


def _with_entry(checkpoint: Path, name: str, target: Path) -> None:
    """Let the manifest name a file, with the digest that is right."""
    file = checkpoint / MANIFEST_NAME
    manifest = json.loads(file.read_text())
    manifest["files"][name] = {"sha256": file_digest(target), "bytes": target.stat().st_size}
    file.write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["../../secret", "/etc/hostname", "a/../../../secret", "", "..", "a\0b"])
def test_manifest_name_outside_is_refused_before_it_is_read(checkpoint, name):
    """A manifest that names what is not below it is refused, even with the right digest."""
    manifest = json.loads((checkpoint / MANIFEST_NAME).read_text())
    manifest["files"][name] = {"sha256": "sha256:0", "bytes": 1}
    (checkpoint / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="outside its checkpoint"):
        verify_checkpoint(checkpoint)


def test_link_with_right_digest_is_refused(checkpoint, tmp_path):
    """A link is no file of a checkpoint: what it leads to can change after the check."""
    secret = tmp_path / "secret"
    secret.write_text("s3cr3t")
    (checkpoint / "extra").symlink_to(secret)
    _with_entry(checkpoint, "extra", secret)
    with pytest.raises(CheckpointError) as caught:
        verify_checkpoint(checkpoint)
    assert "extra is a symbolic link" in caught.value.why


def test_linked_directory_is_refused(checkpoint, tmp_path):
    """A link to a directory would bring files that no manifest names."""
    (tmp_path / "elsewhere").mkdir()
    (checkpoint / "ema").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError) as caught:
        verify_checkpoint(checkpoint)
    assert "ema is a symbolic link" in caught.value.why


@pytest.mark.parametrize("name", ["trainer_state.json", "new"])
def test_pipe_in_checkpoint_is_named_and_never_opened(checkpoint, name):
    """Opening a pipe waits for a writer; it is told by its kind before."""
    (checkpoint / name).unlink(missing_ok=True)
    os.mkfifo(checkpoint / name)
    with pytest.raises(CheckpointError) as caught:
        verify_checkpoint(checkpoint)
    assert f"{name} is a named pipe" in caught.value.why


def test_manifest_that_is_a_pipe_is_damaged(checkpoint):
    """The manifest itself may be one."""
    (checkpoint / MANIFEST_NAME).unlink()
    os.mkfifo(checkpoint / MANIFEST_NAME)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_manifest(checkpoint)


def test_manifest_that_is_a_link_is_damaged(checkpoint, tmp_path):
    """Nor is a link followed to one."""
    (checkpoint / MANIFEST_NAME).rename(tmp_path / "elsewhere.json")
    (checkpoint / MANIFEST_NAME).symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(CheckpointError, match="is damaged"):
        read_manifest(checkpoint)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"files": ' + b'{"a": ' * 50_000,
        b'{"manifest_version": 1, "files": {}, "step": NaN}',
        b'{"manifest_version": 1, "files": {}, "step": 1e999}',
        b'{"manifest_version": 1, "files": {}, "step": ' + b"9" * 10_000 + b"}",
        b'{"manifest_version": 1, "files": {}, "files": {"a": 1}}',
        b'{"manifest_version": 1, "files": {}, "x": ' + b"[" * 100 + b"]" * 100 + b"}",
    ],
    ids=["deep", "deep-objects", "nan", "infinite", "long-number", "doubled-key", "nested-100"],
)
def test_manifest_that_is_a_bomb_is_damaged(checkpoint, content):
    """Depth, numbers that are none, and doubled keys: one error, no RecursionError."""
    (checkpoint / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_manifest(checkpoint)


def test_huge_manifest_is_refused_unread(checkpoint):
    """A manifest that claims to be a terabyte (a sparse file) is not read into memory."""
    with (checkpoint / MANIFEST_NAME).open("r+b") as handle:
        handle.truncate(1 << 40)
    with pytest.raises(CheckpointError, match="is damaged") as caught:
        read_manifest(checkpoint)
    assert "longer than" in caught.value.why


def test_file_of_another_size_is_not_read(checkpoint):
    """Weights that claim to be a terabyte are told by their size: hashing them would take an hour."""
    with (checkpoint / "adapter_model.safetensors").open("r+b") as handle:
        handle.truncate(1 << 40)
    with pytest.raises(CheckpointError) as caught:
        verify_checkpoint(checkpoint)
    assert "adapter_model.safetensors differs" in caught.value.why


@pytest.mark.parametrize("name", ["extra.bin", "optimizer.PT", "deep/er/state.pkl", "x.npy", "m.joblib"])
def test_pickle_in_checkpoint_is_refused_by_name(checkpoint, name, tmp_path):
    """A pickle is refused by its name, whatever its case, also where the manifest knows it."""
    file = checkpoint / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(_Canary(tmp_path / "canary")))
    _with_entry(checkpoint, name, file)
    with pytest.raises(CheckpointError) as caught:
        verify_checkpoint(checkpoint)
    assert f"{name} is a pickle format" in caught.value.why
    assert not (tmp_path / "canary").exists()


class _Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (os.mkdir, (str(self._file),))


def test_linked_checkpoint_is_none_of_the_run(run, checkpoint, tmp_path):
    """A checkpoint directory that is a link is not listed, so neither loaded nor pruned."""
    checkpoint.rename(tmp_path / "step-00000009")
    (run.checkpoints / "step-00000009").symlink_to(tmp_path / "step-00000009")
    assert list_checkpoints(run.checkpoints) == []
    assert newest_whole(run.checkpoints) == (None, [])
    assert (tmp_path / "step-00000009" / MANIFEST_NAME).is_file()


@pytest.mark.parametrize(
    "content", [b"../../elsewhere", b"/etc", b"\xff\xfe\x00", b"step-00000002/../../..", b"x" * 9999]
)
def test_pointer_that_leads_out_is_ignored(run, content):
    """A pointer names a step and nothing else."""
    (run.checkpoints / "best").write_bytes(content)
    assert read_pointer(run.checkpoints, "best") is None


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_pointer_that_is_no_file_is_ignored(run, make):
    """A pipe, a directory or a device in the place of a pointer is as good as none."""
    make(run.checkpoints / "best")
    assert read_pointer(run.checkpoints, "best") is None


def test_pointer_that_is_a_link_is_replaced_not_followed(run, tmp_path):
    """Writing a pointer replaces a link in its place; what it led to keeps its content."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (run.checkpoints / "latest").symlink_to(victim)
    write_pointer(run.checkpoints, "latest", 2, Storage())
    assert victim.read_text() == "mine"
    assert not (run.checkpoints / "latest").is_symlink()


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b"[]",
        b"7",
        b'{"run_id": 1, "name": "a", "started": "2026-11-22T00:00:00Z", "status": "FINISHED"}',
        b'{"run_id": "r", "name": "a", "started": "2026-11-22T00:00:00Z", "status": "DONE"}',
        b'{"run_id": "r", "name": "a\\u001b[2Jb", "started": "2026-11-22T00:00:00Z", "status": "FINISHED"}',
        b'{"run_id": "r", "name": "../../etc", "started": "2026-11-22T00:00:00Z", "status": "FINISHED"}',
        b"\xff\xfe",
        b" " * (17 << 20),
    ],
    ids=["deep", "list", "number", "types", "status", "escape-sequence", "path", "not-utf8", "huge"],
)
def test_run_record_that_is_garbage_hides_no_other_run(run, content):
    """A damaged record is named, and the runs beside it are still found."""
    bad, _ = create_run(run.directory.parent, "b", datetime(2026, 11, 23, tzinfo=UTC), Storage())
    bad.record.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        read_record(bad)
    found, unreadable = read_runs(run.directory.parent)
    assert [layout.directory for layout, _ in found] == [run.directory]
    assert [item.directory for item in unreadable] == [bad.directory]


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_run_record_that_is_no_file_hides_no_other_run(run, make):
    """Nor does a pipe, a directory or a device in its place."""
    bad, _ = create_run(run.directory.parent, "b", datetime(2026, 11, 23, tzinfo=UTC), Storage())
    bad.record.unlink()
    make(bad.record)
    assert [layout.directory for layout, _ in find_runs(run.directory.parent)] == [run.directory]


def test_lock_that_is_a_link_is_refused_and_its_target_kept(run, tmp_path):
    """Taking a lock empties the file: a link to somebody's own file must not be followed."""
    victim = tmp_path / "authorized_keys"
    victim.write_text("mine")
    run.lock.symlink_to(victim)
    assert not is_locked(run.lock)
    with pytest.raises(UserError, match="is not a lock file"), hold_lock(run.lock):
        pass
    assert victim.read_text() == "mine"


def test_lock_that_is_a_second_name_is_refused_and_its_target_kept(run, tmp_path):
    """A hard link is told by its count of names."""
    victim = tmp_path / "authorized_keys"
    victim.write_text("mine")
    os.link(victim, run.lock)
    with pytest.raises(UserError) as caught, hold_lock(run.lock):
        pass
    assert "hard link" in caught.value.why
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_lock_that_is_no_file_is_refused(run, make):
    """A pipe is not waited for."""
    make(run.lock)
    assert not is_locked(run.lock)
    with pytest.raises(UserError, match="is not a lock file"), hold_lock(run.lock):
        pass

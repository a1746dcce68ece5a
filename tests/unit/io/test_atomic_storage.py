"""Files are whole or absent, private, and digested by known values."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from codex_ml.io.atomic import Storage, bytes_digest, file_digest, json_bytes


class FullDisk(Storage):
    """Writes half of the data and then finds the disk full."""

    def write_bytes(self, path: Path, data: bytes) -> None:
        """Leave a torso and fail."""
        super().write_bytes(path, data[: len(data) // 2])
        raise OSError(28, "No space left on device")


class NoRename(Storage):
    """Cannot rename."""

    def replace(self, source: Path, target: Path) -> None:
        """Fail."""
        raise OSError(5, f"cannot rename {source.name} to {target.name}")


class Recording(Storage):
    """Notes the order of operations."""

    def __init__(self) -> None:
        self.operations: list[str] = []

    def write_bytes(self, path: Path, data: bytes) -> None:
        """Note and write."""
        self.operations.append("write")
        super().write_bytes(path, data)

    def replace(self, source: Path, target: Path) -> None:
        """Note and rename."""
        self.operations.append("replace")
        super().replace(source, target)

    def fsync_directory(self, path: Path) -> None:
        """Note and sync."""
        self.operations.append("fsync_directory")
        super().fsync_directory(path)


@pytest.mark.parametrize("storage", [FullDisk(), NoRename()])
def test_write_atomic_failing_leaves_old_content_and_no_partial_file(storage: Storage, tmp_path: Path) -> None:
    """A failed write or rename changes nothing and leaves nothing behind."""
    path = tmp_path / "state.json"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match=r"device|rename"):
        storage.write_atomic(path, b"new content")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_write_atomic_order_is_write_rename_sync(tmp_path: Path) -> None:
    """The content is on disk before its name is, and the name is synced last."""
    storage = Recording()
    storage.write_atomic(tmp_path / "a", b"1")
    assert storage.operations == ["write", "replace", "fsync_directory"]


def test_write_atomic_new_file_is_private(tmp_path: Path) -> None:
    """Whatever the umask, only the owner may read what a run writes."""
    old = os.umask(0)
    try:
        Storage().write_atomic(tmp_path / "a", b"1")
        Storage().make_directory(tmp_path / "d")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700


class Slow(Storage):
    """Takes three bytes at once, as a kernel may."""

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Write the beginning."""
        return super().write(descriptor, data[:3])


class Syncing(Storage):
    """Notes which directories were forced to the disk."""

    def __init__(self) -> None:
        self.synced: list[str] = []

    def fsync_directory(self, path: Path) -> None:
        """Note and sync."""
        self.synced.append(path.name)
        super().fsync_directory(path)


def test_write_bytes_taken_in_pieces_is_written_whole(tmp_path: Path) -> None:
    """What the kernel did not take at once is offered again."""
    Slow().write_bytes(tmp_path / "a", b"twelve bytes")
    assert (tmp_path / "a").read_bytes() == b"twelve bytes"


def test_fsync_reaches_the_kernel() -> None:
    """A pipe cannot be forced to a disk, and only the kernel knows that it is one."""
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            Storage().fsync(writing)
    finally:
        os.close(reading)
        os.close(writing)


def test_make_directory_with_parents_syncs_every_directory_that_got_a_name(tmp_path: Path) -> None:
    """Each new name is forced to the disk, from the top; of one that was there its own name."""
    storage = Syncing()
    storage.make_directory(tmp_path / "a" / "b" / "c")
    assert storage.synced == [tmp_path.name, "a", "b"]
    storage.make_directory(tmp_path / "a" / "b" / "c")
    assert storage.synced[3:] == ["b"]


def test_make_directory_where_a_file_lies_is_an_error(tmp_path: Path) -> None:
    """A file in the way is not taken for a directory."""
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(FileExistsError):
        Storage().make_directory(tmp_path / "a")


def test_write_bytes_over_longer_file_leaves_only_the_new(tmp_path: Path) -> None:
    """Nothing of a longer predecessor remains."""
    Storage().write_bytes(tmp_path / "a", b"long content")
    Storage().write_bytes(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"


@pytest.mark.parametrize("value", [float("nan"), {"a": [float("inf")]}])
def test_write_json_non_finite_is_refused_and_writes_nothing(value: object, tmp_path: Path) -> None:
    """NaN is no JSON; other readers would choke on it."""
    with pytest.raises(ValueError, match="JSON compliant"):
        Storage().write_json(tmp_path / "a.json", value)
    assert list(tmp_path.iterdir()) == []


def test_json_bytes_non_ascii_stays_readable() -> None:
    """Text is UTF-8, indented, with a final newline."""
    assert json_bytes({"a": "Köln"}) == '{\n  "a": "Köln"\n}\n'.encode()


def test_digests_known_values_are_those_of_sha256(tmp_path: Path) -> None:
    """FIPS 180-2 test vectors, and a file read in several pieces."""
    known = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert bytes_digest(b"abc") == known
    (tmp_path / "a").write_bytes(b"a" * 1_000_000)
    assert file_digest(tmp_path / "a") == "sha256:cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    (tmp_path / "b").write_bytes(b"a" * 3_000_000)
    assert file_digest(tmp_path / "b") == bytes_digest(b"a" * 3_000_000)


def test_free_bytes_existing_directory_is_what_the_system_says(tmp_path: Path) -> None:
    """Free space is that of an unprivileged user."""
    statistics = os.statvfs(tmp_path)
    free = statistics.f_bavail * statistics.f_frsize
    assert abs(Storage().free_bytes(tmp_path) - free) < 2**28


def test_remove_tree_directory_with_files_is_gone(tmp_path: Path) -> None:
    """A tree is removed with all it holds."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"1")
    Storage().remove_tree(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []

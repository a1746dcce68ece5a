"""Output of a split: a staging directory that becomes the target complete or not at all, and the files in it."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from codex_ml.data.readers.files import Background
from codex_ml.errors import DataError, no_room
from codex_ml.io.atomic import Storage, make_locked_directory, remove_abandoned, staged_path, staged_pattern

_CHUNK_BYTES = 1 << 20


def refuse_foreign(target: Path, names: Collection[str]) -> None:
    """Stop when there is something at ``target`` that is not the expected directory.

    Raises
    ------
    DataError
        If it is no directory, or holds other names.
    """
    if not os.path.lexists(target):
        return
    if not target.is_dir() or {item.name for item in target.iterdir()} not in (set(), set(names)):
        raise _something_else(target)


@contextmanager
def staging(target: Path, storage: Storage) -> Iterator[Path]:
    """Give a private directory beside ``target``, on its filesystem, and remove it in the end with all that is in it.

    One that a killed process left for the same target is removed first: its lock ended with the process.

    Raises
    ------
    DataError
        If it cannot be made.
    """
    missing = [parent for parent in target.parents if not parent.exists()]
    root = staged_path(target)
    try:
        storage.make_directory(target.parent)
        remove_abandoned(target.parent, staged_pattern(target), storage)
        descriptor = make_locked_directory(root, storage)
        storage.fsync_directory(target.parent)
    except OSError as error:
        if no_room(error) is not None:
            raise
        raise DataError(
            f"{target} cannot be made",
            why=f"{error.filename or target.parent}: {error.strerror}",
            fix="name a directory in which you may write",
            code="OUTPUT_DIRECTORY_NOT_CREATED",
        ) from error
    try:
        yield root
    finally:
        os.close(descriptor)
        storage.remove_tree(root)
        for parent in missing:
            # Made for the target alone; where that has come to be, it is not empty.
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


def put_in_place(made: Path, target: Path, storage: Storage) -> bool:
    """Force a finished directory of plain files to the disk and rename it to ``target``.

    Returns
    -------
    bool
        False if equal files exist already, and nothing was done.

    Raises
    ------
    DataError
        If something else lies there.
    """
    files = sorted(made.iterdir())
    refuse_foreign(target, [file.name for file in files])
    if target.is_dir() and any(target.iterdir()):
        if all(_same_bytes(file, target / file.name) for file in files):
            return False
        raise _something_else(target)
    for file in files:
        storage.fsync_file(file)
    storage.fsync_directory(made)
    storage.replace(made, target)
    storage.fsync_directory(target.parent)
    return True


def _something_else(target: Path) -> DataError:
    return DataError(
        f"{target} exists and holds something else",
        why="a split is never written over",
        fix="name another directory",
        code="OUTPUT_EXISTS",
    )


def _same_bytes(first: Path, second: Path) -> bool:
    if not second.is_file():
        return False
    with first.open("rb") as one, second.open("rb") as other:
        while True:
            left, right = one.read(_CHUNK_BYTES), other.read(_CHUNK_BYTES)
            if left != right:
                return False
            if not left:
                return True


_BUFFER_BYTES = 1 << 18
_HASHES_AT_ONCE = 1 << 13


class SplitOutput:
    """A file that is written once, with its count, size and digest; all three are complete when it is closed."""

    def __init__(self, path: Path, background: Background) -> None:
        self._path = path
        self._background = background
        self._hasher = hashlib.sha256()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self.records = self.byte_count = 0

    def __enter__(self) -> SplitOutput:
        self._handle: BinaryIO = self._path.open("wb", buffering=0)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._handle.close()

    def write(self, record: bytes) -> None:
        """Take one line."""
        self._pending.append(record)
        self._pending_bytes += len(record)
        if self._pending_bytes >= _BUFFER_BYTES:
            self._hand_over()

    def close(self) -> None:
        """Write the rest and wait until all is written."""
        self._hand_over()
        self._background.finish()
        self._handle.close()

    @property
    def digest(self) -> str:
        """SHA-256 of what was written."""
        return f"sha256:{self._hasher.hexdigest()}"

    def _hand_over(self) -> None:
        self.records += len(self._pending)
        self.byte_count += self._pending_bytes
        self._background.call(self._write_through, b"".join(self._pending))
        self._pending.clear()
        self._pending_bytes = 0

    def _write_through(self, data: bytes) -> None:
        self._hasher.update(data)
        content = memoryview(data)
        # The system may take less than it is given when the disk is nearly full; it refuses the rest.
        while content:
            content = content[self._handle.write(content) :]


class WaitingRecords:
    """Checked records in the order of the source, each with its hash, on disk until it is known where they go."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hashes = array("Q")

    def __enter__(self) -> WaitingRecords:
        self._lines: BinaryIO = self._path.open("w+b", buffering=_BUFFER_BYTES)
        self._hash_file: BinaryIO = self._path.with_suffix(".hashes").open("w+b")
        return self

    def __exit__(self, *_exception: object) -> None:
        self._lines.close()
        self._hash_file.close()

    def write(self, hash_value: int, record: bytes) -> None:
        """Take one line."""
        self._lines.write(record)
        self._hashes.append(hash_value)
        if len(self._hashes) >= _HASHES_AT_ONCE:
            self._hashes.tofile(self._hash_file)
            self._hashes = array("Q")

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        self._hashes.tofile(self._hash_file)
        self._lines.seek(0)
        self._hash_file.seek(0)
        while chunk := self._hash_file.read(_HASHES_AT_ONCE * self._hashes.itemsize):
            for hash_value in array("Q", chunk):
                yield hash_value, self._lines.readline()

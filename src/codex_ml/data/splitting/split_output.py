"""Where the lines of a split go: into its file, or to wait on disk until it is known into which."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from codex_ml.data.reading.background import Background

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

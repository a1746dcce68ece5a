"""A file of lines written once, plain or packed by its name, with its size and digest; memory does not grow with it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from codex_ml.data.dataset import packer_for
from codex_ml.data.readers.compressed import MAX_RATIO, RATIO_COUNTS_FROM_BYTES
from codex_ml.errors import DataError
from codex_ml.io.atomic import Storage

_BUFFER_BYTES = 1 << 18


class LineOutput:
    """A new file that takes bytes one after the other; use it as a context manager.

    Parameters
    ----------
    path : Path
        The file to be made, under the name it has while it is written.
    target : Path
        The name it will have; its ending decides whether the bytes are packed.
    storage : Storage
        The disk.
    """

    def __init__(self, path: Path, target: Path, storage: Storage) -> None:
        self.byte_count = 0
        self._given_bytes = 0
        self._path = path
        self._target = target
        self._storage = storage
        self._packer = packer_for(target)
        self._hasher = hashlib.sha256()
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def __enter__(self) -> LineOutput:
        self._descriptor = self._storage.open_file(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self._descriptor)

    def write(self, data: bytes) -> None:
        """Take some bytes."""
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes >= _BUFFER_BYTES:
            self._hand_over()

    def finish(self) -> str:
        """Write the rest, force it to the disk, and return the digest of the file (SHA-256).

        Raises
        ------
        DataError
            If it packed so well that our own reader would take it for a file that is made to fill disks.
        """
        self._hand_over()
        self._write_through(self._packer.flush())
        if self._given_bytes > max(RATIO_COUNTS_FROM_BYTES, MAX_RATIO * self.byte_count):
            raise DataError(
                f"{self._target.name}: {self._given_bytes:,} bytes packed into {self.byte_count:,} are not read again",
                why=f"a packed file that holds more than {MAX_RATIO} times its size may be made to fill disks",
                fix="name a file that is not packed: one in .jsonl",
                code="OUTPUT_READBACK_FAILED",
            )
        self._storage.fsync(self._descriptor)
        return f"sha256:{self._hasher.hexdigest()}"

    def _hand_over(self) -> None:
        self._given_bytes += self._pending_bytes
        self._write_through(self._packer.compress(b"".join(self._pending)))
        self._pending.clear()
        self._pending_bytes = 0

    def _write_through(self, data: bytes) -> None:
        self._hasher.update(data)
        self.byte_count += len(data)
        left = memoryview(data)
        # The system may take less than it is given when the disk is nearly full; it refuses the rest.
        while left:
            left = left[self._storage.write(self._descriptor, left) :]

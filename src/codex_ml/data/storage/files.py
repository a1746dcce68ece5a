"""The files under a token cache: written once with their checksums, and mapped for reading."""

from __future__ import annotations

import hashlib
import mmap
import os
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

from codex_ml.io.atomic import Storage
from codex_ml.io.untrusted import open_regular

_CHUNK_BYTES = 1 << 20


class CacheError(Exception):
    """Why the cache is of no use right now; never the reason that a run ends."""


class DamagedEntryError(CacheError):
    """An entry that is not what was written."""


class FileRecord(NamedTuple):
    """What a file held when it was written: size, CRC-32 (a changed byte, at 1.7 GB/s) and SHA-256 (a forged one)."""

    bytes: int
    crc32: int
    sha256: str


class FileSink:
    """Writes a file of the cache, private, piece by piece.

    Parameters
    ----------
    path : Path
        The file, which must not be there.
    storage : Storage
        The disk.

    Raises
    ------
    CacheError
        If it cannot be made.
    """

    def __init__(self, path: Path, storage: Storage) -> None:
        self._storage = storage
        try:
            self._descriptor: int | None = storage.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except OSError as error:
            raise CacheError(f"{path.name}: {error.strerror or error}") from error
        self._name = path.name
        self._bytes = self._crc32 = 0
        self._sha256 = hashlib.sha256()

    def write(self, data: bytes, /) -> None:
        """Take the next bytes.

        Raises
        ------
        CacheError
            If the disk does not take them.
        """
        assert self._descriptor is not None, "a file that is finished takes nothing"
        self._crc32 = zlib.crc32(data, self._crc32)
        self._sha256.update(data)
        self._bytes += len(data)
        left = memoryview(data)
        try:
            while left:
                left = left[self._storage.write(self._descriptor, left) :]
        except OSError as error:
            raise CacheError(f"{self._name}: {error.strerror or error}") from error

    def finish(self) -> FileRecord:
        """Force the file to the disk, close it, and return what it holds.

        Raises
        ------
        CacheError
            If the disk does not take it.
        """
        assert self._descriptor is not None, "a file is finished once"
        try:
            self._storage.fsync(self._descriptor)
        except OSError as error:
            raise CacheError(f"{self._name}: {error.strerror or error}") from error
        finally:
            self.close()
        return FileRecord(self._bytes, self._crc32, self._sha256.hexdigest())

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def map_file(path: Path, written: FileRecord | None = None, fully: bool = False) -> mmap.mmap | bytes:
    """Return the bytes of a file, mapped; the mapping outlives the file's name.

    Parameters
    ----------
    path : Path
        The file.
    written : FileRecord, optional
        What it must hold; it is read to its end for that, and not into the memory of this process.
    fully : bool
        Whether to compare SHA-256 in addition to CRC-32.

    Raises
    ------
    ValueError
        If it is no regular file.
    DamagedEntryError
        If it does not hold what was written.
    OSError
        If it cannot be opened or read.
    """
    with open_regular(path, follow_links=False) as handle:
        if written is not None and (fault := _fault_of(handle, written, fully)) is not None:
            raise DamagedEntryError(f"{path.name}: {fault}")
        # Nothing cannot be mapped.
        empty = os.fstat(handle.fileno()).st_size == 0
        return b"" if empty else mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)


def _fault_of(handle: BinaryIO, written: FileRecord, fully: bool) -> str | None:
    """Return what is wrong with the bytes of a file; None where they are those that were written."""
    size = os.fstat(handle.fileno()).st_size
    if size != written.bytes:
        return f"it has {size} bytes instead of {written.bytes}"
    crc32, sha256 = 0, hashlib.sha256()
    while chunk := handle.read(_CHUNK_BYTES):
        crc32 = zlib.crc32(chunk, crc32)
        if fully:
            sha256.update(chunk)
    if crc32 != written.crc32 or (fully and sha256.hexdigest() != written.sha256):
        return "a byte of it changed"
    return None

"""Data files opened by format, read in the background in blocks of lines."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Protocol

from codex_ml.data.readers.format_detection import look_of_file
from codex_ml.errors import DataError
from codex_ml.io.untrusted import UntrustedFileError, kind_of, open_regular

_SUFFIXES_LISTED = frozenset({".jsonl", ".ndjson", ".json", ".gz", ".zst", ".parquet", ".csv", ".tsv", ".arrow"})
_FIX_EMPTY = "give a file that holds records: JSON Lines with one object a line, or a table with rows"


class DataFile:
    """A file that is read once from its beginning; use it as a context manager.

    Parameters
    ----------
    path : Path
        The file.
    background : Background
        Hashes beside the reading.

    Raises
    ------
    DataError
        If it is absent, no regular file, cannot be read, or grows or changes while it is read.
    """

    def __init__(self, path: Path, background: Background) -> None:
        self.name = path.name
        self.byte_count = 0
        self._hasher = hashlib.sha256()
        self._background = background
        self._handle = open_data_file(path)
        self._before = os.fstat(self._handle.fileno())

    def __enter__(self) -> DataFile:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._handle.close()

    def read(self, size: int) -> bytes:
        """Return the next bytes, none at the end."""
        try:
            block = self._handle.read(size)
        except OSError as error:
            raise DataError(
                f"{self.name} cannot be read beyond byte {self.byte_count}",
                why=error.strerror or str(error),
                fix="copy it from a sound disk, and name the copy",
                code="FILE_UNREADABLE",
            ) from error
        self.byte_count += len(block)
        # Files of the kernel say that they are empty. Any other is read no further than it was when it was opened:
        # a writer may be faster than the reader.
        if self.byte_count > self._before.st_size > 0:
            raise self._changed()
        self._background.call(self._hasher.update, block)
        return block

    def finish(self) -> str:
        """Return the digest of all that was read (SHA-256), after the last byte."""
        self._background.finish()
        after = os.fstat(self._handle.fileno())
        if (after.st_size, after.st_mtime_ns) != (self._before.st_size, self._before.st_mtime_ns):
            raise self._changed()
        return f"sha256:{self._hasher.hexdigest()}"

    @property
    def descriptor(self) -> int:
        """Descriptor of the open file, for a process that reads it from its beginning."""
        return self._handle.fileno()

    def _changed(self) -> DataError:
        return DataError(
            f"{self.name} changed while it was read",
            why="records may be cut in half or missing, and its digest is that of no file",
            fix="try again when nothing writes to it, or name a copy",
            code="DATA_FILE_CHANGED",
        )


def open_data_file(path: Path) -> BinaryIO:
    """Open a data file for reading.

    Raises
    ------
    DataError
        If it is absent, a directory, a pipe, a device or a socket, or may not be read.
    """
    try:
        if path.is_dir():
            raise DataError(
                f"{path} is a directory, not a file of records",
                why=where(path),
                fix="name one of its files",
                code="FILE_IS_DIRECTORY",
            )
        if not path.exists():
            raise _absent(path)
        # A socket cannot even be opened to see what it is.
        if (kind := kind_of(path.stat().st_mode)) is not None:
            raise UntrustedFileError(f"it is {kind}")
        return open_regular(path)
    except UntrustedFileError as error:
        raise DataError(
            f"{path} is not read", why=str(error), fix="write it into a file, and name that", code="FILE_NOT_REGULAR"
        ) from error
    except (OSError, ValueError) as error:
        # A name with a zero byte is a ValueError.
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise DataError(
            f"{path} cannot be read", why=why, fix="check the path and its permissions", code="FILE_UNREADABLE"
        ) from error


def _absent(path: Path) -> DataError:
    if path.is_symlink():
        return DataError(
            f"{path} is a symbolic link that leads to no file",
            why=f"it leads to {path.readlink()}",
            fix="correct the link, or name the file itself",
            code="FILE_BROKEN_LINK",
        )
    return DataError(
        f"{path} does not exist", why=where(path), fix="correct the path, or make the file", code="FILE_NOT_FOUND"
    )


def state_of(path: Path) -> tuple[int, int, int] | None:
    """Return what tells that a file was written to or replaced; None for one that is absent, which its reader says."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


class FirstLook:
    """Looks at the first block of a file before any line of it is read, and refuses what is of another format."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._looked = False

    def __call__(self, block: bytes) -> None:
        """Take one block.

        Raises
        ------
        DataError
            With what it looks like and what to do.
        """
        if self._looked:
            return
        self._looked = True
        look = look_of_file(block)
        if look is not None:
            raise DataError(
                f"{self._name}:1: this looks like {look.name}, not JSON Lines",
                why=look.why,
                fix=look.fix,
                code="DATA_WRONG_FILE_TYPE",
            )


def no_record(path: Path) -> DataError:
    """Return the error for a file that is empty or holds empty lines only."""
    return DataError(f"{path.name}: the file holds no record", why=where(path), fix=_FIX_EMPTY, code="DATA_FILE_EMPTY")


def where(path: Path) -> str:
    """Say what lies at, or nearest above, a path."""
    if path.is_file():
        return f"{path} has {path.stat().st_size} bytes"
    directory = path
    while not directory.is_dir():
        directory = directory.parent
    try:
        names = sorted(item.name for item in directory.iterdir() if item.suffix in _SUFFIXES_LISTED)
    except OSError as error:
        return f"{directory}: {error.strerror}"
    listed = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"{directory} holds {listed}" if names else f"{directory} holds no .jsonl file"


# So much is worth handing to another thread.
_LARGE_BYTES = 1 << 16
_MOST_AHEAD = 4


class Background:
    """Gives pieces of bytes to functions, one after the other in the order of the calls, in a thread of its own.

    A few pieces wait at most, so memory is bounded. What a function raises is raised by a later call or by `finish`.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="codex-ml-data")
        self._ahead: deque[Future[object]] = deque()

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def call(self, function: Callable[[bytes], object], data: bytes) -> None:
        """Have ``function(data)`` called after all that was asked for before."""
        if len(data) < _LARGE_BYTES and not self._ahead:
            function(data)
            return
        while len(self._ahead) >= _MOST_AHEAD:
            self._ahead.popleft().result()
        self._ahead.append(self._executor.submit(function, data))

    def finish(self) -> None:
        """Wait until all is done."""
        while self._ahead:
            self._ahead.popleft().result()


_BLOCK_BYTES = 1 << 18
# A line that is too long is read to its end, so that all such lines can be named; one this long has none.
_LONGEST_PASSED_BYTES = 1 << 30


class ByteStream(Protocol):
    """Bytes that are read from the beginning to the end."""

    def read(self, size: int, /) -> bytes:
        """Return about this many bytes, none at the end."""
        ...


def lines_of(
    handle: ByteStream, on_block: Callable[[bytes], object], max_line_bytes: int
) -> Iterator[tuple[int, bytes | None, bytes]]:
    r"""Yield the offset of each line, its bytes without the line end, and the line end (``\n``, ``\r\n`` or nothing).

    Parameters
    ----------
    handle : ByteStream
        Read from its position to its end.
    on_block : callable
        Takes every byte that is read, in blocks, before the lines in it are yielded.
    max_line_bytes : int
        A longer line is not kept: None replaces its bytes.

    Raises
    ------
    DataError
        If a line is longer than a gigabyte: the rest is not read.
    """
    offset = passed_bytes = 0
    begun = b""
    while block := handle.read(_BLOCK_BYTES):
        on_block(block)
        text = begun + block
        lines = text.split(b"\n")
        begun = lines.pop()
        if not passed_bytes and len(text) <= max_line_bytes and b"\r" not in text:
            # So it is with nearly every block: nothing in it needs a second look.
            for line in lines:
                yield offset, line, b"\n"
                offset += len(line) + 1
            continue
        for line in lines:
            if passed_bytes:
                yield offset, None, b"\n"
                offset += passed_bytes
                passed_bytes = 0
            else:
                raw, line_end = (line[:-1], b"\r\n") if line[-1:] == b"\r" else (line, b"\n")
                yield offset, raw if len(raw) <= max_line_bytes else None, line_end
            offset += len(line) + 1
        # One byte more may be the first half of a line end.
        if passed_bytes or len(begun) > max_line_bytes + 1:
            passed_bytes += len(begun)
            begun = b""
            if passed_bytes > _LONGEST_PASSED_BYTES:
                name = getattr(handle, "name", "data")
                raise DataError(
                    f"{name}: the line at byte {offset} is longer than {_LONGEST_PASSED_BYTES} bytes",
                    why="this is no file of JSON Lines, and reading it to its end may take days",
                    fix="give a file with one JSON object a line",
                    code="DATA_LINE_TOO_LONG",
                )
    if passed_bytes or begun:
        yield offset, None if passed_bytes or len(begun) > max_line_bytes else begun, b""

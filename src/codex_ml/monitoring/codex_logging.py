"""NDJSON files that grow line by line: whole lines only, redacted first, rotated by size, never deleted.

``metrics.ndjson`` is the current file. When the next line would pass ``max_bytes`` it is renamed to
``metrics.ndjson.N`` with N one above the highest number there is, so ``.1`` is the oldest and the numbers never move.
Flush policy: each line is handed to the kernel at once, so it survives a kill of the process. It survives a power
failure once it was forced to the disk: by `NdjsonWriter.sync` (training calls it before each checkpoint, so that no
step up to a checkpoint's is missing beside it), by a rotation, and by `NdjsonWriter.close`.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import itertools
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from codex_ml.errors import EXIT_DONE, CodexError, DiskSpaceError, UserError, no_room
from codex_ml.io.atomic import Storage
from codex_ml.io.clock import format_time, utc_now
from codex_ml.io.terminal import open_standard_streams, visible, write_message
from codex_ml.io.untrusted import parse_json
from codex_ml.monitoring.dependencies import DependencyStatus, probe_dependencies
from codex_ml.monitoring.json_values import plain_json
from codex_ml.monitoring.system import sample

SCHEMA_VERSION = 1
DEFAULT_MAX_BYTES = 10 * 1024 * 1024
# Lines of the toolkit are far shorter; a line of an untrusted file may never end.
MAX_LINE_BYTES = 16 << 20
RESERVED_KEYS = ("schema_version", "time", "non_finite")
_TAIL_CHUNK_BYTES = 64 * 1024


def no_redaction(value: Any) -> Any:
    """Return the value as it is: only for records of numbers and names that the toolkit made itself."""
    return value


class NdjsonWriter:
    """The one writer of one NDJSON file and its rotated predecessors.

    Parameters
    ----------
    path : Path
        The current file; its directory must exist. A line cut by a kill at its end is removed on opening.
    max_bytes : int
        Size that no file passes, unless a single line is longer than that.
    redact : callable
        Gets a plain copy of each record (nested JSON values) and returns what may be written. There is no default:
        the caller decides. When it raises, nothing is written.
    clock : callable
        Gives the time stamped on each line.
    storage : Storage
        Opens, writes, cuts, renames and fsyncs.
    then : str
        What to do when the file can grow again, for the error that says that it cannot.

    Raises
    ------
    UserError
        If another writer has the file open.
    """

    def __init__(
        self,
        path: Path,
        max_bytes: int = DEFAULT_MAX_BYTES,
        *,
        redact: Callable[[Any], Any],
        clock: Callable[[], datetime] = utc_now,
        storage: Storage | None = None,
        then: str = "and run the command again",
    ) -> None:
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        self.path = path
        self._max_bytes = max_bytes
        self._redact = redact
        self._clock = clock
        self._storage = storage if storage is not None else Storage()
        self._then = then
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._size_bytes = 0
        self._open()

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record as one line: ``schema_version``, ``time``, then the record's own keys.

        The record is copied, never changed. A float that JSON cannot hold is written as null and named under
        ``non_finite`` (``{"loss": "nan"}``).

        Raises
        ------
        ValueError
            If the writer is closed, or the record has a key that the writer sets itself.
        TypeError
            If the record holds a value that is not JSON.
        DiskSpaceError, OSError
            If the line cannot be written whole; the file is then cut back to its last whole line.
        """
        line = self._line_of(record)
        with self._lock:
            if self._descriptor is None:
                raise ValueError(f"{self.path.name} is closed")
            if self._size_bytes and self._size_bytes + len(line) > self._max_bytes:
                self._rotate()
            self._append(self._descriptor, line)

    def sync(self) -> None:
        """Force what was written to the disk."""
        with self._lock:
            if self._descriptor is not None:
                self._storage.fsync(self._descriptor)

    def close(self) -> None:
        """Force what was written to the disk and close the file; a second call does nothing."""
        with self._lock:
            if self._descriptor is not None:
                descriptor, self._descriptor = self._descriptor, None
                try:
                    self._storage.fsync(descriptor)
                finally:
                    # A process that another thread has just forked still has the file open, and with it the lock.
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
                    os.close(descriptor)

    def truncate_after_step(self, step: int) -> int:
        """Remove the lines with a ``step`` above the given one while the file is open; see `truncate_after_step`."""
        self.close()
        removed = truncate_after_step(self.path, step, storage=self._storage)
        with self._lock:
            self._open()
        return removed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _line_of(self, record: Mapping[str, Any]) -> bytes:
        copy, non_finite = plain_json(record)
        redacted, introduced = plain_json(self._redact(copy))
        if not isinstance(redacted, dict):
            raise TypeError(f"redact turned a record into {type(redacted).__name__}")
        taken = [key for key in RESERVED_KEYS if key in redacted]
        if taken:
            raise ValueError(f"a record may not set {', '.join(taken)}: the writer does")
        whole = {"schema_version": SCHEMA_VERSION, "time": format_time(self._clock()), **redacted}
        if non_finite or introduced:
            whole["non_finite"] = {**non_finite, **introduced}
        return _encode(whole)

    def _open(self) -> None:
        descriptor = self._storage.open_file(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            # The kernel lets go of this lock when the process dies, however it dies.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A file that this call made must keep its name, or its lines would be forced to the disk in vain.
            self._storage.fsync_directory(self.path.parent)
            self._size_bytes = _cut_torn_tail(descriptor, self._storage)
        except BlockingIOError as error:
            os.close(descriptor)
            raise UserError(
                f"{self.path} is being written by another writer",
                why="two writers would rotate each other's lines away",
                fix="wait for the other run to end, or use another run directory",
                code="RUN_IN_PROGRESS",
            ) from error
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _append(self, descriptor: int, line: bytes) -> None:
        # Queried again: an interrupt (Ctrl-C) between the write and the count below would leave a stale size.
        self._size_bytes = os.fstat(descriptor).st_size
        try:
            rest = line
            while rest:
                # The kernel writes a part of a line when the disk is full; the next write gets the error.
                written = self._storage.write(descriptor, rest)
                if not written:
                    raise OSError(errno.ENOSPC, f"{len(rest)} of {len(line)} bytes were not written")
                rest = rest[written:]
        except OSError as error:
            self._storage.truncate(descriptor, self._size_bytes)
            limit = no_room(error)
            if limit is None:
                raise
            raise DiskSpaceError(
                f"{self.path} cannot grow any further",
                why=f"{limit.problem} ({error.strerror or error})",
                fix=f"{limit.fix}, {self._then}",
                code="DISK_LIMIT",
            ) from error
        self._size_bytes += len(line)

    def _rotate(self) -> None:
        if self._descriptor is None:
            raise ValueError(f"{self.path.name} is closed")
        self._storage.fsync(self._descriptor)
        highest = max((number for number, _ in _rotated_files(self.path)), default=0)
        self._storage.replace(self.path, self.path.with_name(f"{self.path.name}.{highest + 1}"))
        os.close(self._descriptor)
        self._descriptor = None
        self._open()


def write_ndjson(
    path: Path,
    record: Mapping[str, Any],
    *,
    redact: Callable[[Any], Any],
    max_bytes: int = DEFAULT_MAX_BYTES,
    clock: Callable[[], datetime] = utc_now,
    storage: Storage | None = None,
) -> None:
    """Append one record to an NDJSON file and force it to the disk; see `NdjsonWriter` for many records."""
    with NdjsonWriter(path, max_bytes, redact=redact, clock=clock, storage=storage) as writer:
        writer.write(record)


def ndjson_files(path: Path) -> list[Path]:
    """Return the rotated files and the current one, oldest first, as far as they exist."""
    files = [file for _, file in sorted(_rotated_files(path))]
    return [*files, path] if path.exists() else files


def read_ndjson(path: Path) -> Iterator[dict[str, Any]]:
    """Yield every record of a file and its rotated predecessors, oldest first.

    A last line without its newline is still being written, or was cut by a kill: it is not a record yet.

    Raises
    ------
    UserError
        If a whole line is not a JSON object; the message names file and line.
    """
    for file in ndjson_files(path):
        for number, line in enumerate(_whole_lines(file), start=1):
            yield _decode(line, file, number)


def truncate_after_step(path: Path, step: int, *, storage: Storage | None = None) -> int:
    """Cut NDJSON back to a checkpoint: remove every line whose ``step`` is above the given one.

    Lines without a step stay. Each file is replaced atomically, newest first, and a rotated file that holds no line
    any more is removed; killed half-way, the same call finishes the work.

    Parameters
    ----------
    path : Path
        The current file; no writer may have it open.
    step : int
        Optimizer step of the checkpoint that the run resumes from.
    storage : Storage, optional
        Writes the shortened files and deletes the empty ones.

    Returns
    -------
    int
        How many lines were removed.
    """
    storage = storage if storage is not None else Storage()
    removed = 0
    for file in reversed(ndjson_files(path)):
        lines = list(_whole_lines(file))
        kept = [line for number, line in enumerate(lines, start=1) if not _is_after(_decode(line, file, number), step)]
        if len(kept) == len(lines):
            continue
        removed += len(lines) - len(kept)
        if kept or file == path:
            storage.write_atomic(file, b"".join(kept))
        else:
            storage.unlink(file)
    return removed


def _is_after(record: Mapping[str, Any], step: int) -> bool:
    recorded = record.get("step")
    return isinstance(recorded, int) and recorded > step


def _rotated_files(path: Path) -> Iterator[tuple[int, Path]]:
    prefix = f"{path.name}."
    for file in path.parent.iterdir():
        suffix = file.name.removeprefix(prefix)
        if file.name.startswith(prefix) and suffix.isascii() and suffix.isdigit() and not suffix.startswith("0"):
            yield int(suffix), file


def _whole_lines(path: Path) -> Iterator[bytes]:
    # A binary file is cut at \n only; str.splitlines would also cut inside a value at U+2028 and the like.
    with path.open("rb") as handle:
        for number in itertools.count(1):
            line = handle.readline(MAX_LINE_BYTES + 1)
            if len(line) > MAX_LINE_BYTES:
                what = f"{path}:{number}: longer than {MAX_LINE_BYTES} bytes"
                raise UserError(what, why="no line of a run is", code="FILE_LINE_TOO_LONG")
            if not line.endswith(b"\n"):
                return
            yield line


def _decode(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = parse_json(line, strict=False)
    except ValueError as error:
        raise UserError(f"{path}:{number}: not a JSON object", why=str(error), code="FILE_NOT_NDJSON") from error
    if not isinstance(record, dict):
        why = f"it is a JSON {type(record).__name__}"
        raise UserError(f"{path}:{number}: not a JSON object", why=why, code="FILE_NOT_NDJSON")
    return record


def _encode(record: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
    except UnicodeEncodeError:
        # A lone surrogate (from a file name that is not UTF-8) has no UTF-8 form, but it has a JSON escape.
        return (json.dumps(record, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


def _cut_torn_tail(descriptor: int, storage: Storage) -> int:
    """Cut the file back to its last newline and return its size in bytes."""
    size = os.fstat(descriptor).st_size
    end = size
    while end > 0:
        start = max(0, end - _TAIL_CHUNK_BYTES)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end != size:
        storage.truncate(descriptor, end)
    return end


def telemetry_status(statuses: Sequence[DependencyStatus]) -> str:
    """Return one line a dependency: whether it is there, and if not, what is lost and how to install it."""
    lines = ["telemetry status"]
    for status in statuses:
        lines.append(f"  {status.name}: {status.state}")
        if status.state != "available":
            lines.append(f"    lost: {status.feature_lost}")
            lines.append(f"    fix:  {status.how_to_install}")
    return "\n".join(lines) + "\n"


def main(
    arguments: Sequence[str] | None = None,
    output: TextIO | None = None,
    probe: Callable[[], Sequence[DependencyStatus]] = probe_dependencies,
) -> int:
    """Run ``python -m codex_ml.monitoring.codex_logging`` and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m codex_ml.monitoring.codex_logging",
        description="Shows what this machine can measure and track, and writes a sample of the log format.",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the telemetry status; write nothing")
    parser.add_argument(
        "--emit-sample", action="store_true", help="append one sample record to --output, unless --dry-run"
    )
    parser.add_argument("--output", type=Path, default=Path("telemetry-sample.ndjson"), help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    stream: TextIO = output if output is not None else sys.stdout
    if not (chosen.dry_run or chosen.emit_sample):
        parser.error("choose --dry-run or --emit-sample")
    statuses = probe()
    stream.write(telemetry_status(statuses))
    if chosen.emit_sample and not chosen.dry_run:
        record = {"kind": "telemetry_sample", "dependencies": {s.name: s.state for s in statuses}, "system": sample()}
        try:
            write_ndjson(chosen.output, record, redact=no_redaction)
        except CodexError as error:
            write_message(error.block())
            return error.exit_code
        except OSError as error:
            parser.error(f"--output {chosen.output} cannot be written: {error.strerror or error}")
        stream.write(f"wrote one record to {visible(str(chosen.output))}\n")
    return EXIT_DONE


if __name__ == "__main__":
    open_standard_streams()
    sys.exit(main())

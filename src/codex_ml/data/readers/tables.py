"""Parquet and Arrow files as streams of JSON lines, read from the local disk, a few rows at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from codex_ml.data.problems import LineFault
from codex_ml.data.readers.files import Background, DataFile, no_record
from codex_ml.data.readers.format_detection import look_of_file
from codex_ml.data.readers.jsonl import RawLine
from codex_ml.data.readers.table_child import DONE, ERROR, FAULT, FRAME, ROW, memory_allowance, processor_allowance
from codex_ml.errors import DataError

_BLOCK_BYTES = 1 << 18
_BEGINNINGS = {".parquet": (b"PAR1",), ".arrow": (b"ARROW1", b"\xff\xff\xff\xff")}
_KINDS = frozenset({ROW, FAULT, ERROR, DONE})
_LONGEST_MESSAGE_BYTES = 1 << 16
_SECONDS_TO_END = 60.0
# Without the working directory on its path: a file in it may have the name of a library.
_CHILD = (sys.executable, "-P", "-m", "codex_ml.data.readers.table_child")
# Other allocators, and each thread of a library, reserve address space that the limit would count.
_CHILD_ENVIRONMENT = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class TableFile:
    """A Parquet or Arrow file (of either kind), read as a stream of lines of JSON, one a row.

    Line numbers count the rows from 1; offsets are those of the lines of JSON one behind the other. ``byte_count`` and
    ``digest`` are those of the file.

    Parameters
    ----------
    path : Path
        The file; its ending decides.
    max_line_bytes : int
        Longest row that is taken.
    command : sequence of str
        Starts the process that decodes the table; a descriptor of the file and ``max_line_bytes`` are appended.

    Raises
    ------
    DataError
        If the file is absent, of another format, damaged, without a row, has two columns of one name, needs more
        memory than is allowed, or changes while it is read.
    """

    def __init__(self, path: Path, max_line_bytes: int, command: Sequence[str] = _CHILD) -> None:
        self.path = path
        self._command = command
        self.empty_lines = 0
        self.byte_count = 0
        self.digest = ""
        self._max_line_bytes = max_line_bytes

    def raw_lines(self) -> Iterator[RawLine]:
        """Yield each row as a line of canonical JSON, or why it is none."""
        offset = number = 0
        with Background() as background, DataFile(self.path, background) as file:
            self._read_whole(file)
            for number, line in enumerate(self._lines(file), start=1):
                yield number, offset, line, b"\n"
                offset += len(line) + 1 if isinstance(line, bytes) else 0
            self.byte_count, self.digest = file.byte_count, file.finish()
        if not number:
            raise no_record(self.path)

    def _read_whole(self, file: DataFile) -> None:
        """Read the bytes for their digest, and refuse a file of another kind by the first of them."""
        head = file.read(_BLOCK_BYTES)
        if not head:
            raise no_record(self.path)
        if not head.startswith(_BEGINNINGS[self.path.suffix.lower()]):
            look = look_of_file(head)
            kind = self.path.suffix[1:].capitalize()
            raise DataError(
                f"{self.path.name}: this is no {kind} file"
                + (f": it looks like {look.name}" if look is not None else ""),
                why=f"by its name it is one (ending {self.path.suffix})",
                fix="give it the ending of what it is, or convert it to JSON Lines (.jsonl)",
                code="DATA_WRONG_FILE_TYPE",
            )
        while file.read(_BLOCK_BYTES):
            pass

    def _lines(self, file: DataFile) -> Iterator[bytes | LineFault]:
        """Yield the rows as the child process sends them; it is ended with the iteration."""
        row = 0
        process = subprocess.Popen(
            [*self._command, str(file.descriptor), str(self._max_line_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Libraries print there when they abort; what happened is told below.
            stderr=subprocess.DEVNULL,
            pass_fds=[file.descriptor],
            env={**os.environ, **_CHILD_ENVIRONMENT},
        )
        try:
            answers = process.stdout
            assert answers is not None, "it is started with a pipe"
            for kind, content in self._frames(answers):
                if kind == DONE:
                    return
                if kind == ERROR:
                    raise self._refusal(*json.loads(content))
                row += 1
                yield content if kind == ROW else LineFault(*json.loads(content))
            raise self._ended(process.wait(_SECONDS_TO_END), row)
        except (ValueError, TypeError, subprocess.TimeoutExpired) as error:
            raise self._ended(None, row) from error
        finally:
            process.kill()
            process.communicate()

    def _frames(self, answers: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield kind and content of each frame until the pipe ends.

        Raises
        ------
        ValueError
            If a frame is no frame: a forged file may have changed what the process does.
        """
        while len(head := answers.read(FRAME.size)) == FRAME.size:
            kind, length = FRAME.unpack(head)
            if kind not in _KINDS or length > max(self._max_line_bytes, _LONGEST_MESSAGE_BYTES):
                raise ValueError("not a frame")
            content = answers.read(length)
            if len(content) < length:
                return
            yield kind, content

    def _refusal(self, kind: str, words: str, row: int) -> DataError:
        name = self.path.name
        if kind == "large":
            return DataError(
                f"{name} holds far more than it should",
                why=f"{words}: it may be made to fill the memory",
                fix="if you know what is in it, write it again as JSON Lines",
                code="DATA_TABLE_TOO_LARGE",
            )
        if kind == "memory":
            allowed = memory_allowance(self.path.stat().st_size, self._max_line_bytes)
            return DataError(
                f"{name}: the rows after row {row} need more memory than is allowed",
                why=f"the file has {self.path.stat().st_size:,} bytes, and {allowed:,} bytes of memory are allowed "
                "to decode it",
                fix="write the file again with smaller batches or row groups (such as row_group_size=10000), or as "
                "JSON Lines",
                code="DATA_TABLE_MEMORY_LIMIT",
            )
        if kind == "missing":
            return DataError(
                f"{name} cannot be read without {words}",
                why="it reads tables, and is not installed",
                fix="install codex-ml with its dependencies, or convert the file to JSON Lines",
                code="DATA_READER_NOT_INSTALLED",
            )
        return self._damaged(row, words)

    def _ended(self, exit_code: int | None, row: int) -> DataError:
        how = "sent something that is no row" if exit_code is None else f"ended with exit code {exit_code}"
        if exit_code == -signal.SIGXCPU:
            allowed = processor_allowance(self.path.stat().st_size)
            return DataError(
                f"{self.path.name}: the rows after row {row} take more processor time than is allowed",
                why=f"the file has {self.path.stat().st_size:,} bytes, and {allowed} seconds are allowed to decode it",
                fix="if you know what is in it, write it again as JSON Lines",
                code="DATA_TABLE_TIME_LIMIT",
            )
        if exit_code is not None and exit_code < 0:
            how = f"was ended by {_signal_name(-exit_code)}"
        return self._damaged(row, f"the process that decodes the table {how}")

    def _damaged(self, row: int, why: str) -> DataError:
        return DataError(
            f"{self.path.name}: the table cannot be read beyond row {row}",
            why=why,
            fix="get the file once more, or have its owner write it again; it may be damaged",
            code="DATA_TABLE_DAMAGED",
        )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

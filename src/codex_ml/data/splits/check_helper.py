"""Lines checked for a split, and a helper process that checks every second block of them."""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import struct
import subprocess
import sys
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from codex_ml.data.problems import LineFault
from codex_ml.data.readers.jsonl import Lines
from codex_ml.data.splits.line_checks import Checked, LineCheck

_BATCH_BYTES = 1 << 20
_MOST_WAITING = 6


@dataclass
class Batch:
    """Some lines that follow each other: numbers, offsets, bytes and line ends, and what is wrong with the others."""

    numbers: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    line_ends: list[bytes] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)

    def all_faults(self, checked: Checked) -> list[tuple[int, str]]:
        """Return the number of each faulty line with the reason, in their order."""
        found = [(self.numbers[index], fault.at(self.offsets[index])) for index, fault in checked.faults]
        return sorted([*self.faults, *found])


def checked_lines(lines: Lines, check: LineCheck, helper: CheckHelper | None) -> Iterator[tuple[Batch, Checked]]:
    """Yield all lines, some at a time, with what came of them; the same with a helper and without."""
    waiting: deque[tuple[Batch, Checked | None]] = deque()
    for batch in _batches(lines):
        asked = helper is not None and helper.ask(batch.lines)
        waiting.append((batch, None if asked else check(batch.lines)))
        while waiting and (
            waiting[0][1] is not None or len(waiting) > _MOST_WAITING or (helper is not None and helper.has_answer)
        ):
            yield _finished(*waiting.popleft(), check, helper)
    while waiting:
        yield _finished(*waiting.popleft(), check, helper)


def _finished(
    batch: Batch, checked: Checked | None, check: LineCheck, helper: CheckHelper | None
) -> tuple[Batch, Checked]:
    if checked is None and helper is not None:
        checked = helper.answer()
    return batch, check(batch.lines) if checked is None else checked


def _batches(lines: Lines) -> Iterator[Batch]:
    batch = Batch()
    size_bytes = 0
    for number, offset, raw, line_end in lines.raw_lines():
        if isinstance(raw, LineFault):
            batch.faults.append((number, raw.at(offset)))
            continue
        batch.numbers.append(number)
        batch.offsets.append(offset)
        batch.lines.append(raw)
        batch.line_ends.append(line_end)
        size_bytes += len(raw) + 1
        if size_bytes >= _BATCH_BYTES:
            yield batch
            batch, size_bytes = Batch(), 0
    yield batch


SLOT_COUNT = 2
SLOT_BYTES = 1 << 21
_ASK = struct.Struct("<QQ")  # slot, length of the lines in it
_ANSWER = struct.Struct("<QQQ")  # lengths of groups, records and faults
# Without the working directory on its path: a file in it may have the name of a library.
_HELPER = (sys.executable, "-P", "-m", "codex_ml.data.splits.check_helper")


class CheckHelper:
    """The process and what it was asked; use it as a context manager.

    Parameters
    ----------
    directory : Path
        Where the shared memory lies as a file without a name.
    seed, group_by, columns
        As for `LineCheck`.
    """

    def __init__(self, directory: Path, seed: int, group_by: str | None, columns: Mapping[str, str]) -> None:
        self._options = json.dumps({"seed": seed, "group_by": group_by, "columns": dict(columns)})
        self._directory = directory
        self._free = list(range(SLOT_COUNT))
        self._asked: list[int] = []

    def __enter__(self) -> CheckHelper:
        with TemporaryFile(dir=self._directory) as shared:
            shared.truncate(SLOT_COUNT * SLOT_BYTES)
            self._memory = mmap.mmap(shared.fileno(), SLOT_COUNT * SLOT_BYTES)
            self._process = subprocess.Popen(
                [*_HELPER, str(shared.fileno()), self._options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # It has nothing to say to anybody: what it cannot do is done here.
                stderr=subprocess.DEVNULL,
                pass_fds=[shared.fileno()],
                bufsize=0,
            )
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._memory.close()

    def ask(self, lines: Sequence[bytes]) -> bool:
        """Have lines checked; False when it is busy, gone, or they do not fit."""
        if not self._free:
            return False
        joined = b"\n".join(lines)
        if len(joined) > SLOT_BYTES:
            return False
        slot = self._free.pop()
        self._memory[slot * SLOT_BYTES : slot * SLOT_BYTES + len(joined)] = joined
        try:
            _pipe(self._process.stdin).write(_ASK.pack(slot, len(joined)))
        except BrokenPipeError:
            self._give_up()
            return False
        self._asked.append(slot)
        return True

    @property
    def has_answer(self) -> bool:
        """Whether the next answer (or the end of the process) is there."""
        return bool(select.select([_pipe(self._process.stdout)], [], [], 0)[0])

    def answer(self) -> Checked | None:
        """Wait for the answer to what was asked first; None when none will come."""
        if not self._asked:
            return None  # it was given up: an answer that it left in the pipe belongs to no question any more
        try:
            lengths = _ANSWER.unpack(self._read(_ANSWER.size))
            groups, records, faults = (self._read(length) for length in lengths)
        except EOFError:
            self._give_up()
            return None
        self._free.append(self._asked.pop(0))
        named = [(int(index), LineFault(*fault)) for index, fault in json.loads(faults)]
        return Checked(array("Q", groups), array("Q", records), named)

    def _read(self, count: int) -> bytes:
        return read_exactly(_pipe(self._process.stdout), count)

    def _give_up(self) -> None:
        self._free.clear()
        self._asked.clear()


def read_exactly(pipe: IO[bytes], count: int) -> bytes:
    """Read this many bytes from a pipe.

    Raises
    ------
    EOFError
        If it ends before.
    """
    parts = []
    while count:
        part = pipe.read(count)
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def serve(memory: mmap.mmap, check: LineCheck, asks: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until nobody asks any more."""
    while True:
        try:
            slot, length = _ASK.unpack(read_exactly(asks, _ASK.size))
        except EOFError:
            return
        lines = memory[slot * SLOT_BYTES : slot * SLOT_BYTES + length].split(b"\n")
        groups, records, faults = check(lines)
        named = json.dumps([(index, (fault.reason, fault.text, fault.position)) for index, fault in faults])
        parts = (groups.tobytes(), records.tobytes(), named.encode("utf-8"))
        answers.write(_ANSWER.pack(*map(len, parts)) + b"".join(parts))
        answers.flush()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "the process is started with both pipes"
    return pipe


def _main(arguments: Sequence[str]) -> None:
    # An interrupt is for the process that started this one, which ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    descriptor, options = int(arguments[0]), json.loads(arguments[1])
    with mmap.mmap(descriptor, SLOT_COUNT * SLOT_BYTES, access=mmap.ACCESS_READ) as memory:
        os.close(descriptor)
        check = LineCheck(options["seed"], options["group_by"], options["columns"])
        serve(memory, check, sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    _main(sys.argv[1:])

"""All lines of a file, checked and hashed in the order of the file, here and by a helper side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from codex_ml.data.check_helper import CheckHelper
from codex_ml.data.line_checks import Checked, LineCheck

_BATCH_BYTES = 1 << 20
_MOST_WAITING = 6


class Lines(Protocol):
    """A file of records as a stream; what identifies it is known when the iteration has come to its end."""

    empty_lines: int
    byte_count: int
    digest: str

    @property
    def too_long(self) -> str:
        """What is wrong with a line whose bytes are not kept."""
        ...

    def raw_lines(self) -> Iterator[tuple[int, int, bytes | None, bytes]]:
        """Give number, offset, bytes (None: too long to be kept) and line end of each line that is not empty."""
        ...


@dataclass
class Batch:
    """Some lines that follow each other: their numbers, bytes and line ends, and what is wrong with the others."""

    numbers: list[int] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    line_ends: list[bytes] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)

    def all_faults(self, checked: Checked) -> list[tuple[int, str]]:
        """Return the number of each faulty line with the reason, in their order."""
        return sorted([*self.faults, *((self.numbers[index], text) for index, text in checked.faults)])


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
    for number, _, raw, line_end in lines.raw_lines():
        if raw is None:
            batch.faults.append((number, lines.too_long))
            continue
        batch.numbers.append(number)
        batch.lines.append(raw)
        batch.line_ends.append(line_end)
        size_bytes += len(raw) + 1
        if size_bytes >= _BATCH_BYTES:
            yield batch
            batch, size_bytes = Batch(), 0
    yield batch

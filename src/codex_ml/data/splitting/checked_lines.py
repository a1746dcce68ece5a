"""All lines of a file, checked and hashed in the order of the file, here and by a helper side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from codex_ml.data.jsonl import Lines
from codex_ml.data.problems import LineFault
from codex_ml.data.splitting.check_helper import CheckHelper
from codex_ml.data.splitting.line_checks import Checked, LineCheck

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

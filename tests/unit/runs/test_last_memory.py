"""What a run last wrote of its memory, read from the end of its metrics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codex_ml.runs.last_memory import LastMemory, read_last_memory

GIB = 1 << 30


def lines(*values: tuple[int, str, float]) -> str:
    """Return metric lines of (step, name, value)."""
    return "".join(json.dumps({"step": step, "name": name, "value": value}) + "\n" for step, name, value in values)


def test_read_last_memory_newest_lines_win_and_torn_ones_are_passed_over(tmp_path: Path) -> None:
    """The line that was being written when the process died is no line."""
    metrics = tmp_path / "metrics.ndjson"
    old = (1, "memory_bytes", 1.0 * GIB), (1, "available_bytes", 9.0 * GIB)
    new = (2, "memory_bytes", 3.0 * GIB), (2, "resident_bytes", 3.5 * GIB), (2, "available_bytes", 0.1 * GIB)
    metrics.write_text(lines(*old, *new) + "[]\n" + '{"step": 3, "name": "memory_by')
    memory = read_last_memory(metrics)
    assert memory == LastMemory(2, int(3.5 * GIB), int(0.1 * GIB))
    assert memory.was_scarce
    assert "at step 2 it held 3.50 GiB of memory, 0.10 GiB were left" in memory.text()
    assert "out-of-memory killer" in memory.text()
    assert "training.micro_batch_size" in memory.text()


@pytest.mark.parametrize("available", [8 * GIB, None])
def test_last_memory_with_room_left_blames_nobody(available: int | None) -> None:
    """A process may be killed for many reasons; memory is named as a likely one only where it was short."""
    memory = LastMemory(7, 2 * GIB, available)
    assert not memory.was_scarce
    assert "at step 7 it held 2.00 GiB" in memory.text()
    assert "killer" not in memory.text()


@pytest.mark.parametrize("content", [None, "", "no JSON\n", '{"step": 1, "name": "loss", "value": 1.0}\n'])
def test_read_last_memory_nothing_said_is_none(tmp_path: Path, content: str | None) -> None:
    """No metrics yet, or none about memory."""
    metrics = tmp_path / "metrics.ndjson"
    if content is not None:
        metrics.write_text(content)
    assert read_last_memory(metrics) is None

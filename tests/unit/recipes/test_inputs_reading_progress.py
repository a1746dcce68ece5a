"""A line now and then while records are read."""

from __future__ import annotations

from pathlib import Path

from codex_ml.recipes.inputs import ReadingProgress


def _said(path: Path, seconds_a_record: float, records: int) -> list[str]:
    now = [100.0]
    lines: list[str] = []
    progress = ReadingProgress(lines.append, lambda: now[0])
    for number in range(records):
        now[0] += seconds_a_record
        progress(path, number)
    return lines


def test_reading_progress_slow_reading_says_how_far_it_is(tmp_path: Path) -> None:
    """One line in ten seconds, with the share of a plain file, and without where a place says nothing about it."""
    plain, packed = tmp_path / "a.jsonl", tmp_path / "a.jsonl.gz"
    for path in (plain, packed):
        path.write_bytes(b"x" * 2560)
    assert _said(plain, 0.02, 2560) == [
        f"reading data: {count:,} records, {share} of a.jsonl"
        for count, share in ((512, "20%"), (1024, "40%"), (1536, "60%"), (2048, "80%"), (2560, "100%"))
    ]
    assert _said(packed, 0.02, 600) == ["reading data: 512 records, now in a.jsonl.gz"]


def test_reading_progress_quick_reading_says_nothing(tmp_path: Path) -> None:
    """Small data is read before anybody asks."""
    assert _said(tmp_path / "a.jsonl", 0.001, 2560) == []

"""Hundreds of malformed and awkward files: each accepted or refused as its content deserves, and every line counted."""

from __future__ import annotations

import json
import re
import resource
import time
from pathlib import Path

import pytest
from tests.unit.data.malformed_files import Case, all_cases

from codex_ml.config.schema.data import DataSection
from codex_ml.data.accounting import DataAccount, rejects_ndjson
from codex_ml.data.readers.registry import open_records
from codex_ml.data.sources import SourceFile, open_sources
from codex_ml.data.splits.command import SplitOptions, split_file
from codex_ml.errors import DataError

CASES = all_cases()
MAX_LINE_BYTES = 200_000
_MOST_SECONDS = 60.0
_MOST_KIB = 400 << 10


def _read(data: DataSection) -> tuple[int, SourceFile]:
    """Return how many records the file of a section has, and what is known of it."""
    (stream,) = open_sources(data)
    return sum(1 for _ in stream), stream.file


@pytest.fixture
def section(case: Case, tmp_path: Path) -> dict:
    """Write the file of a case and return the data section that reads it."""
    path = tmp_path / case.name
    path.write_bytes(case.content)
    return {"train": path, "format": "prompt_completion", "max_line_bytes": MAX_LINE_BYTES}


@pytest.fixture(autouse=True)
def bounds():
    """Hold each test to a time and to memory; nothing may hang or fill the machine."""
    before_kib, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert time.process_time() - started < _MOST_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < _MOST_KIB


def test_all_cases_are_at_least_three_hundred_different_files() -> None:
    """As many as were promised."""
    assert len({case.content for case in CASES}) >= 300


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_open_sources_dropping_takes_the_good_lines_and_names_the_others(case: Case, section: dict) -> None:
    """Refused as a whole with its reason, or read = kept + dropped, with line and reason of every rejected one."""
    data = DataSection.model_validate({**section, "on_bad_record": "drop", "max_bad_share": 1.0})
    if case.refused or not case.good:
        with pytest.raises(DataError) as caught:
            _read(data)
        assert caught.value.what.startswith(case.name)
        assert re.search(case.refused or "lines are no records", caught.value.what)
        return
    count, file = _read(data)
    DataAccount(files=[file.account]).check()
    rows = [json.loads(line) for line in rejects_ndjson([file.rejects]).splitlines()]
    assert count + len(rows) == file.account.records_read
    if case.good < 0:
        assert file.account.records_read == 3
        return
    assert {row["line"]: row["reason"] for row in rows} == case.bad
    assert (file.account.records_kept, file.account.empty_lines) == (case.good, case.empty)


@pytest.mark.parametrize("case", [case for case in CASES if case.good >= 0], ids=lambda case: case.name)
def test_open_sources_by_default_stops_at_what_is_no_record_by_its_line(case: Case, section: dict) -> None:
    """One error with ``file:line`` for the first; nothing of the content but what names a column."""
    if not case.refused and not case.bad:
        assert _read(DataSection.model_validate(section))[0] == case.good
        return
    with pytest.raises(DataError) as caught:
        _read(DataSection.model_validate(section))
    block = caught.value.block()
    assert "Traceback" not in block
    assert block.startswith(f"error: {case.name}")
    for line in case.bad:
        assert f"{case.name}:{line}: " in block or f"{case.name}:{line}, " in block
    assert len(block) < 20_000


@pytest.mark.parametrize("case", [case for case in CASES if case.good >= 0], ids=lambda case: case.name)
def test_split_file_takes_what_is_sound_and_leaves_nothing_of_the_rest(
    case: Case, section: dict, tmp_path: Path
) -> None:
    """The other path through the reader: lines are written as they stand, or no directory appears."""
    out, options = tmp_path / "out", SplitOptions((1.0, 0.0), ("all", "none"))
    is_sound = not case.refused and all(reason == "bad_shape" for reason in case.bad.values())
    # Whatever the shape of a record, it is divided.
    if not is_sound:
        with pytest.raises(DataError, match=re.escape(case.name)):
            split_file(section["train"], out, options, open_lines=lambda path: open_records(path, MAX_LINE_BYTES))
        assert not out.exists()
        return
    report = split_file(section["train"], out, options)
    assert report.source["records"] == case.good + len(case.bad) == sum(part.records for part in report.parts)

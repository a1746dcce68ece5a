"""Reading the files of a data section: faulty lines stop the reading, or are left out, counted and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codex_ml.config.schema.data import DataSection
from codex_ml.data.accounting import rejects_ndjson
from codex_ml.data.readers.jsonl import Lines
from codex_ml.data.readers.registry import open_records
from codex_ml.data.sources import SourceStream
from codex_ml.errors import DataError

Write = Callable[..., Path]
Read = Callable[..., Any]
GOOD = b'{"prompt": "a", "completion": "SECRET"}\n'
BAD = (
    (b"\xff\n", "bad_encoding"),
    (b"{'prompt': 'SECRET'}\n", "bad_json"),
    (b'{"prompt": 1e999}\n', "bad_number"),
    (b'{"prompt": "\\ud800"}\n', "lone_surrogate"),
    (b'{"a": 1, "a": 2}\n', "doubled_key"),
    (b'["SECRET"]\n', "not_an_object"),
    (b'{"a":' * 70 + b"1" + b"}" * 70 + b"\n", "too_deep"),
    (b'{"prompt": "' + b"x" * 5000 + b'"}\n', "too_long_line"),
    (b'{"prompt": "SECRET"}\n', "bad_shape"),
)


def _section(path: Path, **values: Any) -> DataSection:
    return DataSection.model_validate({"train": path, "max_line_bytes": 4096, **values})


def test_read_sources_dropped_lines_are_counted_and_named_without_content(
    read_sources: Read, write_jsonl: Write
) -> None:
    """One line of each kind among good ones: every one stands in the rejects with its place and its word."""
    content = b"".join(GOOD + line for line, _ in BAD)
    sources = read_sources(_section(write_jsonl(content), on_bad_record="drop", max_bad_share=0.5))
    file = sources.files["train"]
    assert len(sources.records["train"]) == file.account.records_kept == len(BAD)
    assert file.account.records_read == 2 * len(BAD)
    assert file.account.dropped == {reason: 1 for _, reason in BAD}
    written = rejects_ndjson([file.rejects])
    assert b"SECRET" not in written
    rows = [json.loads(line) for line in written.splitlines()]
    assert [row["reason"] for row in rows] == [reason for _, reason in BAD]
    for row, (line, _) in zip(rows, BAD, strict=True):
        assert row["file"] == "data.jsonl"
        assert content[row["offset"] :].startswith(line)
        assert content[: row["offset"]].count(b"\n") == row["line"] - 1


def test_read_sources_error_counts_every_faulty_line(read_sources: Read, write_jsonl: Write) -> None:
    """The default: nothing is read, every line counts, and the byte that is not UTF-8 is found by its offset."""
    content = b"".join(GOOD + line for line, _ in BAD) + b"x\n" * 100
    with pytest.raises(DataError, match=r"^data\.jsonl:2: not UTF-8: byte 1 of the line") as caught:
        read_sources(_section(write_jsonl(content)))
    block = caught.value.block()
    assert f"offset {len(GOOD)} of the file" in block
    assert f"the first of {len(BAD) + 100} problems" in block
    assert "and 89 more" in block
    assert "SECRET" not in block


@pytest.mark.parametrize(
    ("bad", "share", "is_read"), [(1, 0.05, True), (2, 0.05, False), (2, 0.1, True), (20, 1, False)]
)
def test_read_sources_too_large_a_share_of_faulty_lines_stops(
    read_sources: Read, write_jsonl: Write, bad: int, share: float, is_read: bool
) -> None:
    """A wrong format of the whole file is not hidden by dropping all of it."""
    path = write_jsonl(GOOD * (20 - bad) + b"nonsense\n" * bad)
    section = _section(path, on_bad_record="drop", max_bad_share=share)
    if is_read:
        assert read_sources(section).files["train"].account.dropped == {"bad_json": bad}
        return
    with pytest.raises(DataError, match=f"{bad} of 20 lines are no records") as caught:
        read_sources(section)
    assert "data.max_bad_share" in caught.value.block()
    assert f"data.jsonl:{21 - bad}: not valid JSON" in caught.value.why


def test_read_sources_missing_group_is_a_reason_of_its_own(read_sources: Read, write_jsonl: Write) -> None:
    """The record is sound, and no split can be chosen for it."""
    rows = [{"text": str(number), "topic": number % 7} for number in range(30)]
    section = {"path": write_jsonl([*rows, {"text": "x"}]), "on_bad_record": "drop", "split": {"group_by": "topic"}}
    sources = read_sources(DataSection.model_validate(section))
    assert sources.files["train"].account.dropped == {"no_group": 1}
    assert sum(map(len, sources.records.values())) == 30


def test_read_sources_other_format_of_the_file_is_never_dropped(read_sources: Read, write_jsonl: Write) -> None:
    """An archive is no file of faulty lines."""
    section = _section(write_jsonl(b"\x1f\x8b\x08\x00"), on_bad_record="drop", max_bad_share=1.0)
    with pytest.raises(DataError, match="looks like a gzip archive"):
        read_sources(section)


def test_source_stream_file_that_changes_between_two_readings_is_refused(write_jsonl: Write) -> None:
    """Exact sizes read a file twice, and the borders of the one must not divide the other."""
    rows = [{"prompt": f"p{number}", "completion": "c"} for number in range(50)]
    path = write_jsonl(rows, "twice.jsonl")
    data = DataSection.model_validate({"path": path, "split": {"exact_sizes": True}})
    opened: list[Path] = []

    def open_file(file: Path, max_line_bytes: int) -> Lines:
        if opened:
            write_jsonl(rows[:-1], "twice.jsonl")
        opened.append(file)
        return open_records(file, max_line_bytes)

    with pytest.raises(DataError, match="changed while it was read"):
        list(SourceStream("path", path, data, ["train"], open_file=open_file))
    assert len(opened) == 2
    assert len(list(SourceStream("path", path, data, ["train"]))) == 39

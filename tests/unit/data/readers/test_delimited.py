"""CSV and TSV: cells as they stand, rows by their line, nothing guessed."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.data.readers.jsonl import FaultyLine, JsonLine, parsed_lines
from codex_ml.data.readers.registry import open_records
from codex_ml.errors import DataError
from tiers import examples

Write = Callable[..., Path]


def _read(path: Path, max_line_bytes: int = 1 << 20) -> tuple[list[JsonLine], list[FaultyLine], int]:
    lines = open_records(path, max_line_bytes)
    found = list(parsed_lines(lines))
    records = [line for line in found if isinstance(line, JsonLine)]
    return records, [line for line in found if isinstance(line, FaultyLine)], lines.empty_lines


def test_open_records_csv_cells_are_strings_exactly_as_they_stand(write_jsonl: Write) -> None:
    """Quotes, separators, line ends and white space in cells; numbers and NA are text."""
    content = b'prompt,completion\r\n"a ""x"",\r\nb", 007 \r\n\r\nNA,\n1e5,"nan"'
    records, faults, empty = _read(write_jsonl(content, "data.csv"))
    assert [line.value for line in records] == [
        {"prompt": 'a "x",\r\nb', "completion": " 007 "},
        {"prompt": "NA", "completion": ""},
        {"prompt": "1e5", "completion": "nan"},
    ]
    assert [line.line_number for line in records] == [2, 5, 6]
    assert [content[line.offset :][:2] for line in records] == [b'"a', b"NA", b"1e"]
    assert records[0].raw == b'{"completion":" 007 ","prompt":"a \\"x\\",\\r\\nb"}'
    assert not faults
    assert empty == 1


def test_open_records_tsv_with_a_mark_is_read_with_tabs(write_jsonl: Write) -> None:
    """Commas mean nothing in it."""
    records, _, _ = _read(write_jsonl("\ufeffprompt\tcompletion\na,b\tc é\n".encode(), "DATA.TSV"))
    assert [line.value for line in records] == [{"prompt": "a,b", "completion": "c é"}]


def test_open_records_tsv_quotes_are_characters_of_their_cells(write_jsonl: Write) -> None:
    """No quoting, so none to lose, to double or to leave open."""
    content = b'p\tc\nsay\t"hello"\n"a" b\t"\n"x\ty\n\\t\t\\n\n'
    records, faults, _ = _read(write_jsonl(content, "data.tsv"))
    assert [tuple(line.value.values()) for line in records] == [
        ('"hello"', "say"),
        ('"', '"a" b'),
        ("y", '"x'),
        ("\\n", "\\t"),
    ]
    assert not faults


def test_open_records_tsv_line_that_is_too_long_is_one_faulty_line(write_jsonl: Write) -> None:
    """The rows before and behind it are read."""
    content = b"p\tc\n1\t2\n" + b"x" * 1000 + b"\t2\n3\t4\n"
    records, faults, _ = _read(write_jsonl(content, "data.tsv"), 500)
    assert [line.line_number for line in records] == [2, 4]
    assert [(line.line_number, line.fault.reason) for line in faults] == [(3, "too_long_line")]


def test_open_records_csv_rows_that_are_none_are_named_and_the_others_read(write_jsonl: Write) -> None:
    """Too few and too many cells, bytes that are no text, NUL, text behind a quote, a row that is too long."""
    rows = b'a,b\n1\n1,2\n1,2,3\n\xff,2\n\x00,2\n"x"y,2\n3,' + b"x" * 80 + b"\n4,5\n"
    records, faults, _ = _read(write_jsonl(rows, "data.csv"), 90)
    assert [line.line_number for line in records] == [3, 9]
    assert [(line.line_number, line.fault.reason) for line in faults] == [
        (2, "bad_row"),
        (4, "bad_row"),
        (5, "bad_encoding"),
        (6, "bad_encoding"),
        (7, "bad_row"),
        (8, "too_long_line"),
    ]
    assert "1 cells, the header 2" in faults[0].fault.text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'a,b\n1,2\n"x,2\n3,4\n', r"data\.csv:3: a quote is opened in this row and never closed"),
        (b'a,b\n"' + b"x\n" * 1000, r"data\.csv:252: the row is too long"),
        (b"a,b\n" + b'"x\n",' * 1000 + b"\n", r"data\.csv:\d+: the row is too long"),
        (b'a,b\n"' + b"x\n" * 300 + b'",1\n', r"the row is too long"),
        (b'a,b\n"' + b"x\n" * 100, r"data\.csv:2: a quote is opened in this row and never closed"),
        (b"a,a\n1,2\n", "two columns have the name 'a'"),
        (b"a;b\n1;2\n", "separated by semicolons"),
        (b"a,b\n", "holds no record"),
        (b"", "holds no record"),
        (b"\n\n", "holds no record"),
        ("a,b\n1,2\n".encode("utf-16"), "looks like UTF-16 text"),
        (b'{"a": 1}\n', "looks like JSON Lines"),
        (b"\xff,b\n1,2\n", "header cannot be read"),
        (b"a,b\r1,2\r", "header cannot be read"),
        (b"a,b\n" + b"x" * 1000 + b",2\n", "line is too long"),
        (b"PAR1", "looks like a Parquet file"),
    ],
)
def test_open_records_csv_that_cannot_be_a_table_is_refused(write_jsonl: Write, content: bytes, words: str) -> None:
    """A quote that is never closed would swallow the rest of the file in one row."""
    with pytest.raises(DataError, match=words):
        _read(write_jsonl(content, "data.csv"), 500)


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)


@examples(60)
@given(st.lists(st.lists(cells, min_size=2, max_size=2), min_size=1, max_size=5), st.sampled_from(["\n", "\r\n"]))
def test_open_records_csv_whatever_csv_writes_reads_back(rows: list[list[str]], line_end: str) -> None:
    """Every text comes back as it was, quoted where it has to be."""
    written = io.StringIO()
    csv.writer(written, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *rows])
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "data.csv"
        path.write_bytes(written.getvalue().encode("utf-8"))
        records, faults, _ = _read(path)
    assert not faults
    assert [[line.value["a"], line.value["b"]] for line in records] == rows
    assert all(json.loads(line.raw) == line.value for line in records)

"""Parquet and Arrow files: rows as canonical JSON, damaged ones refused in one block."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from codex_ml.data.problems import LineFault
from codex_ml.data.readers.jsonl import FaultyLine, JsonLine, parsed_lines
from codex_ml.data.readers.registry import open_records
from codex_ml.data.readers.table_child import canonical_line
from codex_ml.errors import DataError
from codex_ml.io.atomic import file_digest

Write = Callable[[pa.Table, Path], None]
CHAT = [
    {"messages": [{"role": "user", "content": f"é {number}"}, {"role": "assistant", "content": "b", "name": "x"}]}
    for number in range(200)
]


def _write_parquet(table: pa.Table, path: Path) -> None:
    pyarrow.parquet.write_table(table, path, row_group_size=50)


def _write_file(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _write_stream(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


KINDS = [(_write_parquet, "parquet"), (_write_file, "arrow"), (_write_stream, "arrow")]


def _read(path: Path) -> list[JsonLine | FaultyLine]:
    return list(parsed_lines(open_records(path)))


@pytest.mark.parametrize(("write", "ending"), KINDS)
def test_open_records_table_gives_rows_as_canonical_json(write: Write, ending: str, tmp_path: Path) -> None:
    """Nested lists and objects; a cell without a value is an absent key; names may hold anything."""
    path = tmp_path / f"a=[b]*, 'q' (é) #?::x.{ending}"
    write(pa.Table.from_pylist(CHAT), path)
    lines = open_records(path)
    found = [line for line in parsed_lines(lines) if isinstance(line, JsonLine)]
    assert [line.value for line in found] == CHAT
    assert found[1].line_number == 2
    assert found[1].offset == len(found[0].raw) + 1
    assert found[0].raw.startswith('{"messages":[{"content":"é 0","role":"user"}'.encode())
    assert (lines.digest, lines.byte_count) == (file_digest(path), path.stat().st_size)


@pytest.mark.parametrize(("write", "ending"), KINDS)
def test_open_records_damaged_table_is_one_error(write: Write, ending: str, tmp_path: Path) -> None:
    """Cut off anywhere, or with bytes of another file in it: never a traceback of the library, never fewer rows."""
    path = tmp_path / f"data.{ending}"
    write(pa.Table.from_pylist(CHAT), path)
    content = path.read_bytes()
    for damaged in (
        content[: len(content) // 2],
        content[:-1] if write is not _write_stream else content[:-200],
        content[:12],
        # The footer of a file says again what its beginning says, and counts.
        content[:-60] + b"\xff" * 40 + content[-20:]
        if write is _write_file
        else content[:8] + b"\xff" * 60 + content[68:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=f"data.{ending}: the table cannot be read") as caught:
            _read(path)
        assert "codex-ml-tables" not in caught.value.block()


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no record"),
        (b"a,b\n1,2\n", "it looks like CSV"),
        (b'{"a": 1}\n', "is no (Parquet|Arrow) file"),
        (b"\x1f\x8b\x08", "it looks like a gzip archive"),
    ],
)
def test_open_records_other_file_under_the_name_of_a_table_is_refused(
    ending: str, content: bytes, words: str, tmp_path: Path
) -> None:
    """Told by its first bytes, before a library looks at it."""
    path = tmp_path / f"data.{ending}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        _read(path)


@pytest.mark.parametrize(("write", "ending"), KINDS)
def test_open_records_table_without_rows_or_with_doubled_names_is_refused(
    write: Write, ending: str, tmp_path: Path
) -> None:
    """Nothing to learn from, and two columns of which one would be lost."""
    path = tmp_path / f"data.{ending}"
    write(pa.table({"text": pa.array([], pa.string())}), path)
    with pytest.raises(DataError, match="holds no record"):
        _read(path)
    write(pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["text", "text"]), path)
    with pytest.raises(DataError, match="the table cannot be read"):
        _read(path)


def test_open_records_parquet_row_with_nan_or_bytes_is_a_faulty_line(tmp_path: Path) -> None:
    """JSON has neither; the other rows are read."""
    path = tmp_path / "data.parquet"
    _write_parquet(pa.table({"n": [1.0, float("nan"), None], "b": pa.array([None, None, b"x"])}), path)
    first, second, third = _read(path)
    assert isinstance(first, JsonLine)
    assert isinstance(second, FaultyLine)
    assert isinstance(third, FaultyLine)
    assert (second.fault.reason, third.fault.reason) == ("bad_number", "bad_row")
    assert third.fault.text == "column 'b' holds bytes, which JSON has not"


def test_open_records_parquet_value_stored_once_for_many_rows_is_no_bomb(tmp_path: Path) -> None:
    """A file of kilobytes whose rows are a hundred gigabytes: the first of them come at once."""
    path = tmp_path / "data.parquet"
    large = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array(["x" * 1_000_000]))
    pyarrow.parquet.write_table(pa.table({"text": large}), path, compression="zstd")
    lines = open_records(path).raw_lines()
    for _, _, raw, _ in (next(lines) for _ in range(10)):
        assert isinstance(raw, bytes)
        assert len(raw) == 1_000_011


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"b": 1, "a": "é\n"}, '{"a":"é\\n","b":1}'),
        ({"d": dt.date(2020, 1, 2), "t": dt.datetime(2020, 1, 2, 3)}, None),
        ({"x": decimal.Decimal("1.10"), "n": None, "l": [None, {"k": None}]}, '{"l":[null,{}],"x":"1.10"}'),
        ({"m": [("k", 1)]}, '{"m":[["k",1]]}'),
    ],
)
def test_canonical_line_values_have_one_form(row: dict[str, Any], expected: str | None) -> None:
    """Sorted keys, no spaces, no key without a value but in lists, where the place counts."""
    expected = expected or '{"d":"2020-01-02","t":"2020-01-02T03:00:00"}'
    assert canonical_line(row) == expected.encode()


def test_canonical_line_what_json_has_not_is_a_fault() -> None:
    """Bytes, unknown kinds, half a surrogate pair, endless nesting."""
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    for value, reason in ((b"x", "bad_row"), (object(), "bad_row"), ("\ud800", "bad_encoding"), (nested, "too_deep")):
        line = canonical_line({"a": value})
        assert isinstance(line, LineFault)
        assert line.reason == reason

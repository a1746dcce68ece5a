"""Parquet and Arrow rows: sizes are checked before rows are built, and shared values before they are copied."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

from codex_ml.data.problems import LineFault
from codex_ml.data.readers.table_child import (
    DONE,
    ERROR,
    FAULT,
    FRAME,
    ROW,
    TooLargeError,
    memory_allowance,
    serve,
    table_rows,
)

KINDS = ["file", "stream"]


def _write(table: pa.Table, path: Path, kind: str, compression: str | None = "zstd") -> Path:
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path, compression=compression or "none")
        return path
    make = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as sink, make(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return path


def _rows(path: Path, max_line_bytes: int = 1 << 20) -> list[object]:
    with path.open("rb") as file:
        return [row if isinstance(row, LineFault) else json.loads(row) for row in table_rows(file, max_line_bytes)]


def _frames(path: Path, max_line_bytes: int) -> Iterator[tuple[bytes, bytes]]:
    answers = io.BytesIO()
    with path.open("rb") as file:
        serve(file, max_line_bytes, answers)
    answers.seek(0)
    while head := answers.read(FRAME.size):
        kind, length = FRAME.unpack(head)
        yield kind, answers.read(length)


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("kind", [*KINDS, "parquet"])
def test_table_rows_honest_file_of_any_compression_is_read(kind: str, compression: str | None, tmp_path: Path) -> None:
    """Lists, objects, maps, shared values and views are read as they were written."""
    rows = [{"m": [{"role": "user", "content": f"é {n}"}], "k": [["a", "b"]], "v": "w" * 20, "n": n} for n in range(99)]
    shared = pa.string() if kind == "parquet" else pa.dictionary(pa.int8(), pa.string())
    message = pa.struct({"role": shared, "content": pa.string()})
    types = {"m": pa.list_(message), "k": pa.map_(pa.string(), pa.string()), "v": pa.string_view(), "n": pa.int64()}
    written = [{**row, "k": [("a", "b")]} for row in rows]
    path = _write(pa.Table.from_pylist(written, pa.schema(types)), tmp_path / "a", kind, compression)
    assert _rows(path) == rows
    # The first limit makes the reader measure each row by itself; the second one allows no row.
    assert _rows(path, 100) == rows
    assert all(isinstance(row, LineFault) for row in _rows(path, 20))


@pytest.mark.parametrize("kind", KINDS)
def test_table_rows_shared_value_a_million_times_in_a_row_is_a_row_too_long(kind: str, tmp_path: Path) -> None:
    """The row would have a terabyte; the next row is read."""
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_001, pa.int32()), pa.array(["x" * 1_000_000]))
    lists = pa.ListArray.from_arrays(pa.array([0, 1_000_000, 1_000_001], pa.int32()), words)
    path = _write(pa.table({"text": lists}), tmp_path / "a", kind)
    first, second = _rows(path, 1 << 24)
    assert isinstance(first, LineFault)
    assert first.reason == "too_long_line"
    assert isinstance(second, dict)
    assert len(second["text"][0]) == 1_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_table_rows_list_of_nothing_is_measured_by_its_length(kind: str, tmp_path: Path) -> None:
    """A hundred million null items take no bytes, and no Python object is made for them."""
    nothing = pa.LargeListArray.from_arrays(pa.array([0, 100_000_000], pa.int64()), pa.nulls(100_000_000))
    (row,) = _rows(_write(pa.table({"text": nothing}), tmp_path / "a", kind))
    assert isinstance(row, LineFault)
    assert row.reason == "too_long_line"


@pytest.mark.parametrize("kind", KINDS)
def test_table_rows_more_rows_than_the_file_can_hold_are_refused(kind: str, tmp_path: Path) -> None:
    """Null rows have a count and no bytes."""
    path = _write(pa.table({"text": pa.nulls(20_000_000)}), tmp_path / "a", kind)
    with pytest.raises(TooLargeError, match="more than 16,777,216 rows"):
        _rows(path)


@pytest.mark.parametrize(
    "column",
    [
        ["x" * 20_000_000],
        pa.ListArray.from_arrays(pa.array([0, 20_000_000], pa.int32()), pa.nulls(20_000_000, pa.int8())),
    ],
    ids=["bytes", "values"],
)
def test_table_rows_parquet_that_declares_far_more_than_its_size_is_refused(column: object, tmp_path: Path) -> None:
    """The footer is checked before a page is decompressed: by bytes, and by values that take no bytes in the file."""
    path = _write(pa.table({"text": column}), tmp_path / "a", "parquet")
    with pytest.raises(TooLargeError, match="more than 16,777,216 bytes or values"):
        _rows(path)


@pytest.mark.parametrize("kind", [*KINDS, "parquet"])
def test_table_rows_ten_thousand_columns_are_read_and_a_repeated_name_is_refused(kind: str, tmp_path: Path) -> None:
    """The error names the repeated column."""
    names = [f"column_{number}" for number in range(10_000)]
    path = _write(pa.Table.from_arrays([pa.array(["x"])] * 10_000, names=names), tmp_path / "a", kind)
    assert _rows(path) == [dict.fromkeys(names, "x")]
    path = _write(pa.Table.from_arrays([pa.array(["x"])] * 3, names=["b", "a", "a"]), tmp_path / "a", kind)
    with pytest.raises(ValueError, match="two columns have the name 'a'"):
        _rows(path)


def test_table_rows_file_of_datasets_keeps_its_feature_types(tmp_path: Path) -> None:
    """The feature types of `datasets` are applied; the memory limit is lifted while the library is imported."""
    lifted: list[str] = []

    @contextmanager
    def limit_lifted() -> Iterator[None]:
        lifted.append("before")
        yield
        lifted.append("after")

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    path = tmp_path / "a"
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features).to_parquet(path)
    with path.open("rb") as file:
        rows = list(table_rows(file, 1 << 20, limit_lifted))
    assert rows == [b'{"label":1,"text":"a"}', b'{"label":0,"text":"b"}']
    assert lifted == ["before", "after"]


def test_serve_sends_rows_faults_and_the_end(tmp_path: Path) -> None:
    """Each row, fault and end is one frame, in order."""
    path = _write(pa.table({"text": ["a", "x" * 100, "b"]}), tmp_path / "a", "parquet")
    frames = list(_frames(path, 50))
    assert [kind for kind, _ in frames] == [ROW, FAULT, ROW, DONE]
    assert frames[0][1] == b'{"text":"a"}'
    assert json.loads(frames[1][1])[0] == "too_long_line"
    path.write_bytes(b"PAR1" * 10)
    ((kind, content),) = _frames(path, 50)
    assert kind == ERROR
    problem, words, row = json.loads(content)
    assert (problem, row) == ("damaged", 0)
    assert words.startswith("ArrowInvalid: ")


def test_memory_allowance_grows_with_the_file_up_to_a_bound() -> None:
    """The allowance depends on the file size, not on declared sizes."""
    assert memory_allowance(13_000, 16 << 20) < 1 << 30
    assert memory_allowance(1 << 40, 16 << 20) == memory_allowance(1 << 41, 16 << 20) < 5 << 30

"""Arrow files: what they unpack to is bounded before it is unpacked, and what rows share before it is copied."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from codex_ml.data.problems import LineFault
from codex_ml.data.readers import open_records
from codex_ml.data.reading.arrow_files import arrow_rows
from codex_ml.errors import DataError


def _write(table: pa.Table, path: Path, is_stream: bool, compression: str | None) -> Path:
    make = pa.ipc.new_stream if is_stream else pa.ipc.new_file
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as sink, make(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return path


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_arrow_rows_batch_that_unpacks_far_beyond_its_file_is_refused(
    is_stream: bool, compression: str, tmp_path: Path
) -> None:
    """By what its buffers declare, in the format of files and of streams."""
    table = pa.table({"text": ["x" * (1 << 20)] * 40})
    path = _write(table, tmp_path / "a.arrow", is_stream, compression)
    with pytest.raises(DataError, match=r"a\.arrow holds far more than it should"):
        next(open_records(path).raw_lines())


@pytest.mark.parametrize("is_stream", [True, False])
def test_arrow_rows_dictionary_and_nothing_that_unpack_far_are_refused(is_stream: bool, tmp_path: Path) -> None:
    """A dictionary is unpacked too; lists of nothing have lengths and no bytes."""
    large = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array(["x" * (40 << 20)]))
    nothing = pa.LargeListArray.from_arrays(pa.array([0, 1 << 30], pa.int64()), pa.nulls(1 << 30))
    for column in (large, nothing):
        path = _write(pa.table({"text": column}), tmp_path / "a.arrow", is_stream, "zstd")
        with pytest.raises(DataError, match="holds far more than it should"):
            next(open_records(path).raw_lines())


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("is_stream", [True, False])
def test_arrow_rows_honest_file_of_any_compression_is_read(
    is_stream: bool, compression: str | None, tmp_path: Path
) -> None:
    """Lists, objects, maps, shared values and views come back as they were written."""
    rows = [{"m": [{"role": "user", "content": f"é {n}"}], "k": [("a", "b")], "v": "w" * 20, "n": n} for n in range(99)]
    message = pa.struct({"role": pa.dictionary(pa.int8(), pa.string()), "content": pa.string()})
    types = {"m": pa.list_(message), "k": pa.map_(pa.string(), pa.string()), "v": pa.string_view(), "n": pa.int64()}
    path = _write(pa.Table.from_pylist(rows, pa.schema(types)), tmp_path / "a.arrow", is_stream, compression)
    assert list(arrow_rows(path, path.name, 1 << 20)) == rows
    # So little is allowed that each row is measured by itself, and then that none is made.
    assert list(arrow_rows(path, path.name, 60)) == rows
    assert all(isinstance(row, LineFault) for row in arrow_rows(path, path.name, 20))


def test_arrow_rows_shared_value_named_a_million_times_in_a_row_is_a_row_too_long(tmp_path: Path) -> None:
    """A terabyte, if it were made; the row beside it is read."""
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_001, pa.int32()), pa.array(["x" * 1_000_000]))
    lists = pa.ListArray.from_arrays(pa.array([0, 1_000_000, 1_000_001], pa.int32()), words)
    path = _write(pa.table({"text": lists}), tmp_path / "a.arrow", False, "zstd")
    first, second = arrow_rows(path, path.name, 1 << 24)
    assert isinstance(first, LineFault)
    assert first.reason == "too_long_line"
    assert isinstance(second, dict)
    assert len(second["text"][0]) == 1_000_000

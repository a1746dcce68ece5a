"""Parquet and Arrow files as streams of JSON lines, read from the local disk, a few rows at a time."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from codex_ml.data.jsonl import RawLine, too_long
from codex_ml.data.problems import LineFault, shown_name
from codex_ml.data.reading.arrow_files import MAX_GROUP_BYTES, ROWS_AT_ONCE, arrow_rows
from codex_ml.data.reading.background import Background
from codex_ml.data.reading.data_files import DataFile, no_record
from codex_ml.data.reading.lookalikes import look_of_file
from codex_ml.data.reading.table_rows import canonical_line
from codex_ml.errors import DataError

_BLOCK_BYTES = 1 << 18
_BEGINNINGS = {".parquet": (b"PAR1",), ".arrow": (b"ARROW1", b"\xff\xff\xff\xff")}


class TableFile:
    """A Parquet or Arrow file (of either kind), read as a stream of lines of JSON, one a row.

    Line numbers count the rows from 1; offsets are those of the lines of JSON one behind the other. ``byte_count`` and
    ``digest`` are those of the file.

    Parameters
    ----------
    path : Path
        The file; its ending decides.
    max_line_bytes : int
        Longest row that is taken.

    Raises
    ------
    DataError
        If the file is absent, of another format, damaged, without a row, has two columns of one name, would unpack to
        more than memory holds, or changes while it is read.
    """

    def __init__(self, path: Path, max_line_bytes: int) -> None:
        self.path = path
        self.empty_lines = 0
        self.byte_count = 0
        self.digest = ""
        self._max_line_bytes = max_line_bytes

    def raw_lines(self) -> Iterator[RawLine]:
        """Yield each row as a line of canonical JSON, or why it is none."""
        offset = number = 0
        with Background() as background, DataFile(self.path, background) as file:
            self._read_whole(file)
            for number, line in enumerate(self._lines(), start=1):
                if isinstance(line, bytes) and len(line) > self._max_line_bytes:
                    line = too_long(self._max_line_bytes)
                yield number, offset, line, b"\n"
                offset += len(line) + 1 if isinstance(line, bytes) else 0
            self.byte_count, self.digest = file.byte_count, file.finish()
            # The libraries opened it a second time, by its name.
            file.refuse_replaced(self.path)
        if not number:
            raise no_record(self.path)

    def _read_whole(self, file: DataFile) -> None:
        """Read the bytes for their digest, and refuse a file of another kind by the first of them."""
        head = file.read(_BLOCK_BYTES)
        if not head:
            raise no_record(self.path)
        if not head.startswith(_BEGINNINGS[self.path.suffix.lower()]):
            look = look_of_file(head)
            kind = self.path.suffix[1:].capitalize()
            raise DataError(
                f"{self.path.name}: this is no {kind} file"
                + (f": it looks like {look.name}" if look is not None else ""),
                why=f"by its name it is one (ending {self.path.suffix})",
                fix="give it the ending of what it is, or convert it to JSON Lines (.jsonl)",
            )
        while file.read(_BLOCK_BYTES):
            pass

    def _lines(self) -> Iterator[bytes | LineFault]:
        try:
            import datasets
            import pyarrow as pa
        except ImportError as error:
            raise DataError(
                f"{self.path.name} cannot be read without {error.name}",
                why="it reads tables, and is not installed",
                fix="install codex-ml with all it needs, or convert the file to JSON Lines",
            ) from error
        # It would write of errors by itself, beside our one block.
        logging.getLogger(datasets.__name__).setLevel(logging.CRITICAL)
        row = 0
        try:
            with TemporaryDirectory(prefix="codex-ml-tables-") as cache:
                for values in _rows(self.path, Path(cache), self._max_line_bytes):
                    row += 1
                    yield values if isinstance(values, LineFault) else canonical_line(values)
        # Whatever a damaged or forged file makes of the libraries: they have no family of errors in common.
        except (
            pa.ArrowException,
            OSError,
            ValueError,
            TypeError,
            KeyError,
            IndexError,
            AttributeError,
            RuntimeError,
            NotImplementedError,
            OverflowError,
            MemoryError,
        ) as error:
            raise DataError(
                f"{self.path.name}: the table cannot be read beyond row {row}",
                why=f"{type(error).__name__}: {_first_line(error, self.path.name)}",
                fix="get the file once more, or have its owner write it again; it may be damaged",
            ) from error


def _rows(path: Path, cache: Path, max_line_bytes: int) -> Iterator[dict[str, Any] | LineFault]:
    """Yield the rows of a table, or what is wrong with one."""
    link = cache / f"table{path.suffix.lower()}"
    link.symlink_to(path.resolve())
    if path.suffix.lower() == ".arrow":
        yield from arrow_rows(link, path.name, max_line_bytes)
        return
    for table in _parquet_tables(link, path.name, cache):
        yield from table.to_pylist()


def _parquet_tables(link: Path, name: str, cache: Path) -> Iterator[Any]:
    """Yield the table in pieces of a few rows."""
    from datasets.data_files import DataFilesDict, DataFilesList
    from datasets.packaged_modules.parquet.parquet import Parquet

    _refuse_large_groups(link, name)
    # Not by `load_dataset`: that takes a name for a pattern, and part of it for the address of another file system.
    files = DataFilesDict({"train": DataFilesList([str(link)], [()])})
    builder = Parquet(cache_dir=str(cache), data_files=files, batch_size=ROWS_AT_ONCE)
    # One split of it, not a mapping of splits, is what comes back for a name.
    stream: Any = builder.as_streaming_dataset(split="train")
    stream = stream.with_format("arrow")
    for table in stream.iter(batch_size=ROWS_AT_ONCE):
        names = table.schema.names
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"two columns have the name {shown_name(doubled[0])}")
        yield table


def _refuse_large_groups(path: Path, name: str) -> None:
    """Stop before a group of rows is unpacked that says it would fill the memory."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        metadata = file.metadata
        largest = max(
            (metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups)), default=0
        )
    if largest > MAX_GROUP_BYTES:
        raise DataError(
            f"{name}: a group of rows unpacks to {largest:,} bytes",
            why=f"allowed are {MAX_GROUP_BYTES:,}: a group is unpacked at once",
            fix="write the file again with smaller row groups (such as row_group_size=10000)",
        )


def _first_line(error: BaseException, name: str) -> str:
    """Return what a library says of an error, with the name of the file instead of where it looked."""
    lines = re.sub(r"/\S*codex-ml-tables-\S*/table\.\w+", name, str(error)).splitlines()
    return lines[0][:200] if lines else "no reason given"

"""A program that decodes Parquet and Arrow files to JSON rows, under the limits of its parent."""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

from codex_ml.data.problems import LineFault, repeated_name, shown_name
from codex_ml.data.readers.compressed import MAX_RATIO, RATIO_COUNTS_FROM_BYTES
from codex_ml.data.readers.jsonl import too_long
from codex_ml.io.limits import address_space_bytes, lower_limit
from codex_ml.offline import GUARD, go_offline

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def canonical_line(row: Mapping[str, Any]) -> bytes | LineFault:
    """Return a row as one line: keys sorted, no spaces, UTF-8.

    A cell without a value is left out, in nested structures too: a table has no other way to say that a key is absent.
    Dates and times are written as in ISO 8601, decimal numbers as strings, so that no digit is lost.

    Parameters
    ----------
    row : mapping
        Column -> value as pyarrow gives it.

    Returns
    -------
    bytes or LineFault
        The line, or why the row cannot be one.
    """
    column = ""
    try:
        plain = {}
        for column, value in row.items():
            if value is not None:
                plain[column] = _plain(value)
        return _encode(plain).encode("utf-8")
    except TypeError as error:
        return LineFault("bad_row", f"column {shown_name(column)} holds {error}, which JSON has not")
    except UnicodeEncodeError:
        return LineFault("bad_encoding", "a cell holds half of a surrogate pair, which is no character")
    except RecursionError:
        return LineFault("too_deep", f"column {shown_name(column)} is nested too deep")


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError("bytes" if isinstance(value, bytes) else type(value).__name__)


FRAME = struct.Struct("<cQ")
ROW, FAULT, ERROR, DONE = b"r", b"f", b"e", b"d"
# Memory for the decoded rows at hand: a fixed part, a part that grows with the file up to a bound, and memory to build
# the longest row that is allowed.
_BASE_BYTES, _MAX_FILE_SHARE_BYTES = 512 << 20, 4 << 30
# Known files take well below a tenth of it.
_BASE_CPU_SECONDS, _CPU_SECONDS_PER_MEBIBYTE = 60, 1
_BYTES_FOR_EACH_FILE_BYTE, _COPIES_OF_A_ROW = 8, 16
# A stored value may occur in many rows: few of them at once keep the memory small.
ROWS_AT_ONCE = 64
_BATCH_BYTES = 32 << 20
# Of each column: small, because a table may have thousands.
_READ_AHEAD_BYTES = 1 << 14


LimitLifted = Callable[[], AbstractContextManager[object]]


class TooLargeError(ValueError):
    """The file declares more than it should hold."""


def memory_allowance(file_bytes: int, max_line_bytes: int) -> int:
    """Return how many bytes of memory the decoding of a file may take."""
    share = min(_BYTES_FOR_EACH_FILE_BYTE * file_bytes, _MAX_FILE_SHARE_BYTES)
    return _BASE_BYTES + share + _COPIES_OF_A_ROW * max_line_bytes


def processor_allowance(file_bytes: int) -> int:
    """Return how many seconds of processor time the decoding of a file may take."""
    return _BASE_CPU_SECONDS + _CPU_SECONDS_PER_MEBIBYTE * file_bytes // (1 << 20)


def table_rows(
    file: BinaryIO, max_line_bytes: int, limit_lifted: LimitLifted = nullcontext
) -> Iterator[bytes | LineFault]:
    """Yield the rows of a Parquet or Arrow file (file format or stream) as canonical JSON, or what is wrong with one.

    Parameters
    ----------
    file : binary file
        Seekable, with a descriptor.
    max_line_bytes : int
        A row that would be longer is not built: a fault takes its place.
    limit_lifted : callable
        Gives a context in which a library is imported that needs more address space than the decoding.

    Raises
    ------
    TooLargeError
        If the file declares, or holds, far more than its size allows.
    ValueError
        If two columns have one name, there is none, or the file is damaged; damage may raise any other exception of
        pyarrow and Python.
    """
    import pyarrow as pa

    file_bytes = os.fstat(file.fileno()).st_size
    file.seek(0)
    magic = file.read(6)
    file.seek(0)
    most = max(RATIO_COUNTS_FROM_BYTES, MAX_RATIO * file_bytes)
    with pa.PythonFile(file, "r") as source:
        is_parquet = magic.startswith(b"PAR1")
        batches = _parquet_batches(source, most, limit_lifted) if is_parquet else _arrow_batches(source, magic)
        row_count = decoded_bytes = 0
        for batch, cast in batches:
            row_count += batch.num_rows
            _refuse_more(row_count, most, "rows")
            for first in range(0, batch.num_rows, ROWS_AT_ONCE):
                for row in _rows(batch.slice(first, ROWS_AT_ONCE), max_line_bytes, cast):
                    line = row if isinstance(row, LineFault) else canonical_line(row)
                    if isinstance(line, bytes):
                        # A dictionary stores a value once, however many rows have it.
                        decoded_bytes += len(line)
                        _refuse_more(decoded_bytes, most, "bytes of rows")
                        line = too_long(max_line_bytes) if len(line) > max_line_bytes else line
                    yield line


def _parquet_batches(source: Any, most: int, limit_lifted: LimitLifted) -> Iterator[tuple[Any, Any]]:
    """Yield a few rows at a time; pages are read and unpacked one by one, not row groups as a whole."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(source, pre_buffer=False, buffer_size=_READ_AHEAD_BYTES) as file:
        _check_names(file.schema_arrow)
        row_bytes = _refuse_declared(file.metadata, most)
        cast = _cast_to_features(file.schema_arrow, limit_lifted)
        rows = max(1, min(ROWS_AT_ONCE, _BATCH_BYTES // row_bytes))
        for batch in file.iter_batches(batch_size=rows, use_threads=False):
            yield batch, cast


def _refuse_declared(metadata: Any, most: int) -> int:
    """Refuse a file by the sizes in its footer, before anything is unpacked; return the size of its largest rows."""
    total, row_bytes = 0, 1
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        row_bytes = max(row_bytes, group.total_byte_size // max(1, group.num_rows))
        for position in range(group.num_columns):
            column = group.column(position)
            # A run of equal values takes no bytes, and a value each in memory.
            total += max(0, column.total_uncompressed_size, column.num_values)
        _refuse_more(total, most, "bytes or values")
    return row_bytes


def _cast_to_features(schema: Any, limit_lifted: LimitLifted) -> Any:
    """Return what casts rows to the feature types that `datasets` has stored in a file of its own; None elsewhere."""
    if b"huggingface" not in (schema.metadata or {}):
        return None
    import pyarrow as pa

    with limit_lifted():
        import datasets
        from datasets.table import table_cast
    features = datasets.Features.from_arrow_schema(schema)
    return lambda batch: table_cast(pa.Table.from_batches([batch]), features.arrow_schema)


def _arrow_batches(source: Any, magic: bytes) -> Iterator[tuple[Any, Any]]:
    import pyarrow as pa

    options = pa.ipc.IpcReadOptions(use_threads=False)
    is_file = magic == b"ARROW1"
    reader = pa.ipc.open_file(source, options=options) if is_file else pa.ipc.open_stream(source, options=options)
    _check_names(reader.schema)
    batches = (reader.get_batch(i) for i in range(reader.num_record_batches)) if is_file else reader
    for batch in batches:
        # Offsets that lead out of a buffer would be followed unchecked.
        batch.validate(full=True)
        yield batch, None


def _check_names(schema: Any) -> None:
    if not schema.names:
        raise ValueError("it has no column")
    if (name := repeated_name(schema.names)) is not None:
        raise ValueError(f"two columns have the name {shown_name(name)}")


def _refuse_more(found: int, most: int, what: str) -> None:
    if found > most:
        raise TooLargeError(f"more than {most:,} {what}: {MAX_RATIO} times the size of the file are allowed")


def _rows(batch: Any, max_line_bytes: int, cast: Any) -> Iterator[dict[str, Any] | LineFault]:
    """Yield the rows of a small batch; values that many rows share are measured before they are copied."""
    if sum(_json_bytes(column) for column in batch.columns) <= max_line_bytes:
        yield from (batch if cast is None else cast(batch)).to_pylist()
        return
    for index in range(batch.num_rows):
        row = batch.slice(index, 1)
        if sum(_json_bytes(column) for column in row.columns) > max_line_bytes:
            yield too_long(max_line_bytes)
        else:
            yield from (row if cast is None else cast(row)).to_pylist()


def _json_bytes(array: Any) -> int:
    """Return a lower bound of the bytes that an array takes as JSON, shared values as often as they occur."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute

    # Its functions are made when it is imported, and no type checker knows them.
    pc: Any = pyarrow.compute
    kind, types = array.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _json_bytes(array.storage)
    if types.is_dictionary(kind):
        used = array.indices.drop_null().value_counts()
        values = array.dictionary.take(used.field(0))
        if types.is_nested(values.type) or types.is_dictionary(values.type):
            raise ValueError("a dictionary of lists or objects is not read")
        text = types.is_string(values.type) or types.is_large_string(values.type)
        return pc.sum(pc.multiply(pc.binary_length(values), used.field(1))).as_py() or 0 if text else 0
    if types.is_struct(kind):
        return sum(_json_bytes(field) for field in array.flatten())
    if types.is_map(kind):
        first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return sum(_json_bytes(part.slice(first, last - first)) for part in (array.keys, array.items))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        items = array.flatten()
        # Each item takes a byte or more, and one to separate it from the next.
        return len(items) + _json_bytes(items)
    if types.is_nested(kind):
        raise ValueError(f"a column of {kind} is not read")
    if types.is_string_view(kind) or types.is_binary_view(kind):
        # Each is 16 bytes that begin with its length.
        views = np.frombuffer(array.buffers()[1], np.int32).reshape(-1, 4)[array.offset : array.offset + len(array), 0]
        return int(views.sum(dtype=np.int64, initial=0))
    if types.is_string(kind) or types.is_large_string(kind):
        return pc.sum(pc.binary_length(array)).as_py() or 0
    return 0


def serve(file: BinaryIO, max_line_bytes: int, answers: BinaryIO, limit_lifted: LimitLifted = nullcontext) -> None:
    """Send every row of a file as a frame, and how it ended: `DONE`, or `ERROR` with its kind, words and row."""
    row = 0
    try:
        for line in table_rows(file, max_line_bytes, limit_lifted):
            row += 1
            if isinstance(line, bytes):
                _send(answers, ROW, line)
            else:
                _send(answers, FAULT, json.dumps([line.reason, line.text]).encode())
    except BrokenPipeError:
        return
    except ImportError as error:
        problem = ("missing", error.name or "a library")
    except TooLargeError as error:
        problem = ("large", str(error))
    except MemoryError:
        problem = ("memory", "")
    except Exception as error:  # noqa: BLE001 - a damaged or forged file makes the libraries raise anything
        problem = ("damaged", f"{type(error).__name__}: {(str(error).splitlines() or ['no reason given'])[0][:200]}")
    else:
        _send(answers, DONE, b"")
        answers.flush()
        return
    _send(answers, ERROR, json.dumps([*problem, row]).encode())
    answers.flush()


def _send(answers: BinaryIO, kind: bytes, content: bytes) -> None:
    answers.write(FRAME.pack(kind, len(content)))
    answers.write(content)


class _MemoryLimit:
    """A limit of the address space, counted from what the process has when it begins."""

    def __init__(self, allowance: int) -> None:
        self._allowance = allowance
        self._before = resource.getrlimit(resource.RLIMIT_AS)

    def begin(self) -> None:
        lower_limit(resource.RLIMIT_AS, address_space_bytes() + self._allowance)

    @contextmanager
    def lifted(self) -> Iterator[None]:
        resource.setrlimit(resource.RLIMIT_AS, self._before)
        yield
        self.begin()


def _end_with_the_parent() -> None:
    """Leave when standard input ends: the other end of it is open as long as the parent lives."""
    os.read(0, 1)
    os._exit(1)


def _main(arguments: Sequence[str]) -> None:
    # An interrupt is for the parent, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    go_offline()
    GUARD.activate()
    # Nothing but frames may reach the pipe, whatever a library prints.
    answers = os.fdopen(os.dup(1), "wb", buffering=1 << 18)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    # All that the decoding imports, before the memory is limited.
    import pyarrow as pa
    import pyarrow.compute
    import pyarrow.parquet

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    max_line_bytes = int(arguments[1])
    with os.fdopen(int(arguments[0]), "rb") as file:
        file_bytes = os.fstat(file.fileno()).st_size
        # Beyond it the kernel ends this process (SIGXCPU).
        lower_limit(resource.RLIMIT_CPU, processor_allowance(file_bytes))
        limit = _MemoryLimit(memory_allowance(file_bytes, max_line_bytes))
        limit.begin()
        serve(file, max_line_bytes, answers, limit.lifted)


if __name__ == "__main__":
    _main(sys.argv[1:])

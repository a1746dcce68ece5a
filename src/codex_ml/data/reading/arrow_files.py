"""Arrow files, of either kind, a few rows at a time: what they unpack to is judged before anything is unpacked."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from codex_ml.data.jsonl import too_long
from codex_ml.data.problems import LineFault
from codex_ml.data.reading.compressed import MAX_RATIO, RATIO_COUNTS_FROM_BYTES
from codex_ml.errors import DataError

# What one batch of a table, or group of rows, may take when it is unpacked; writers make them a hundredth of it.
MAX_GROUP_BYTES = 4 << 30
# A stored value may stand in many rows: so few of them at once keep the memory small.
ROWS_AT_ONCE = 64
_MAGIC = b"ARROW1"
# Kinds of message and places of fields in them: Message.fbs and File.fbs of the Arrow format.
_DICTIONARY, _RECORD_BATCH = 2, 3
_FOOTER_DICTIONARIES, _FOOTER_BATCHES = 2, 3
_ROOT = struct.Struct("<I")
_PREFIX = struct.Struct("<q")
# Before the format had compression, writers noted it here.
_EARLY_COMPRESSION = b"ARROW:experimental_compression"


class _Table:
    """A table of a FlatBuffer (https://flatbuffers.dev/internals): fields by their number, nothing read outside it."""

    def __init__(self, content: bytes, place: int) -> None:
        self._content = content
        self._place = place
        self._fields = place - self._number("<i", place)
        self._fields_bytes = self._number("<H", self._fields)

    @classmethod
    def root(cls, content: bytes) -> _Table:
        """Return the outermost table of a buffer."""
        return cls(content, _ROOT.unpack_from(content)[0])

    def number(self, field: int, kind: str) -> int:
        """Return a field that holds a number, 0 where it is left out."""
        place = self._field(field)
        return self._number(kind, place) if place else 0

    def table(self, field: int) -> _Table | None:
        """Return a field that holds a table."""
        place = self._field(field)
        return _Table(self._content, place + self._number("<I", place)) if place else None

    def structs(self, field: int, kind: str) -> Iterator[tuple[int, ...]]:
        """Yield what a field lists, each of fixed size."""
        if place := self._field(field):
            place += self._number("<I", place)
            layout = struct.Struct(kind)
            for index in range(self._number("<I", place)):
                yield layout.unpack_from(self._content, place + 4 + index * layout.size)

    def _field(self, field: int) -> int:
        slot = 4 + 2 * field
        within = self._number("<H", self._fields + slot) if slot + 2 <= self._fields_bytes else 0
        return self._place + within if within else 0

    def _number(self, kind: str, place: int) -> int:
        # The module would count a negative place from the end.
        if place < 0:
            raise struct.error("a place before the beginning")
        number: int = struct.unpack_from(kind, self._content, place)[0]
        return number


def arrow_rows(path: Path, name: str, max_line_bytes: int) -> Iterator[dict[str, Any] | LineFault]:
    """Yield the rows of an Arrow file (file format or stream); no more of them are in memory than a batch and 64.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        What it is called in errors.
    max_line_bytes : int
        A row whose text is longer is not made: a fault stands for it.

    Raises
    ------
    DataError
        If a batch unpacks to more than `MAX_GROUP_BYTES`, or all to more than `MAX_RATIO` times the size of the file.
    ValueError
        If it is damaged, or two columns have one name.
    """
    import pyarrow as pa

    with path.open("rb") as handle, pa.PythonFile(handle, "r") as source:
        is_file = handle.read(len(_MAGIC)) == _MAGIC
        try:
            _refuse_large(_messages(source, is_file), path.stat().st_size, name)
        except struct.error as error:
            raise ValueError(f"the notes of a batch are damaged ({error})") from error
        source.seek(0)
        reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
        names = reader.schema.names
        if len(set(names)) < len(names):
            raise ValueError("two columns have one name")
        batches = (reader.get_batch(i) for i in range(reader.num_record_batches)) if is_file else reader
        for batch in batches:
            # Places in it that lead elsewhere would be read by what is compiled, unchecked.
            batch.validate(full=True)
            for first in range(0, batch.num_rows, ROWS_AT_ONCE):
                yield from _rows(batch.slice(first, ROWS_AT_ONCE), max_line_bytes)


def _rows(batch: Any, max_line_bytes: int) -> Iterator[dict[str, Any] | LineFault]:
    """Yield the rows of a small batch; values that many rows share are measured before they are copied."""
    if sum(_text_bytes(column) for column in batch.columns) <= max_line_bytes:
        yield from batch.to_pylist()
        return
    for index in range(batch.num_rows):
        row = batch.slice(index, 1)
        if sum(_text_bytes(column) for column in row.columns) > max_line_bytes:
            yield too_long(max_line_bytes)
        else:
            yield from row.to_pylist()


def _text_bytes(array: Any) -> int:
    """Return how many bytes of text an array names, each as often as it is named."""
    import pyarrow as pa
    import pyarrow.compute

    # Its functions are made when it is imported, and no type checker knows them.
    pc: Any = pyarrow.compute
    kind, types = array.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _text_bytes(array.storage)
    if types.is_dictionary(kind):
        used = array.indices.drop_null().value_counts()
        values = array.dictionary.take(used.field(0))
        if types.is_nested(values.type) or types.is_dictionary(values.type):
            raise ValueError("a dictionary of lists or objects is not read")
        text = types.is_string(values.type) or types.is_large_string(values.type)
        return pc.sum(pc.multiply(pc.binary_length(values), used.field(1))).as_py() or 0 if text else 0
    if types.is_struct(kind):
        return sum(_text_bytes(field) for field in array.flatten())
    if types.is_map(kind):
        first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return sum(_text_bytes(part.slice(first, last - first)) for part in (array.keys, array.items))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _text_bytes(array.flatten())
    if types.is_nested(kind):
        raise ValueError(f"a column of {kind} is not read")
    if types.is_string_view(kind) or types.is_binary_view(kind):
        # Each is 16 bytes that begin with its length.
        views = np.frombuffer(array.buffers()[1], np.int32).reshape(-1, 4)[array.offset : array.offset + len(array), 0]
        return int(views.sum(dtype=np.int64, initial=0))
    if types.is_string(kind) or types.is_large_string(kind):
        return pc.sum(pc.binary_length(array)).as_py() or 0
    return 0


def _messages(source: Any, is_file: bool) -> Iterator[Any]:
    """Yield the messages of a file as its footer lists them (they may stand anywhere in it), or of a stream."""
    import pyarrow as pa

    if not is_file:
        source.seek(0)
        yield from pa.ipc.MessageReader.open_stream(source)
        return
    ending = 4 + len(_MAGIC)
    size = source.size()
    source.seek(max(0, size - ending))
    footer_bytes = _ROOT.unpack_from(source.read(ending))[0]
    if not 0 < footer_bytes < size - ending:
        raise ValueError("its footer has another length than it says")
    source.seek(size - ending - footer_bytes)
    footer = _Table.root(source.read(footer_bytes))
    for field in (_FOOTER_DICTIONARIES, _FOOTER_BATCHES):
        for place, _, _ in footer.structs(field, "<qi4xq"):
            if not 0 <= place < size:
                raise ValueError("its footer names a batch outside the file")
            source.seek(place)
            yield pa.ipc.read_message(source)


def _refuse_large(messages: Iterator[Any], file_bytes: int, name: str) -> None:
    """Stop before a batch is unpacked that says it would fill the memory, or a file that is made to."""
    kept = total = 0
    for message in messages:
        kind, unpacked_bytes = _declared(message.metadata.to_pybytes(), message.body)
        total += unpacked_bytes
        # Dictionaries stay in memory beside the batch at hand.
        kept += unpacked_bytes if kind == _DICTIONARY else 0
        if max(kept, unpacked_bytes) > MAX_GROUP_BYTES:
            raise DataError(
                f"{name}: a batch of rows unpacks to {max(kept, unpacked_bytes):,} bytes",
                why=f"allowed are {MAX_GROUP_BYTES:,}: a batch is unpacked at once",
                fix="write the file again with smaller batches (such as max_chunksize=10000)",
            )
        if total > max(RATIO_COUNTS_FROM_BYTES, MAX_RATIO * file_bytes):
            raise DataError(
                f"{name} holds far more than it should",
                why=f"its {file_bytes:,} bytes unpack to more than {total:,}; allowed are {MAX_RATIO} times as many: "
                "it may be made to fill the memory",
                fix="if you know what is in it, write it again without compression, or as JSON Lines",
            )


def _declared(metadata: bytes, body: Any) -> tuple[int, int]:
    """Return the kind of a message, and how many bytes its arrays take when they are unpacked."""
    message = _Table.root(metadata)
    kind = message.number(1, "<B")
    batch = message.table(2)
    if kind == _DICTIONARY and batch is not None:
        batch = batch.table(1)
    if kind not in (_DICTIONARY, _RECORD_BATCH) or batch is None:
        return kind, 0
    # Arrays of nothing have a length and no buffer.
    declared = sum(max(0, length) for length, _ in batch.structs(1, "<qq"))
    is_packed = batch.table(3) is not None or _EARLY_COMPRESSION in metadata
    for place, length in batch.structs(2, "<qq"):
        unpacked_bytes = length
        if is_packed and length:
            if place < 0 or length < _PREFIX.size:
                raise ValueError("a buffer is too short to be packed")
            unpacked_bytes = _PREFIX.unpack(body.slice(place, _PREFIX.size).to_pybytes())[0]
        # A length of -1 stands for bytes that were not worth packing.
        declared += length if unpacked_bytes < 0 else unpacked_bytes
    return kind, declared

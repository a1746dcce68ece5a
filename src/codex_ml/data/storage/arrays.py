"""Tokenised records as flat arrays, in memory or mapped from files, so that none of them stays as a Python object."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from codex_ml.data.contamination import DIGEST_BYTES, Digests, positions_in
from codex_ml.data.tokenization.tokenizer import TokenizedRecord

PARTS = ("tokens", "records", "texts")

# The highest bit of a token says that it is supervised; no vocabulary reaches it.
_SUPERVISED = np.uint32(1 << 31)
_HAS_REFERENCE, _PROMPT_REDACTED, _REFERENCE_REDACTED, _HAS_PROMPT_KEY = 1, 2, 4, 8
# `tokens_end` and `text_end` say where a record ends in the other arrays: it begins where the one before it ends.
_RECORD = np.dtype(
    [
        ("tokens_end", "<u8"),
        ("text_end", "<u8"),
        ("prompt_bytes", "<u8"),
        ("line", "<u8"),
        ("offset", "<u8"),
        ("prompt_length", "<u4"),
        ("supervised", "<u4"),
        ("file", "<u4"),
        ("flags", "<u4"),
        ("digest", "<u8", (2,)),
        ("prompt_key", "<u8", (2,)),
        ("content_key", "<u8", (2,)),
    ]
)
# The same row, for one record at a time, which numpy is slow at.
_ROW = struct.Struct("<QQQQQIIII16s16s16s")
assert _ROW.size == _RECORD.itemsize
_FLUSH_BYTES = 1 << 20


class RecordLocation(NamedTuple):
    """Where a record comes from, and what it is recognised by in another split.

    ``digest`` is over its bytes, ``prompt_key`` over its prompt (empty: it has none); see
    `codex_ml.data.contamination`.
    """

    file_name: str
    line_number: int
    offset: int
    digest: bytes
    prompt_key: bytes

    @property
    def record_id(self) -> str:
        """``"<file name>:<line>"``."""
        return f"{self.file_name}:{self.line_number}"


class Sink(Protocol):
    """Takes the bytes of one array, piece by piece."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""
        ...


class TokenArraysWriter:
    """Appends records to the arrays of one split.

    Parameters
    ----------
    sinks : mapping
        For each of `PARTS`, what takes its bytes.
    """

    def __init__(self, sinks: Mapping[str, Sink]) -> None:
        self._sinks = sinks
        self._waiting: dict[str, list[bytes]] = {part: [] for part in PARTS}
        self._waiting_bytes = 0
        self._tokens = self._text_bytes = 0
        self.file_names: list[str] = []

    def add(self, record: TokenizedRecord, place: RecordLocation) -> None:
        """Append one record."""
        tokens = np.array(record.input_ids, dtype=np.uint32)
        mask = np.array(record.supervised, dtype=bool)
        tokens[mask] |= _SUPERVISED
        token_bytes = tokens.tobytes()
        # Text of a chat template may hold anything that a Python string can.
        prompt = record.prompt.encode("utf-8", "surrogatepass")
        reference = b"" if record.reference is None else record.reference.encode("utf-8", "surrogatepass")
        self._tokens += len(tokens)
        self._text_bytes += len(prompt) + len(reference)
        if not self.file_names or self.file_names[-1] != place.file_name:
            self.file_names.append(place.file_name)
        flags = (
            _HAS_REFERENCE * (record.reference is not None)
            | _PROMPT_REDACTED * record.prompt_redacted
            | _REFERENCE_REDACTED * record.reference_redacted
            | _HAS_PROMPT_KEY * bool(place.prompt_key)
        )
        row = _ROW.pack(
            self._tokens,
            self._text_bytes,
            len(prompt),
            place.line_number,
            place.offset,
            record.prompt_length,
            int(mask.sum()),
            len(self.file_names) - 1,
            flags,
            place.digest,
            place.prompt_key,
            hashlib.sha256(token_bytes).digest()[:DIGEST_BYTES],
        )
        self._put("tokens", token_bytes)
        self._put("records", row)
        self._put("texts", prompt + reference)
        if self._waiting_bytes >= _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand over what still waits."""
        for part, pieces in self._waiting.items():
            self._sinks[part].write(b"".join(pieces))
            pieces.clear()
        self._waiting_bytes = 0

    def _put(self, part: str, data: bytes) -> None:
        self._waiting[part].append(data)
        self._waiting_bytes += len(data)


@dataclass(frozen=True)
class TokenArrays:
    """The arrays of one split.

    Attributes
    ----------
    tokens : uint32 array
        Token ids of all records, one after the other, the highest bit set where a token is supervised.
    records : structured array
        One row a record.
    texts : uint8 array
        Prompt and reference of each record in UTF-8.
    file_names : tuple of str
        Names of the files that the records come from.
    """

    tokens: NDArray[np.uint32]
    records: NDArray[np.void]
    texts: NDArray[np.uint8]
    file_names: tuple[str, ...]

    @classmethod
    def of_buffers(cls, buffers: Mapping[str, Any], file_names: Sequence[str]) -> TokenArrays:
        """Return the arrays whose bytes lie in buffers, one for each of `PARTS`.

        Raises
        ------
        ValueError
            If they do not belong together, so that a record would reach beyond its array.
        """
        tokens = _array(buffers["tokens"], np.dtype("<u4"))
        records = _array(buffers["records"], _RECORD)
        arrays = cls(tokens, records, _array(buffers["texts"], np.dtype(np.uint8)), tuple(file_names))
        arrays._check()
        return arrays

    def row(self, index: int) -> tuple[Any, ...]:
        """Return one row of the records."""
        return _ROW.unpack(self.records[index].tobytes())

    def _check(self) -> None:
        records = self.records
        for name, whole in (("tokens_end", len(self.tokens)), ("text_end", len(self.texts))):
            ends = records[name]
            if bool(np.any(ends[1:] < ends[:-1])) or (int(ends[-1]) if len(ends) else 0) != whole:
                raise ValueError(f"{name} does not fit the array")
        lengths, texts = _widths(records["tokens_end"]), _widths(records["text_end"])
        if (
            bool(np.any(records["prompt_length"] > lengths))
            or bool(np.any(records["supervised"] > lengths))
            or bool(np.any(records["prompt_bytes"] > texts))
            or bool(np.any(records["file"] >= len(self.file_names)))
        ):
            raise ValueError("a record reaches beyond its part of the arrays")


class StoredRecords(Sequence[TokenizedRecord]):
    """The records of a split, each made when it is asked for; what is asked of all at once comes from the arrays.

    Parameters
    ----------
    arrays : TokenArrays
        Where they lie.
    rows : range, optional
        Which of them are meant; all by default.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, arrays: TokenArrays, rows: range | None = None) -> None:
        self._arrays = arrays
        self._rows = range(len(arrays.records)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> TokenizedRecord: ...

    @overload
    def __getitem__(self, index: slice) -> StoredRecords: ...

    def __getitem__(self, index: int | slice) -> TokenizedRecord | StoredRecords:
        if isinstance(index, slice):
            return StoredRecords(self._arrays, self._rows[index])
        return self._record(self._rows[index])

    def __iter__(self) -> Iterator[TokenizedRecord]:
        return map(self._record, self._rows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names of the files that the records of the whole split come from."""
        return self._arrays.file_names

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """How many tokens each record has."""
        return _widths(self._arrays.records["tokens_end"])[self._index].astype(np.int64)

    @property
    def supervised_counts(self) -> NDArray[np.int64]:
        """How many tokens of each record are learned."""
        return self._column("supervised").astype(np.int64)

    @property
    def offsets(self) -> list[int]:
        """Where each record begins in its file, in bytes."""
        return [int(offset) for offset in self._column("offset")]

    def counts_by_file(self) -> dict[str, int]:
        """Return how many of the records come from each file, by its name; the files that have one, in their order."""
        numbers, counts = np.unique(self._column("file"), return_counts=True)
        names = self._arrays.file_names
        return {names[number]: int(count) for number, count in zip(numbers, counts, strict=True)}

    def shared_bytes(self, other: StoredRecords) -> int:
        """Count the records whose very bytes stand in another split."""
        return _shared(self._column("digest"), other._column("digest"))

    def shared_content(self, other: StoredRecords) -> int:
        """Count the records of which another split has one with the same token ids and supervision."""
        return _shared(self._column("content_key"), other._column("content_key"))

    def found_in(self, digests: Digests) -> int:
        """Count the records whose bytes have one of these digests."""
        return _shared(self._column("digest"), digests)

    def shared_prompts(self, other: StoredRecords) -> int:
        """Count the records whose prompt stands in another split."""
        return _shared(self._prompt_keys(), other._prompt_keys())

    def _prompt_keys(self) -> NDArray[Any]:
        keys: NDArray[Any] = self._column("prompt_key")[(self._column("flags") & _HAS_PROMPT_KEY) != 0]
        return keys

    @property
    def _index(self) -> slice | NDArray[np.int64]:
        rows = self._rows
        return slice(rows.start, rows.stop) if rows.step == 1 else np.asarray(rows, dtype=np.int64)

    def _column(self, name: str) -> NDArray[Any]:
        column: NDArray[Any] = self._arrays.records[name][self._index]
        return column

    def _record(self, row: int) -> TokenizedRecord:
        arrays = self._arrays
        end, text_end, prompt_bytes, line, _, prompt_length, _, file, flags, *_ = arrays.row(row)
        start, text_start = (0, 0) if row == 0 else arrays.row(row - 1)[:2]
        tokens = arrays.tokens[start:end]
        text = arrays.texts[text_start:text_end].tobytes()
        reference = text[prompt_bytes:].decode("utf-8", "surrogatepass") if flags & _HAS_REFERENCE else None
        return TokenizedRecord(
            record_id=f"{arrays.file_names[file]}:{line}",
            input_ids=tuple((tokens & ~_SUPERVISED).tolist()),
            supervised=tuple((tokens >= _SUPERVISED).tolist()),
            prompt_length=prompt_length,
            prompt=text[:prompt_bytes].decode("utf-8", "surrogatepass"),
            reference=reference,
            prompt_redacted=bool(flags & _PROMPT_REDACTED),
            reference_redacted=bool(flags & _REFERENCE_REDACTED),
        )


class ArrayPlace(Protocol):
    """Where the arrays of splits are put."""

    def sinks(self, split: str) -> Mapping[str, Sink]:
        """Return what takes the arrays of a split."""
        ...

    def arrays(self, split: str, file_names: Sequence[str]) -> TokenArrays:
        """Return the finished arrays of a split."""
        ...


class MemorySink:
    """Keeps the bytes of an array."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes, /) -> None:
        """Take the next bytes."""
        self.data += data


class MemoryArrays:
    """Keeps the arrays of splits in memory."""

    def __init__(self) -> None:
        self._sinks: dict[str, dict[str, MemorySink]] = {}

    def sinks(self, split: str) -> Mapping[str, Sink]:
        """Return what takes the arrays of a split."""
        return self._sinks.setdefault(split, {part: MemorySink() for part in PARTS})

    def arrays(self, split: str, file_names: Sequence[str]) -> TokenArrays:
        """Return the finished arrays of a split."""
        return TokenArrays.of_buffers({part: sink.data for part, sink in self._sinks[split].items()}, file_names)


def lengths_of(records: Sequence[Any]) -> NDArray[np.int64]:
    """Return how many tokens each record of a sequence has."""
    if isinstance(records, StoredRecords):
        return records.lengths
    return np.array([len(record.input_ids) for record in records], dtype=np.int64)


def supervised_counts_of(records: Sequence[Any]) -> NDArray[np.int64]:
    """Return how many tokens of each record of a sequence are learned; the first never is, for nothing predicts it."""
    if isinstance(records, StoredRecords):
        return records.supervised_counts
    return np.array([sum(record.supervised[1:]) for record in records], dtype=np.int64)


def _shared(digests: NDArray[Any], others: NDArray[Any]) -> int:
    return int(np.count_nonzero(positions_in(digests, others) >= 0))


def _widths(ends: NDArray[Any]) -> NDArray[np.int64]:
    widths = ends.astype(np.int64)
    widths[1:] -= widths[:-1].copy()
    return widths


def _array(buffer: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.frombuffer(buffer, dtype=dtype) if len(buffer) else np.empty(0, dtype=dtype)

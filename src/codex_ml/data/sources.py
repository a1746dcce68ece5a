"""The files behind a data set, read and divided into splits, and what identifies them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codex_ml.config.schema.data import RATIO_ORDER, DataSection
from codex_ml.data.accounting import FileAccount, Rejects, refuse_too_many
from codex_ml.data.problems import LineFault, Problems
from codex_ml.data.readers.jsonl import FaultyLine, JsonLine, Lines, parsed_lines
from codex_ml.data.readers.registry import open_records
from codex_ml.data.records.formats import Record, RecordReader
from codex_ml.data.split_utils import SPLIT_NAMES
from codex_ml.data.splits.groups import group_key, record_key
from codex_ml.data.splits.hash import SplitHasher, shares_of, split_of, thresholds_by_rank, thresholds_by_value
from codex_ml.errors import DataError
from codex_ml.io.atomic import file_digest


@dataclass(frozen=True)
class SourceRecord:
    """One checked record, where it came from, its bytes and value there, and the key that decides its split."""

    file_name: str
    line_number: int
    offset: int
    raw: bytes
    value: Mapping[str, Any]
    split_key: bytes
    record: Record

    @property
    def record_id(self) -> str:
        """``"<file name>:<line>"``."""
        return f"{self.file_name}:{self.line_number}"


@dataclass(frozen=True)
class SourceFile:
    """What identifies a file: its name without the directory, its digest, its size; how it was read, and what not."""

    name: str
    digest: str
    byte_count: int
    format: str
    account: FileAccount
    rejects: Rejects

    def to_dict(self) -> dict[str, Any]:
        """Return the part that belongs in ``data_splits.json``."""
        return {"name": self.name, "digest": self.digest, "bytes": self.byte_count, "format": self.format}


class SourceStream:
    """The records of one file, each with the split it falls into, one at a time.

    The division looks at the bytes of the file, before any filter touches them: a new safety policy moves no record.
    With ``data.split.exact_sizes`` the file is read twice: which ranks a split has is known at the end only.

    Parameters
    ----------
    key : str
        Where the data section names the file: ``path``, ``train``, ``files.notes`` …
    path : Path
        The file.
    data : DataSection
        How it is read and divided.
    splits : sequence of str
        The splits that are wanted of it; records of others are read, checked, and passed over.
    name : str, optional
        What the file is called in messages and accounts; default: its name without the directory.
    open_file : callable
        Opens the file, given the longest line that is read.

    Attributes
    ----------
    file : SourceFile
        What identifies the file and what was left out of it; known when the iteration has come to its end.
    """

    file: SourceFile

    def __init__(
        self,
        key: str,
        path: Path,
        data: DataSection,
        splits: Sequence[str],
        name: str | None = None,
        open_file: Callable[[Path, int], Lines] = open_records,
    ) -> None:
        self.key = key
        self.path = path
        self.weight = data.weights.get(key.removeprefix("files."), 1.0)
        self._name = path.name if name is None else name
        self.splits = tuple(splits)
        self._open_file = open_file
        self._data = data

    def __iter__(self) -> Iterator[tuple[str, SourceRecord]]:
        """Yield the name of its split and each record, in the order of the file.

        Raises
        ------
        DataError
            If the file cannot be read or changes meanwhile, or, at the end, if lines are faulty: any of them with
            ``data.on_bad_record=error``, with ``drop`` a larger share than ``data.max_bad_share``.
        """
        if not self._data.is_divided:
            for record in self._records():
                yield self.key, record
            return
        hasher = SplitHasher(self._data.split.seed)
        thresholds, digest = self._thresholds(hasher)
        for record in self._records():
            name = SPLIT_NAMES[split_of(hasher(record.split_key), thresholds)]
            if name in self.splits:
                yield name, record
        if digest is not None and self.file.digest != digest:
            raise DataError(
                f"{self._name} changed while it was read",
                fix="try again when nothing writes to it",
                code="DATA_FILE_CHANGED",
            )

    def _thresholds(self, hasher: SplitHasher) -> tuple[list[int], str | None]:
        """Return the hash below which each split ends, and the digest of the file where it had to be read for that."""
        split = self._data.split
        shares = shares_of(split.ratios, len(SPLIT_NAMES))
        if not split.exact_sizes:
            return thresholds_by_value(shares), None
        hashes = np.sort(np.fromiter((hasher(record.split_key) for record in self._records()), dtype=np.uint64))
        return thresholds_by_rank(shares, len(hashes), lambda rank: int(hashes[rank])), self.file.digest

    def _records(self) -> Iterator[SourceRecord]:
        """Yield every record of the file, as long as it looks usable."""
        data, name = self._data, self._name
        problems, rejects, read, kept = Problems(), Rejects(name), 0, 0
        file = self._open_file(self.path, data.max_line_bytes)
        reader = RecordReader(data.format, data.columns)
        for line in parsed_lines(file):
            read += 1
            checked = line.fault if isinstance(line, FaultyLine) else _checked(line, reader, data, name)
            if isinstance(checked, SourceRecord):
                kept += 1
                # What will be refused in the end need not be tokenised first.
                if data.on_bad_record == "drop" or not problems.count:
                    yield checked
                continue
            problems.add(f"{name}:{line.line_number}", checked.at(line.offset))
            if data.on_bad_record == "drop":
                rejects.add(line.line_number, line.offset, checked.reason)
            elif checked.reason == "bad_shape" and reader.format is None:
                # Where the format itself is unknown, every line would say so again.
                break
        if data.on_bad_record == "error":
            problems.raise_if_any()
        refuse_too_many(rejects, problems, read, data.max_bad_share)
        account = FileAccount(name, file.empty_lines, dict(reader.unused_columns), read, kept, rejects.counts())
        self.file = SourceFile(name, file.digest, file.byte_count, str(reader.format), account, rejects)


def open_sources(data: DataSection, splits: Collection[str] = SPLIT_NAMES) -> list[SourceStream]:
    """Return the files of a data section as streams of records; none is opened yet.

    Raises
    ------
    DataError
        If no file is named, or valid or test is the file of train.
    """
    wanted = [name for name in RATIO_ORDER if name in splits and data.has_split(name)]
    if data.path is not None:
        return [SourceStream("path", data.path, data, wanted)]
    if data.files:
        _refuse_file_twice(data.files)
        called = Counter(path.name for path in data.files.values())
        return [
            # Every record has one name: where two files share theirs, that of data.files goes before it.
            SourceStream(
                f"files.{name}", path, data, wanted, path.name if called[path.name] == 1 else f"{name}:{path.name}"
            )
            for name, path in data.files.items()
        ]
    paths = {name: path for name in SPLIT_NAMES if name in splits and (path := getattr(data, name)) is not None}
    if not paths:
        raise DataError(
            "data: no file is named",
            fix="set data.path=FILE.jsonl (it is split by data.split), data.files={NAME:FILE.jsonl,…}, or data.train, "
            "data.valid and data.test",
            code="DATA_NO_FILE_NAMED",
        )
    _refuse_file_of_train(data, paths)
    return [SourceStream(name, path, data, [name]) for name, path in paths.items()]


def _checked(line: JsonLine, reader: RecordReader, data: DataSection, name: str) -> SourceRecord | LineFault:
    """Return the record of a line with its key, or what is wrong with it."""
    group_by = data.split.group_by if data.is_divided else None
    try:
        record = reader.read(line.value)
    except ValueError as error:
        return LineFault("bad_shape", str(error))
    try:
        key = record_key(line.raw) if group_by is None else group_key(line.value, group_by, data.columns)
    except ValueError as error:
        return LineFault("no_group", str(error))
    return SourceRecord(name, line.line_number, line.offset, line.raw, line.value, key, record)


def _refuse_file_twice(files: Mapping[str, Path]) -> None:
    """Stop if one file has two names: its records would silently count twice."""
    seen: dict[tuple[int, int], str] = {}
    for name, path in files.items():
        if not path.is_file():
            continue
        status = path.stat()
        other = seen.setdefault((status.st_dev, status.st_ino), name)
        if other != name:
            raise DataError(
                f"data.files: {other} and {name} are the same file ({path.name})",
                why="its records would be twice in every split",
                fix=f"keep one of the two; data.weights={{{other}: 2}} repeats its records in train alone",
                code="DATA_SAME_FILE_TWICE",
            )


def _refuse_file_of_train(data: DataSection, paths: Mapping[str, Path]) -> None:
    """Stop when records are to be measured on that are all trained on, whether or not train is itself read now."""
    train = data.train
    if train is None or not train.is_file():
        return
    for name, path in paths.items():
        if name == "train" or not path.is_file() or path.stat().st_size != train.stat().st_size:
            continue
        if path.samefile(train) or file_digest(path) == file_digest(train):
            raise DataError(
                f"data.{name} and data.train are the same file, or copies of it ({path.name})",
                why="a score on records that were trained on measures memory, not skill",
                fix=f"name another file, or give one file by data.path, from which data.split sets {name} apart",
                code="DATA_SAME_FILE_TWICE",
            )

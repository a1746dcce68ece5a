"""The files behind a data set, read and divided into splits, and what identifies them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codex_ml.config.schema.data import DataSection
from codex_ml.data.account import FileAccount
from codex_ml.data.jsonl import FaultyLine, JsonLine, parsed_lines
from codex_ml.data.problems import LineFault, Problems
from codex_ml.data.readers import open_records
from codex_ml.data.records import Record, RecordReader
from codex_ml.data.rejects import Rejects, refuse_too_many
from codex_ml.data.split_groups import group_key, record_key
from codex_ml.data.split_utils import SPLIT_NAMES, assign_splits
from codex_ml.errors import DataError
from codex_ml.storage import file_digest


@dataclass(frozen=True)
class SourceRecord:
    """One checked record, the file and line it came from, its bytes there, and the key that decides its split."""

    file_name: str
    line_number: int
    offset: int
    raw: bytes
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


@dataclass(frozen=True)
class Sources:
    """All records by split, in the order of their files, and the files by split."""

    records: dict[str, list[SourceRecord]] = field(default_factory=dict)
    files: dict[str, SourceFile] = field(default_factory=dict)


def read_sources(data: DataSection, splits: Collection[str] = SPLIT_NAMES) -> Sources:
    """Read the files of a data section and divide them, by ``data.split`` or as they are given.

    The division looks at the bytes of the file, before any filter touches them: a new safety policy moves no record.

    Raises
    ------
    DataError
        If no file is named, a file cannot be read, valid or test is the file of train, or lines are faulty: all of them
        at once, by ``file:line``.
    """
    if data.path is not None:
        return _read_and_divide(data, data.path, splits)
    paths = {name: path for name in SPLIT_NAMES if name in splits and (path := getattr(data, name)) is not None}
    if not paths:
        raise DataError(
            "data: no file is named",
            fix="set data.path=FILE.jsonl (it is split by data.split), or data.train, data.valid and data.test",
        )
    _refuse_file_of_train(data, paths)
    sources = Sources()
    for name, path in paths.items():
        sources.records[name], sources.files[name] = read_file(path, data)
    return sources


def read_file(path: Path, data: DataSection) -> tuple[list[SourceRecord], SourceFile]:
    """Read one file, every line of which has the same shape.

    Raises
    ------
    DataError
        If the file cannot be read, or lines are faulty: any of them with ``data.on_bad_record=error``, with ``drop`` a
        larger share than ``data.max_bad_share``.
    """
    problems, rejects, read = Problems(), Rejects(path.name), 0
    file = open_records(path, data.max_line_bytes)
    reader = RecordReader(data.format, data.columns)
    records: list[SourceRecord] = []
    for line in parsed_lines(file):
        read += 1
        checked = line.fault if isinstance(line, FaultyLine) else _checked(line, reader, data, path.name)
        if isinstance(checked, SourceRecord):
            records.append(checked)
            continue
        problems.add(f"{path.name}:{line.line_number}", checked.at(line.offset))
        if data.on_bad_record == "drop":
            rejects.add(line.line_number, line.offset, checked.reason)
        elif checked.reason == "bad_shape" and reader.format is None:
            # Where the format itself is unknown, every line would say so again.
            break
    if data.on_bad_record == "error":
        problems.raise_if_any()
    refuse_too_many(rejects, problems, read, data.max_bad_share)
    account = FileAccount(
        path.name, file.empty_lines, dict(reader.unused_columns), read, len(records), rejects.counts()
    )
    return records, SourceFile(path.name, file.digest, file.byte_count, str(reader.format), account, rejects)


def _checked(line: JsonLine, reader: RecordReader, data: DataSection, name: str) -> SourceRecord | LineFault:
    """Return the record of a line with its key, or what is wrong with it."""
    group_by = data.split.group_by if data.path is not None else None
    try:
        record = reader.read(line.value)
    except ValueError as error:
        return LineFault("bad_shape", str(error))
    try:
        key = record_key(line.raw) if group_by is None else group_key(line.value, group_by, data.columns)
    except ValueError as error:
        return LineFault("no_group", str(error))
    return SourceRecord(name, line.line_number, line.offset, line.raw, key, record)


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
            )


def _read_and_divide(data: DataSection, path: Path, splits: Collection[str]) -> Sources:
    records, source = read_file(path, data)
    keys = [record.split_key for record in records]
    assignment = assign_splits(keys, data.split.seed, data.split.ratios, data.split.exact_sizes)
    sources = Sources()
    for index, name in enumerate(SPLIT_NAMES):
        if name in splits and data.split.ratios[index] > 0:
            sources.records[name] = [
                record for record, split in zip(records, assignment, strict=True) if split == index
            ]
            sources.files[name] = source
    return sources

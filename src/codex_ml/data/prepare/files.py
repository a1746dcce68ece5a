"""Source files read, and prepared files written completely or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import orjson

from codex_ml.data.accounting import Rejects, refuse_too_many
from codex_ml.data.prepare.config import PreparerConfig, map_columns
from codex_ml.data.problems import LineFault, Problems, shown_name
from codex_ml.data.readers.jsonl import FaultyLine, parsed_lines
from codex_ml.data.readers.registry import open_records
from codex_ml.data.records.formats import RecordReader
from codex_ml.errors import DataError
from codex_ml.io.atomic import PARTIAL_SUFFIX, Storage, file_digest
from codex_ml.io.untrusted import UntrustedFileError, read_bytes, read_json

# A document is held in memory as a whole; a stream of lines is not.
_LARGEST_DOCUMENT_BYTES = 1 << 30
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Lines of nothing but blanks, with the line end before them.
_BETWEEN_PARAGRAPHS = re.compile(r"(?:(?<=\n)|^)(?:[ \t]*\r?\n)+")


class Row(NamedTuple):
    """One raw row: its number in the file (from 1), the byte it begins at, and its value or what is wrong with it."""

    number: int
    offset: int
    value: dict[str, Any] | LineFault


def read_source(path: Path, config: PreparerConfig) -> Iterator[Row]:
    """Yield the rows of one raw file.

    Raises
    ------
    DataError
        If the file as a whole cannot be read so.
    """
    if config.kind == "text":
        yield from _read_text(path, config.unit)
    elif path.suffix.lower() == ".json":
        yield from _read_document(path, config.records_at)
    elif config.records_at is not None:
        raise DataError(f"records_at: {path.name} is no .json file", fix="leave records_at out: each line is a record")
    else:
        for line in parsed_lines(open_records(path)):
            value = line.fault if isinstance(line, FaultyLine) else line.value
            yield Row(line.line_number, line.offset, value)


def _read_document(path: Path, records_at: str | None) -> Iterator[Row]:
    try:
        document = read_json(path, _LARGEST_DOCUMENT_BYTES)
    except (UntrustedFileError, OSError) as error:
        raise DataError(
            f"{path.name} cannot be read as JSON",
            why=str(error),
            fix="correct it; one object a line is read from a file called .jsonl, however long",
        ) from error
    for name in (records_at or "").split(".") if records_at else ():
        if not isinstance(document, dict) or name not in document:
            raise DataError(f"records_at: {path.name} holds nothing at {records_at!r}", fix="correct the path")
        document = document[name]
    if not isinstance(document, list):
        is_object = isinstance(document, dict)
        keys = ", ".join(shown_name(key) for key in list(document)[:10]) if is_object else type(document).__name__
        raise DataError(
            f"{path.name}: {records_at or 'the document'} is no list of records",
            why=f"found: {keys}",
            fix="name the list inside it: --records-at PATH",
        )
    for number, value in enumerate(document, start=1):
        # Where an element begins is not known once the document is parsed.
        yield Row(number, 0, value if isinstance(value, dict) else LineFault("not_an_object", "a record is an object"))


def _read_text(path: Path, unit: str) -> Iterator[Row]:
    try:
        content = read_bytes(path, _LARGEST_DOCUMENT_BYTES)
    except (UntrustedFileError, OSError) as error:
        raise DataError(f"{path.name} cannot be read", why=str(error), fix="name a readable file of text") from error
    content = content.removeprefix(_BYTE_ORDER_MARK)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name}: byte {error.start} is not UTF-8 ({error.reason})",
            fix="convert the file, for example with: iconv -f LATIN1 -t UTF-8",
        ) from None
    offset = 0
    for number, (before, part) in enumerate(_units(text, unit), start=1):
        offset += len(before.encode())
        yield Row(number, offset, {"text": part})
        offset += len(part.encode())


def _units(text: str, unit: str) -> Iterator[tuple[str, str]]:
    """Yield each unit with what stands before it and belongs to none: line ends and blank lines."""
    if unit == "file":
        if text.strip():
            yield "", text
        return
    before = ""
    for part, behind in _lines(text) if unit == "line" else _paragraphs(text):
        if part.strip():
            yield before, part
            before = behind
        else:
            before += part + behind


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        bare = line.removesuffix("\n").removesuffix("\r") if line.endswith("\n") else line
        yield bare, line[len(bare) :]


def _paragraphs(text: str) -> Iterator[tuple[str, str]]:
    start = 0
    for gap in _BETWEEN_PARAGRAPHS.finditer(text):
        # The line end of the last line is the paragraph's border, not its text.
        paragraph = text[start : gap.start()]
        bare = paragraph.removesuffix("\n").removesuffix("\r") if paragraph.endswith("\n") else paragraph
        yield bare, paragraph[len(bare) :] + gap.group()
        start = gap.end()
    paragraph = text[start:]
    bare = paragraph.removesuffix("\n").removesuffix("\r") if paragraph.endswith("\n") else paragraph
    if bare:
        yield bare, paragraph[len(bare) :]


WriteRecords = Callable[[Iterable[dict[str, Any]], BinaryIO], int]


@dataclass
class PrepareAccount:
    """What became of the rows: ``read = written + Σ dropped(reason)``."""

    rows_read: int = 0
    records_written: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    numbers_as_text: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON."""
        return {
            "rows_read": self.rows_read,
            "records_written": self.records_written,
            "dropped": dict(sorted(self.dropped.items())),
            "numbers_as_text": self.numbers_as_text,
        }


def write_records(records: Iterable[dict[str, Any]], file: BinaryIO) -> int:
    r"""Write one compact JSON object a line in UTF-8, each ended by ``\n``; return how many.

    Raises
    ------
    DataError
        If a record holds what JSON cannot, such as a date that code of the user's gave.
    """
    count = 0
    for record in records:
        count += 1
        try:
            file.write(_json_line(record))
        except (TypeError, ValueError) as error:
            raise DataError(f"record {count} cannot be written as JSON", why=str(error), fix="give text") from error
    return count


def _json_line(record: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        # A whole number beyond 64 bits is sound JSON; what is not is refused here too.
        text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8") + b"\n"


class RecordMaker:
    """Makes records of rows, and keeps the account and the rejects over several files.

    Parameters
    ----------
    config : PreparerConfig
        How.
    """

    def __init__(self, config: PreparerConfig) -> None:
        self._config = config
        self._reader = RecordReader(config.format, {})
        self.account = PrepareAccount()
        self.rejects: list[Rejects] = []
        self._problems = Problems()

    def records(self, path: Path, rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
        """Yield the records of one raw file.

        Raises
        ------
        DataError
            If the file has no row; with ``on_bad_record: drop`` if more than ``max_bad_share`` of its rows are bad.
        """
        is_dropped = self._config.on_bad_record == "drop"
        problems, rejects = Problems() if is_dropped else self._problems, Rejects(path.name)
        self.rejects.append(rejects)
        read_before = self.account.rows_read
        for row in rows:
            self.account.rows_read += 1
            try:
                record = self._record(row)
            except ValueError as error:
                fault = error if isinstance(error, LineFault) else LineFault("bad_shape", str(error))
                problems.add(f"{path.name}:{row.number}", fault.at(row.offset))
                rejects.add(row.number, row.offset, fault.reason)
                self.account.dropped[fault.reason] += 1
                continue
            self.account.records_written += 1
            yield record
        read = self.account.rows_read - read_before
        if is_dropped:
            refuse_too_many(rejects, problems, read, self._config.max_bad_share)
        if not read:
            raise DataError(f"{path.name}: there is no record in it", fix="name another file: --source FILE")

    def finish(self) -> None:
        """Raise one `DataError` for the bad rows of all files, unless they are dropped; check the account."""
        if self._config.on_bad_record == "error":
            self._problems.raise_if_any()
        account = self.account
        if account.rows_read != account.records_written + account.dropped.total():
            raise DataError(
                f"the account does not add up: {account.to_dict()}",
                why="a row was lost or counted twice",
                fix="this is a fault of codex-ml: please report it with the counts above",
            )

    def _record(self, row: Row) -> dict[str, Any]:
        if isinstance(row.value, LineFault):
            raise row.value
        record = row.value
        if self._config.columns:
            record, converted = map_columns(record, self._config.columns)
            self.account.numbers_as_text += converted
        # The reader of training has the last word on what a record is.
        self._reader.read(record)
        return record


MANIFEST_NAME = "prepare.json"
Change = Literal["created", "updated", "skipped", "removed"]


@contextmanager
def exclusive_lock(target: Path, storage: Storage) -> Iterator[None]:
    """Hold a lock on the directory above ``target``, which leaves no file behind; whoever comes second waits."""
    missing = [parent for parent in target.parents if not parent.exists()]
    storage.make_directory(target.parent)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
        for parent in missing:
            # Made for the target alone; where that has come to be, it is not empty.
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


def digests_below(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a directory but the manifest itself, by its path there."""
    files = (path for path in directory.rglob("*") if path.is_file() and path != directory / MANIFEST_NAME)
    return {path.relative_to(directory).as_posix(): file_digest(path) for path in sorted(files)}


def what_is_there(target: Path) -> Mapping[str, Any] | None:
    """Return the manifest of a directory that an earlier preparation made; None where nothing is there.

    Raises
    ------
    DataError
        If something else is there, or a file in it is no longer as it was written: it would be lost.
    """
    if not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
        return None
    try:
        manifest = read_json(target / MANIFEST_NAME) if target.is_dir() else None
    except (UntrustedFileError, OSError, ValueError):
        manifest = None
    outputs = manifest.get("outputs") if isinstance(manifest, dict) else None
    if not isinstance(manifest, dict) or not isinstance(outputs, dict):
        raise DataError(
            f"{target} exists and was not made by data prepare",
            why="what others made is never written over",
            fix="name another directory: --out DIR",
        )
    found = digests_below(target)
    changed = sorted(name for name in found.keys() | outputs.keys() if found.get(name) != outputs.get(name))
    if changed:
        raise DataError(
            f"{target}: {', '.join(changed[:5])}{' …' if len(changed) > 5 else ''} changed since it was prepared",
            why="a change that was made by hand is never written over",
            fix="name another directory: --out DIR, or move this one away",
        )
    return manifest


def recover(target: Path, storage: Storage) -> None:
    """Put back, or remove, what a preparation that was killed between its two renames left beside ``target``."""
    old = _set_aside(target)
    if not old.is_dir():
        return
    if os.path.lexists(target):
        storage.remove_tree(old)
    else:
        storage.replace(old, target)
    storage.fsync_directory(target.parent)


def publish(made: Path, target: Path, before: Mapping[str, Any] | None, storage: Storage) -> dict[str, Change]:
    """Force a finished directory to the disk and put it in the place of the one before it.

    Between two renames nothing lies at ``target``; at no moment does a mixture of old and new files. The manifest in
    ``made`` is written already.

    Returns
    -------
    dict
        What became of each file: created, updated, skipped (the same bytes as before) or removed.
    """
    for path in sorted(made.rglob("*"), reverse=True):
        (storage.fsync_directory if path.is_dir() else storage.fsync_file)(path)
    storage.fsync_directory(made)
    old = _set_aside(target)
    if before is not None:
        storage.replace(target, old)
    storage.replace(made, target)
    storage.fsync_directory(target.parent)
    if old.is_dir():
        storage.remove_tree(old)
    manifest = json.loads((target / MANIFEST_NAME).read_bytes())
    return changes(manifest["outputs"], {} if before is None else before["outputs"])


def changes(outputs: Mapping[str, str], before: Mapping[str, str]) -> dict[str, Change]:
    """Return what became of each file, from the digests now and before."""
    found: dict[str, Change] = {name: "removed" for name in sorted(before) if name not in outputs}
    for name, digest in outputs.items():
        found[name] = "created" if name not in before else "skipped" if before[name] == digest else "updated"
    return found


def _set_aside(target: Path) -> Path:
    # One name for all processes: whoever holds the lock finds what another has left.
    return target.with_name(f".{target.name}.before{PARTIAL_SUFFIX}")

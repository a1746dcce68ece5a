"""Rows of raw files written as one file of clean records, every row accounted for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from codex_ml.data.prepare.config import PreparerConfig
from codex_ml.data.prepare.mapping import map_columns
from codex_ml.data.prepare.reading import Row
from codex_ml.data.problems import LineFault, Problems
from codex_ml.data.records import RecordReader
from codex_ml.data.rejects import Rejects, refuse_too_many
from codex_ml.errors import DataError

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

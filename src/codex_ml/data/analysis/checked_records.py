"""The records of one file, each checked against the shape of the file, for commands that only look at them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from codex_ml.data.jsonl import FaultyLine, JsonLine, Lines, parsed_lines
from codex_ml.data.problems import Problems
from codex_ml.data.records import Record, RecordReader


class CheckedRecords:
    """Iterates over a file; lines that are faulty are gathered, and raised as one error at the end.

    Parameters
    ----------
    lines : Lines
        The file, from `codex_ml.data.readers.open_records`.
    record_format, columns
        As ``data.format`` and ``data.columns``.
    """

    def __init__(self, lines: Lines, record_format: str = "auto", columns: Mapping[str, str] | None = None) -> None:
        self.lines = lines
        self.reader = RecordReader(record_format, columns)
        self._problems = Problems()

    def __iter__(self) -> Iterator[tuple[JsonLine, Record]]:
        for line in parsed_lines(self.lines):
            if isinstance(line, FaultyLine):
                self._note(line.line_number, line.fault.at(line.offset))
                continue
            try:
                record = self.reader.read(line.value)
            except ValueError as error:
                self._note(line.line_number, str(error))
                # Where the format itself is unknown, every line would say so again.
                if self.reader.format is None:
                    break
                continue
            yield line, record
        self.raise_if_faulty()

    def raise_if_faulty(self) -> None:
        """Raise one `DataError` for all lines so far that are no records; for whoever stops before the end."""
        self._problems.raise_if_any()

    def _note(self, line_number: int, what: str) -> None:
        self._problems.add(f"{self.lines.path.name}:{line_number}", what)

"""CSV and TSV files as streams of JSON lines: every cell is an unchanged string; no type is guessed.

Python's own csv module reads them, not pandas (which `datasets` uses): that one takes ``007`` for 7 and ``NA`` for
nothing, fills short rows up, and does not say on which line something is wrong.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from codex_ml.data.problems import LineFault, repeated_name, shown_name
from codex_ml.data.readers.files import Background, DataFile, lines_of, no_record
from codex_ml.data.readers.format_detection import BYTE_ORDER_MARK, look_of_file
from codex_ml.data.readers.jsonl import RawLine, too_long
from codex_ml.data.readers.table_child import canonical_line
from codex_ml.errors import DataError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
_OWN_LOOKS = ("CSV", "a table with tabs")
_FIX_QUOTES = "close it, and double each quote inside a cell that is quoted"


class DelimitedFile:
    """A CSV or TSV file (RFC 4180) with a header, read as a stream of lines of JSON, one a row.

    Quoted cells of CSV may hold separators, quotes (doubled) and line ends; TSV has no quoting, and a tab or line end
    cannot occur in a cell. Refused by line: rows with more or fewer cells
    than the header, bytes that are not UTF-8, text behind a closing quote. Line numbers and offsets are those of the
    beginning of the row in the file.

    Parameters
    ----------
    path : Path
        The file; its ending decides between comma and tab.
    max_line_bytes : int
        Longest row that is read.

    Raises
    ------
    DataError
        If the file is absent, of another format, without a row, has two columns of one name, a quote that is opened
        and never closed, or, in CSV, a row longer than ``max_line_bytes``: where it ends is not known.
    """

    def __init__(self, path: Path, max_line_bytes: int) -> None:
        self.path = path
        self.empty_lines = 0
        self.byte_count = 0
        self.digest = ""
        self._max_line_bytes = max_line_bytes
        self._separator = SEPARATORS[path.suffix.lower()]

    def raw_lines(self) -> Iterator[RawLine]:
        """Yield each row as a line of canonical JSON, or why it is none."""
        self.empty_lines = self.byte_count = 0
        row_seen = False
        with Background() as background, DataFile(self.path, background) as file:
            text = _Text(file, self._look, self._max_line_bytes, has_quotes=self._separator != "\t")
            # The bound is that of the module: it has no other.
            csv.field_size_limit(self._max_line_bytes)
            # Tabs have no quoting (IANA, text/tab-separated-values): a quote is a character of its cell.
            rows = csv.reader(
                text,
                delimiter=self._separator,
                quoting=csv.QUOTE_NONE if self._separator == "\t" else csv.QUOTE_MINIMAL,
                strict=True,
            )
            header: list[str] | None = None
            for cells in self._rows(rows, text):
                if isinstance(cells, list) and not cells:
                    self.empty_lines += 1
                elif header is None:
                    header = self._header(cells)
                else:
                    row_seen = True
                    yield text.first_line, text.first_offset, self._line(header, cells), b"\n"
            self.byte_count, self.digest = file.byte_count, file.finish()
        if not row_seen:
            raise no_record(self.path)

    def _rows(self, rows: Iterator[list[str]], text: _Text) -> Iterator[list[str] | LineFault]:
        while True:
            text.begin_row()
            try:
                yield next(rows)
            except StopIteration:
                return
            except _LongLine:
                yield too_long(self._max_line_bytes)
            except csv.Error as error:
                if text.ended:
                    raise DataError(
                        f"{self.path.name}:{text.first_line}: a quote is opened in this row and never closed",
                        why="all that follows is one cell, so its rows would be lost",
                        fix=_FIX_QUOTES,
                        code="DATA_TABLE_UNCLOSED_QUOTE",
                    ) from error
                yield LineFault("bad_row", f"not a row of a table: {error}")

    def _header(self, cells: list[str] | LineFault) -> list[str]:
        where = f"{self.path.name}:1"
        if isinstance(cells, LineFault) or any(_is_no_text(cell) for cell in cells):
            why = cells.text if isinstance(cells, LineFault) else "not UTF-8"
            raise DataError(
                f"{where}: the header cannot be read",
                why=why,
                fix="correct the first line",
                code="DATA_TABLE_BAD_HEADER",
            )
        if (doubled := repeated_name(cells)) is not None:
            raise DataError(
                f"{where}: two columns have the name {shown_name(doubled)}",
                why="which of them is meant is not known",
                fix="give each column a name of its own in the first line",
                code="DATA_TABLE_DUPLICATE_COLUMN",
            )
        if len(cells) == 1 and ";" in cells[0]:
            raise DataError(
                f"{where}: the columns seem to be separated by semicolons",
                why=f"a {self.path.suffix} file is read with {self._separator!r} between the cells",
                fix="save the table with commas, or with tabs under the ending .tsv",
                code="DATA_TABLE_WRONG_DELIMITER",
            )
        return cells

    def _line(self, header: list[str], cells: list[str] | LineFault) -> bytes | LineFault:
        if isinstance(cells, LineFault):
            return cells
        if len(cells) != len(header):
            return LineFault("bad_row", f"the row has {len(cells)} cells, the header {len(header)}")
        for position, cell in enumerate(cells, start=1):
            if _is_no_text(cell):
                return LineFault("bad_encoding", f"not UTF-8: cell {position} of the row")
            if "\x00" in cell:
                return LineFault("bad_encoding", f"cell {position} of the row holds NUL bytes")
        line = canonical_line(dict(zip(header, cells, strict=True)))
        if isinstance(line, bytes) and len(line) > self._max_line_bytes:
            return too_long(self._max_line_bytes)
        return line

    def _look(self, block: bytes) -> None:
        look = look_of_file(block)
        if look is not None and look.name not in _OWN_LOOKS:
            raise DataError(
                f"{self.path.name}:1: this looks like {look.name}, not a table of text",
                why=look.why,
                fix=look.fix,
                code="DATA_WRONG_FILE_TYPE",
            )
        if block.removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b'{"'):
            raise DataError(
                f"{self.path.name}:1: this looks like JSON Lines, not a table of text",
                fix="give it the ending .jsonl",
                code="DATA_WRONG_FILE_TYPE",
            )


class _LongLine(Exception):  # noqa: N818 - a line that is left out, no error of the file
    """A line is too long, and the next one begins a row."""


class _Text:
    """The lines of a file as csv wants them, and where the row at hand began."""

    def __init__(self, file: DataFile, look: Callable[[bytes], None], max_line_bytes: int, *, has_quotes: bool) -> None:
        self.first_line = self.first_offset = 0
        self._row_bytes = 0
        self._max_line_bytes = max_line_bytes
        self._has_quotes = has_quotes
        self.ended = False
        self._name = file.name
        self._line_number = 0
        self._is_first = True
        self._blocks = 0
        self._look = look
        self._lines = lines_of(file, self._take, max_line_bytes)

    def begin_row(self) -> None:
        """Note that what comes next begins a row."""
        self._is_first = True

    def __iter__(self) -> _Text:
        return self

    def __next__(self) -> str:
        try:
            offset, raw, line_end = next(self._lines)
        except StopIteration:
            self.ended = True
            raise
        self._line_number += 1
        if self._is_first:
            self.first_line, self.first_offset, self._is_first = self._line_number, offset, False
            self._row_bytes = 0
        if raw is None and not self._has_quotes:
            raise _LongLine
        # A cell may span lines, each of them short.
        self._row_bytes += 0 if raw is None else len(raw) + len(line_end)
        if raw is None or self._row_bytes > self._max_line_bytes + len(line_end):
            what = "line" if raw is None else "row"
            raise DataError(
                f"{self._name}:{self._line_number}: the {what} is too long (data.max_line_bytes)",
                why=f"the row that begins in line {self.first_line} is longer than {self._max_line_bytes} bytes, and "
                "a closing quote may be missing",
                fix="close its quotes, cut the record into several, leave it out, or raise data.max_line_bytes",
                code="DATA_LINE_TOO_LONG",
            )
        if self._line_number == 1:
            raw = raw.removeprefix(BYTE_ORDER_MARK)
        # What is no text is found again cell by cell, so that only its row is lost.
        return (raw + line_end).decode("utf-8", errors="surrogateescape")

    def _take(self, block: bytes) -> None:
        self._blocks += 1
        if self._blocks == 1:
            self._look(block)


def _is_no_text(cell: str) -> bool:
    return not cell.isascii() and any("\udc80" <= character <= "\udcff" for character in cell)

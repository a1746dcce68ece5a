"""The one way to open a file of records: which reader a file needs is decided here, by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from codex_ml.data.readers.delimited import SEPARATORS, DelimitedFile
from codex_ml.data.readers.jsonl import MAX_LINE_BYTES, JsonlFile, Lines
from codex_ml.data.readers.tables import TableFile


def open_records(
    path: Path, max_line_bytes: int = MAX_LINE_BYTES, on_passed: Callable[[bytes], object] | None = None
) -> Lines:
    """Return a file of records as a stream of lines; nothing is opened before they are asked for.

    Parquet, Arrow, CSV and TSV are told by the ending of the name, as are packed JSON Lines (``.gz``, ``.zst``);
    whatever else it is called is JSON Lines. Each reader refuses content that is something else than the name says.

    Parameters
    ----------
    path : Path
        The file.
    max_line_bytes : int
        Longest line, or row of a table, that is read.
    on_passed : callable, optional
        Takes what belongs to no record of a file of lines: a byte order mark, empty lines with their ends.
    """
    suffix = path.suffix.lower()
    if suffix in SEPARATORS:
        return DelimitedFile(path, max_line_bytes)
    if suffix in {".parquet", ".arrow"}:
        return TableFile(path, max_line_bytes)
    return JsonlFile(path, max_line_bytes=max_line_bytes, on_passed=on_passed)

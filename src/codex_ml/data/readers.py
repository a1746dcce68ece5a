"""The one way to open a file of records: which reader a file needs is decided here, by its name."""

from __future__ import annotations

from pathlib import Path

from codex_ml.data.jsonl import MAX_LINE_BYTES, JsonlFile, Lines


def open_records(path: Path, max_line_bytes: int = MAX_LINE_BYTES) -> Lines:
    """Return a file of records as a stream of lines; nothing is opened before they are asked for.

    Parameters
    ----------
    path : Path
        The file.
    max_line_bytes : int
        Longest line that is read.
    """
    return JsonlFile(path, max_line_bytes=max_line_bytes)

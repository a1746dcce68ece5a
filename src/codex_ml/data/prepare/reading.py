"""Raw files read row by row: what every reader of `data.readers` takes, JSON documents, and running text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from codex_ml.data.jsonl import FaultyLine, parsed_lines
from codex_ml.data.prepare.config import PreparerConfig
from codex_ml.data.problems import LineFault, shown_name
from codex_ml.data.readers import open_records
from codex_ml.errors import DataError
from codex_ml.untrusted import UntrustedFileError, read_bytes, read_json

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

"""A strict reader of JSON Lines: every fault is named by file and line, and nothing is guessed or repaired."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from codex_ml.data.problems import LineFault, Problems
from codex_ml.data.readers.compressed import unpacked
from codex_ml.data.readers.files import Background, DataFile, FirstLook, lines_of, no_record
from codex_ml.data.readers.format_detection import BYTE_ORDER_MARK
from codex_ml.data.readers.json import parse_line

MAX_LINE_BYTES = 16 * 1024 * 1024

# Number, offset, bytes or what is wrong with them, line end.
RawLine = tuple[int, int, bytes | LineFault, bytes]


class JsonLine(NamedTuple):
    r"""One record of a file: its 1-based line, the byte offset of its first byte, its bytes, and its value.

    ``raw`` holds neither the line end (kept in ``line_end``: ``\n``, ``\r\n`` or nothing) nor a byte order mark.
    """

    line_number: int
    offset: int
    raw: bytes
    line_end: bytes
    value: dict[str, Any]


class FaultyLine(NamedTuple):
    """One line that is no record: where it is, and why."""

    line_number: int
    offset: int
    fault: LineFault


class Lines(Protocol):
    """A file of records as a stream; what identifies it is known when the iteration has come to its end."""

    path: Path
    empty_lines: int
    byte_count: int
    digest: str

    def raw_lines(self) -> Iterator[RawLine]:
        """Give number, offset, bytes (or why there are none) and line end of each line that is not empty."""
        ...


class JsonlFile:
    r"""A JSON Lines file, read as a stream; unpacked on the way where its name ends in ``.gz`` or ``.zst``.

    Lines end at ``\n`` only (RFC 8259 strings may hold U+2028). Empty lines (nothing, or spaces and tabs) are skipped
    and counted. After an iteration to the end ``empty_lines``, ``byte_count`` and ``digest`` (SHA-256) are set; the
    latter two are those of the file as it lies on the disk, offsets those of the lines in it when it is unpacked.

    Parameters
    ----------
    path : Path
        The file.
    problems : Problems, optional
        Takes the faults, and the caller raises them; without it the iteration raises one error at its end.
    max_line_bytes : int
        Longest line that is read.
    on_passed : callable, optional
        Receives the bytes that belong to no record, in order: a byte order mark, empty lines with their ends.

    Raises
    ------
    DataError
        If the file is absent, a directory, empty, of another format, or written to meanwhile; and at the end for all
        faulty lines at once.
    """

    def __init__(
        self,
        path: Path,
        problems: Problems | None = None,
        max_line_bytes: int = MAX_LINE_BYTES,
        on_passed: Callable[[bytes], object] | None = None,
    ) -> None:
        self.path = path
        self.empty_lines = 0
        self.byte_count = 0
        self.digest = ""
        self._problems = problems
        self._max_line_bytes = max_line_bytes
        self._on_passed = on_passed

    def __iter__(self) -> Iterator[JsonLine]:
        problems = Problems() if self._problems is None else self._problems
        for line in parsed_lines(self):
            if isinstance(line, FaultyLine):
                problems.add(f"{self.path.name}:{line.line_number}", line.fault.at(line.offset))
            else:
                yield line
        if self._problems is None:
            problems.raise_if_any()

    def raw_lines(self) -> Iterator[RawLine]:
        """Yield each line that is not empty, unchecked but for its length."""
        self.empty_lines = self.byte_count = 0
        line_seen = False
        with Background() as background, DataFile(self.path, background) as file:
            lines = lines_of(unpacked(self.path, file), FirstLook(self.path.name), self._max_line_bytes)
            for number, (offset, raw, line_end) in enumerate(lines, start=1):
                if raw is None:
                    line_seen = True
                    yield number, offset, too_long(self._max_line_bytes), line_end
                    continue
                if number == 1 and raw.startswith(BYTE_ORDER_MARK):
                    offset, raw = len(BYTE_ORDER_MARK), raw[len(BYTE_ORDER_MARK) :]
                    self._pass(BYTE_ORDER_MARK)
                # White space is what JSON calls so: a form feed is a character like others.
                if not raw or (raw.isspace() and not raw.strip(b" \t\r")):
                    self.empty_lines += 1
                    self._pass(raw + line_end)
                    continue
                line_seen = True
                yield number, offset, raw, line_end
            self.byte_count, self.digest = file.byte_count, file.finish()
        if not line_seen:
            raise no_record(self.path)

    def _pass(self, passed: bytes) -> None:
        if self._on_passed is not None:
            self._on_passed(passed)


def too_long(max_line_bytes: int) -> LineFault:
    """Return what is wrong with a line whose bytes are not kept."""
    return LineFault(
        "too_long_line",
        f"the line is longer than {max_line_bytes} bytes (data.max_line_bytes): cut the record into several, or leave "
        "it out",
    )


def parsed_lines(lines: Lines) -> Iterator[JsonLine | FaultyLine]:
    """Yield every line that is not empty, parsed, or with what is wrong with it."""
    for number, offset, raw, line_end in lines.raw_lines():
        if isinstance(raw, LineFault):
            yield FaultyLine(number, offset, raw)
            continue
        try:
            value = parse_line(raw)
        except LineFault as fault:
            yield FaultyLine(number, offset, fault)
        else:
            yield JsonLine(number, offset, raw, line_end, value)


def iter_jsonl(path: Path, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[JsonLine]:
    """Yield the records of a JSON Lines file; see `JsonlFile` for what is refused and when it raises."""
    return iter(JsonlFile(path, max_line_bytes=max_line_bytes))

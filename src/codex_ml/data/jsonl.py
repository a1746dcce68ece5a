"""A strict reader of JSON Lines: every fault is named by file and line, and nothing is guessed or repaired."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from codex_ml.data.background import Background
from codex_ml.data.json_fast import parse_fast
from codex_ml.data.line_blocks import lines_of
from codex_ml.data.problems import Problems, shown_name
from codex_ml.errors import DataError
from codex_ml.untrusted import UntrustedFileError, open_regular

MAX_LINE_BYTES = 16 * 1024 * 1024
MAX_NESTING = 64

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_FOREIGN_FORMATS = (
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"PAR1", "a Parquet file", "convert it to JSON Lines"),
    (b"PK\x03\x04", "a zip archive", "unpack it first"),
)


class JsonLine(NamedTuple):
    r"""One record of a file: its 1-based line, the byte offset of its first byte, its bytes, and its value.

    ``raw`` holds neither the line end (kept in ``line_end``: ``\n``, ``\r\n`` or nothing) nor a byte order mark.
    """

    line_number: int
    offset: int
    raw: bytes
    line_end: bytes
    value: dict[str, Any]


class JsonlFile:
    r"""A JSON Lines file, read as a stream.

    Lines end at ``\n`` only (RFC 8259 strings may hold U+2028). Refused: bytes that are not UTF-8, doubled keys, NaN
    and infinities, lone surrogates, nesting deeper than 64, lines longer than ``max_line_bytes``, lines that are not
    objects. Empty lines are skipped and counted. After an iteration to the end ``empty_lines``, ``byte_count`` and
    ``digest`` (SHA-256 of the bytes that were read) are set.

    Parameters
    ----------
    path : Path
        The file.
    problems : Problems, optional
        Takes the faults, and the caller raises them; without it the iteration raises one error at its end.
    max_line_bytes : int
        Longest line that is read.

    Raises
    ------
    DataError
        If the file is absent, a directory, empty, or of another format; and at the end for all faulty lines at once.
    """

    def __init__(self, path: Path, problems: Problems | None = None, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.path = path
        self.empty_lines = 0
        self.byte_count = 0
        self.digest = ""
        self._problems = problems
        self._max_line_bytes = max_line_bytes

    def __iter__(self) -> Iterator[JsonLine]:
        problems = Problems() if self._problems is None else self._problems
        for number, offset, raw, line_end in self.raw_lines():
            if raw is None:
                fault = self.too_long
            else:
                try:
                    value = parse_line(raw)
                except ValueError as error:
                    fault = str(error)
                else:
                    yield JsonLine(number, offset, raw, line_end, value)
                    continue
            problems.add(f"{self.path.name}:{number}", fault)
            if problems.full:
                break
        if self._problems is None:
            problems.raise_if_any()

    def raw_lines(self) -> Iterator[tuple[int, int, bytes | None, bytes]]:
        """Yield number, offset, bytes and line end of each line that is not empty, unchecked; no bytes: `too_long`."""
        self.empty_lines = self.byte_count = 0
        hasher = hashlib.sha256()
        line_seen = False
        with _open(self.path) as handle, Background() as background:
            take = partial(self._take, background, hasher)
            for number, (offset, raw, line_end) in enumerate(lines_of(handle, take, self._max_line_bytes), start=1):
                if raw is not None:
                    if number == 1 and raw.startswith(_BYTE_ORDER_MARK):
                        offset, raw = len(_BYTE_ORDER_MARK), raw[len(_BYTE_ORDER_MARK) :]
                    if not raw or raw.isspace():
                        self.empty_lines += 1
                        continue
                line_seen = True
                yield number, offset, raw, line_end
            background.finish()
        if not line_seen:
            raise DataError(f"{self.path.name}: the file holds no record", why=_where(self.path), fix=_FIX_EMPTY)
        self.digest = f"sha256:{hasher.hexdigest()}"

    @property
    def too_long(self) -> str:
        """What is wrong with a line whose bytes are not kept."""
        return f"the line is longer than {self._max_line_bytes} bytes: cut the record into several, or leave it out"

    def _take(self, background: Background, hasher: hashlib._Hash, block: bytes) -> None:
        if not self.byte_count:
            _refuse_foreign_format(self.path, block[: block.find(b"\n") + 1] or block)
        background.call(hasher.update, block)
        self.byte_count += len(block)


def iter_jsonl(path: Path, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[JsonLine]:
    """Yield the records of a JSON Lines file; see `JsonlFile` for what is refused and when it raises."""
    return iter(JsonlFile(path, max_line_bytes=max_line_bytes))


def parse_line(raw: bytes) -> dict[str, Any]:
    """Parse the bytes of one line into an object, as `parse_object` does, and faster.

    Raises
    ------
    ValueError
        As `parse_object`.
    """
    return parse_fast(raw, parse_object, MAX_NESTING)


def parse_object(raw: bytes) -> dict[str, Any]:
    """Parse the bytes of one line into an object.

    Raises
    ------
    ValueError
        With a message that says what is wrong and where, and holds no content.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: byte {error.start + 1} of the line ({error.reason})") from None
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite_float)
    except json.JSONDecodeError as error:
        # Some of the reasons end in "at" by themselves.
        reason = error.msg.removesuffix(" at")
        raise ValueError(f"not valid JSON: {reason} at column {error.colno}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if not isinstance(value, dict):
        raise ValueError(f"a record is a JSON object, this is {_JSON_NAMES[type(value)]}")
    # The walk costs as much as the parse; most lines show without it that they cannot need it.
    if raw.count(b"[") + raw.count(b"{") > MAX_NESTING or b"\\ud" in raw.lower():
        _check_depth_and_text(value)
    return value


_FIX_EMPTY = "give a file with one JSON object a line"
_TOO_DEEP = f"nested deeper than {MAX_NESTING} levels"
_JSON_NAMES = {
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a truth value",
    type(None): "null",
}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {shown_name(key)} stands twice in one object")
            seen.add(key)
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large for a 64-bit float")
    return value


def _check_depth_and_text(value: Any) -> None:
    pending: list[tuple[Any, int]] = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        if isinstance(item, str):
            if not item.isascii() and any("\ud800" <= character <= "\udfff" for character in item):
                raise ValueError("a string holds half of a surrogate pair, which is no character")
        elif isinstance(item, dict | list):
            if depth > MAX_NESTING:
                raise ValueError(_TOO_DEEP)
            children = [*item.keys(), *item.values()] if isinstance(item, dict) else item
            pending.extend((child, depth + 1) for child in children)


def _open(path: Path) -> BinaryIO:
    if path.is_dir():
        raise DataError(f"{path} is a directory, not a JSON Lines file", why=_where(path), fix="name one of its files")
    if not path.exists():
        raise DataError(f"{path} does not exist", why=_where(path), fix="correct the path, or make the file")
    try:
        return open_regular(path)
    except UntrustedFileError as error:
        raise DataError(f"{path} is not read", why=str(error), fix="write it into a file, and name that") from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read", why=error.strerror or str(error), fix="check its permissions"
        ) from error


def _where(path: Path) -> str:
    """Say what lies at, or nearest above, a path."""
    if path.is_file():
        return f"{path} has {path.stat().st_size} bytes"
    directory = path
    while not directory.is_dir():
        directory = directory.parent
    try:
        names = sorted(item.name for item in directory.iterdir() if item.suffix in {".jsonl", ".ndjson", ".json"})
    except OSError as error:
        return f"{directory}: {error.strerror}"
    listed = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"{directory} holds {listed}" if names else f"{directory} holds no .jsonl file"


def _refuse_foreign_format(path: Path, first_line: bytes) -> None:
    for magic, name, fix in _FOREIGN_FORMATS:
        if first_line.startswith(magic):
            raise DataError(f"{path.name}:1: this looks like {name}, not JSON Lines", fix=fix)
    start = first_line.removeprefix(_BYTE_ORDER_MARK).strip()
    if start.startswith(b"["):
        raise DataError(
            f"{path.name}:1: this looks like a JSON array, not JSON Lines",
            why="JSON Lines has one object a line and no brackets around them",
            fix=f"convert it, for example with: jq -c '.[]' {path.name}",
        )
    if start == b"{":
        raise DataError(
            f"{path.name}:1: this looks like pretty-printed JSON, not JSON Lines",
            why="an object begins on line 1 and does not end there",
            fix=f"write one object a line, for example with: jq -c . {path.name}",
        )

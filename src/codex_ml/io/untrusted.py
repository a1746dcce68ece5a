"""Reads untrusted files: regular files only, up to a size, and JSON within strict bounds."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

# A manifest of a thousand files, a record of a run or a model's config are all below a hundredth of this.
MAX_JSON_BYTES = 16 << 20
# Which record lies where, of a data set of tens of millions.
MAX_MEMBERSHIP_BYTES = 256 << 20
MAX_JSON_NESTING = 64
# Of a file of a model that is read as a whole; the largest tokenizer.json known has 35 MB.
MAX_MODEL_FILE_BYTES = 256 << 20

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISLNK, "a symbolic link, which is not followed here"),
    (stat.S_ISFIFO, "a named pipe, whose opening may wait for ever"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class UntrustedFileError(ValueError):
    """A file that is not read; the message says why, and neither where it lies nor what it holds."""


def kind_of(mode: int) -> str | None:
    """Return what a file is, in words, by the mode that `os.stat` gives; None for a regular file."""
    return next((words for test, words in _KINDS if test(mode)), None)


def open_regular(path: Path, *, follow_links: bool = True) -> BinaryIO:
    """Open a regular file for reading, in binary; anything else is refused, never waited for.

    Parameters
    ----------
    path : Path
        The file.
    follow_links : bool
        False refuses a symbolic link at the last part of the path.

    Raises
    ------
    UntrustedFileError
        If it is a link that may not be followed, a directory, a pipe, a socket or a device.
    OSError
        If it is absent or cannot be opened.
    """
    if not follow_links and path.is_symlink():
        raise UntrustedFileError("it is a symbolic link, which is not followed here")
    extra = os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    try:
        # Non-blocking: opening a named pipe would otherwise wait for a writer.
        handle = open(path, "rb", opener=lambda name, flags: os.open(name, flags | extra))  # noqa: SIM115 - the caller's
    except IsADirectoryError as error:
        raise UntrustedFileError("it is a directory") from error
    kind = kind_of(os.fstat(handle.fileno()).st_mode)
    if kind is not None:
        handle.close()
        raise UntrustedFileError(f"it is {kind}")
    return handle


def read_bytes(path: Path, max_bytes: int, *, follow_links: bool = True) -> bytes:
    """Return the content of a regular file that is not longer than a bound.

    Raises
    ------
    UntrustedFileError
        If it is no regular file or longer; nothing beyond the bound was read.
    OSError
        If it is absent or cannot be read.
    """
    with open_regular(path, follow_links=follow_links) as handle:
        size = os.fstat(handle.fileno()).st_size
        # One byte more than allowed: files of /proc say they are empty, and a file may grow while it is read.
        content = b"" if size > max_bytes else handle.read(max_bytes + 1)
    if size > max_bytes or len(content) > max_bytes:
        raise UntrustedFileError(f"it is longer than {max_bytes} bytes")
    return content


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES, *, follow_links: bool = True, strict: bool = True) -> Any:
    """Return the value in a JSON file; see `read_bytes` and `parse_json` for what is refused."""
    return parse_json(read_bytes(path, max_bytes, follow_links=follow_links), strict=strict)


def parse_json(content: bytes, *, strict: bool = True) -> Any:
    """Return the value of a JSON text.

    Parameters
    ----------
    content : bytes
        UTF-8.
    strict : bool
        Refuse doubled keys, NaN, infinities and numbers beyond a 64-bit float, which no file of ours holds; files of
        other tools sometimes do.

    Raises
    ------
    UntrustedFileError
        If it is no JSON, is nested deeper than 64 levels, or holds what ``strict`` refuses.
    """
    try:
        text = content.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_unique if strict else None,
            parse_constant=_refuse_constant if strict else None,
            parse_float=_finite if strict else None,
        )
    except RecursionError:
        raise UntrustedFileError(f"it is nested deeper than {MAX_JSON_NESTING} levels") from None
    except UntrustedFileError:
        raise
    except ValueError as error:
        raise UntrustedFileError(f"it is not valid JSON: {error}") from error
    _check_nesting(value)
    return value


def settings_of(value: Any, place: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield dotted place, name and value of every setting, at any depth (which reading has bounded)."""
    if isinstance(value, dict):
        for name, item in value.items():
            dotted = f"{place}.{name}" if place else str(name)
            yield dotted, str(name), item
            yield from settings_of(item, dotted)
    elif isinstance(value, list):
        for item in value:
            yield from settings_of(item, place)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise UntrustedFileError("one of its objects has a key twice")
    return value


def _refuse_constant(name: str) -> float:
    raise UntrustedFileError(f"it holds {name}, which is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise UntrustedFileError("it holds a number that is too large for a 64-bit float")
    return value


def _check_nesting(value: Any) -> None:
    level = [value]
    for _ in range(MAX_JSON_NESTING):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise UntrustedFileError(f"it is nested deeper than {MAX_JSON_NESTING} levels")

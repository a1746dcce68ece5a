r"""Lines of a byte stream, cut out of large blocks; they end at ``\n`` only, and none can fill the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from codex_ml.errors import DataError

_BLOCK_BYTES = 1 << 18
# A line that is too long is read to its end, so that all such lines can be named; one this long has none.
_LONGEST_PASSED_BYTES = 1 << 30


class ByteStream(Protocol):
    """Bytes that are read from the beginning to the end."""

    def read(self, size: int, /) -> bytes:
        """Return about so many bytes, none at the end."""
        ...


def lines_of(
    handle: ByteStream, on_block: Callable[[bytes], object], max_line_bytes: int
) -> Iterator[tuple[int, bytes | None, bytes]]:
    r"""Yield the offset of each line, its bytes without the line end, and the line end (``\n``, ``\r\n`` or nothing).

    Parameters
    ----------
    handle : ByteStream
        Read from where it stands to its end.
    on_block : callable
        Takes every byte that is read, in blocks, before the lines in it are yielded.
    max_line_bytes : int
        A longer line is not kept: None stands for its bytes.

    Raises
    ------
    DataError
        If a line is longer than a gigabyte: the rest is not read.
    """
    offset = passed_bytes = 0
    begun = b""
    while block := handle.read(_BLOCK_BYTES):
        on_block(block)
        text = begun + block
        lines = text.split(b"\n")
        begun = lines.pop()
        if not passed_bytes and len(text) <= max_line_bytes and b"\r" not in text:
            # So it is with nearly every block: nothing in it needs a second look.
            for line in lines:
                yield offset, line, b"\n"
                offset += len(line) + 1
            continue
        for line in lines:
            if passed_bytes:
                yield offset, None, b"\n"
                offset += passed_bytes
                passed_bytes = 0
            else:
                raw, line_end = (line[:-1], b"\r\n") if line[-1:] == b"\r" else (line, b"\n")
                yield offset, raw if len(raw) <= max_line_bytes else None, line_end
            offset += len(line) + 1
        # One byte more may be the first half of a line end.
        if passed_bytes or len(begun) > max_line_bytes + 1:
            passed_bytes += len(begun)
            begun = b""
            if passed_bytes > _LONGEST_PASSED_BYTES:
                name = getattr(handle, "name", "data")
                raise DataError(
                    f"{name}: the line at byte {offset} is longer than {_LONGEST_PASSED_BYTES} bytes",
                    why="this is no file of JSON Lines, and reading it to its end may take days",
                    fix="give a file with one JSON object a line",
                )
    if passed_bytes or begun:
        yield offset, None if passed_bytes or len(begun) > max_line_bytes else begun, b""

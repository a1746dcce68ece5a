"""The standard streams: open from the start, and no control character of a foreign text gets through to a terminal."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, TextIO

from codex_ml.errors import EXIT_DONE, OutputError


class _VisibleStream(io.TextIOWrapper):
    """Writes out the control characters of everything that is printed; progress bars may return to the line start.

    What codex-ml prints is made visible before; this is for the lines of libraries: their logs, warnings and
    tracebacks.
    """

    def write(self, text: str) -> int:
        super().write(text if text.isprintable() else "\r".join(map(visible, text.split("\r"))))
        return len(text)


def open_standard_streams() -> None:
    """Open what the process was started without, and make the error stream safe; to be called before all else.

    A closed descriptor 0, 1 or 2 is opened on the null device: else the next file that is opened gets its number, and
    receives what is printed. Python has no stream object for one that was closed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is the one that is closed.
            opened = os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            # Programs that are started inherit the three streams.
            os.set_inheritable(opened, True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - open for the life of the process
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as above
    # A locale without the letters of a file name is no reason to fail.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stderr is None:
        errors: BinaryIO = open(2, "wb", closefd=False)  # noqa: SIM115 - as above
    else:
        errors = sys.stderr.buffer
    sys.stderr = _VisibleStream(errors, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def visible(text: str) -> str:
    """Return a text with every character that is not printable, but line ends and tabs, written as its code.

    That holds for the control characters of ASCII and of Latin-1 (C1), and for those that change the direction of
    writing.
    """
    if text.isprintable():
        return text
    return "".join(mark if mark.isprintable() or mark in "\n\t" else _code(mark) for mark in text)


def visible_name(name: object) -> str:
    """Return a name as `visible` does, in one line: a line end in it must not begin a line of its own."""
    return "".join(mark if mark.isprintable() else _code(mark) for mark in str(name))


def visible_json(value: Any) -> str:
    """Return a value as indented JSON whose letters stay readable, and whose other characters are JSON escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if text.replace("\n", "").isprintable():
        return text
    return re.sub(r"[^\n\x20-\x7e]", lambda found: _json_mark(found.group()), text)


def write_result(text: str, end: str = "\n", *, is_visible: bool = False, stream: TextIO | None = None) -> None:
    """Print a text on standard output at once.

    Parameters
    ----------
    text : str
        Its control characters are written out.
    end : str
        What follows the text.
    is_visible : bool
        The text has passed `visible`, and holds colours of ours.
    stream : TextIO, optional
        Another stream.

    Raises
    ------
    BrokenPipeError
        If the reader went away.
    OutputError
        If the text cannot be written: the results would be lost.
    """
    taker = sys.stdout if stream is None else stream
    with _lost_output_as_error():
        taker.write((text if is_visible else visible(text)) + end)
        taker.flush()


def write_bytes(data: bytes) -> None:
    """Write bytes on standard output, unchanged where a file or a program reads them, visible on a terminal.

    Raises
    ------
    BrokenPipeError, OutputError
        As `write_result`.
    """
    if sys.stdout.isatty():
        write_result(data.decode("utf-8", "backslashreplace"), end="")
        return
    with _lost_output_as_error():
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def write_message(text: str, end: str = "\n", stream: TextIO | None = None) -> None:
    """Print a text on the error stream at once; that nothing takes it is no reason to end a command.

    Parameters
    ----------
    text : str
        Its control characters are written out.
    end : str
        What follows the text.
    stream : TextIO, optional
        Another stream.
    """
    taker = sys.stderr if stream is None else stream
    with contextlib.suppress(OSError):
        taker.write(visible(text) + end)
        taker.flush()


def finish_output(code: int) -> int:
    """Flush the standard streams and return the exit code; one that takes no more is pointed at the null device.

    The interpreter flushes what is left when it ends, and where that fails puts its own exit code, 120, in place of the
    command's. Where standard output cannot take the rest, a success becomes a failure and is explained; a reader that
    went away is none.
    """
    lost: OutputError | None = None
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            if stream is sys.stdout and error.errno != errno.EPIPE:
                lost = OutputError(error.strerror or str(error))
            drop_output(stream)
    if lost is None or code != EXIT_DONE:
        return code
    write_message(lost.block())
    return lost.exit_code


def drop_output(stream: TextIO) -> None:
    """Point a stream at the null device; what is left in its buffer goes there."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)


@contextlib.contextmanager
def _lost_output_as_error() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(error.strerror or str(error)) from error


def _code(mark: str) -> str:
    return ascii(mark)[1:-1]


def _json_mark(mark: str) -> str:
    return mark if mark.isprintable() else json.dumps(mark)[1:-1]

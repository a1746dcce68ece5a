"""The debug log of a run: what was said, with times, warnings of libraries and tracebacks; redacted and bounded.

It helps to diagnose a failure on a machine whose screen was not watched. The audit data is in
the NDJSON files, which are kept; of this one only the newest ``backup_count + 1`` parts are.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from time import gmtime

FILE_NAME = "debug.log"
LOGGER = logging.getLogger("codex_ml")


@contextmanager
def debug_log(path: Path, max_bytes: int, backup_count: int, redact: Callable[[str], str]) -> Iterator[None]:
    """Write the debug log for the length of a ``with`` block, and the traceback of an exception that leaves it.

    Takes all that `LOGGER` is given, and warnings and errors that libraries hand to the root logger.

    Parameters
    ----------
    path : Path
        The newest part; older ones are ``debug.log.1`` (the younger) and up.
    max_bytes : int
        Size at which a part is closed.
    backup_count : int
        How many older parts are kept, at least 1.
    redact : callable
        Every entry passes it, traceback included; where it fails, the entry is withheld.
    """
    # Opened with its first entry, where a fault is no fault of the run either.
    handler = _PrivateFile(
        path, maxBytes=max_bytes, backupCount=backup_count, encoding="utf-8", errors="backslashreplace", delay=True
    )
    handler.setFormatter(_Redacted(redact))
    handler.addFilter(lambda record: record.name.startswith(LOGGER.name) or record.levelno >= logging.WARNING)
    level = LOGGER.level
    LOGGER.setLevel(logging.DEBUG)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    except BaseException:  # includes stop signals: the log records where they arrived
        LOGGER.exception("the command was left by an exception")
        raise
    finally:
        root.removeHandler(handler)
        LOGGER.setLevel(level)
        # Closing writes what a full disk did not take before.
        with suppress(OSError):
            handler.close()


class _PrivateFile(RotatingFileHandler):
    """A rotated file that only its owner may read, and whose faults (a full disk) are no faults of the run."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return TextIOWrapper(os.fdopen(descriptor, "ab"), encoding=self.encoding, errors=self.errors)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is that of the library
        """Leave the entry out: the library would print it, unredacted, on the error stream."""


class _Redacted(logging.Formatter):
    """One entry as text: time in UTC, level, logger, message and traceback, all of it through the filters."""

    converter = staticmethod(gmtime)

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """Return the entry; where the filters fail, only that there was one."""
        try:
            return self._redact(super().format(record))
        except Exception as error:  # noqa: BLE001 - fails closed: whatever is wrong with the filters, the text does not pass
            return f"(withheld: the filters failed with {type(error).__name__})"

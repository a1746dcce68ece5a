"""A sign of life while records are read: one line every ten seconds, for files that take that long."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from codex_ml.stopping import STOP

_EVERY_SECONDS = 10.0
# Asking the time costs something; so many records take a moment only.
_LOOK_EVERY_RECORDS = 256
# Of these, the place of a record is the place in the file.
_PLAIN_SUFFIXES = frozenset({".jsonl", ".ndjson", ".json", ".txt", ""})


class ReadingProgress:
    """Told of each record, says now and then how far the reading is.

    Parameters
    ----------
    say : callable
        Takes a line.
    seconds : callable
        A clock that never goes back.
    """

    def __init__(self, say: Callable[[str], None], seconds: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._seconds = seconds
        self._said = seconds()
        self._records = 0

    def __call__(self, path: Path, offset: int) -> None:
        """Take one record: the file it is from, and where it begins in bytes of the file as it is unpacked.

        Raises
        ------
        StopSignal
            If the process was asked to stop and the exception of the signal handler was lost.
        """
        self._records += 1
        if self._records % _LOOK_EVERY_RECORDS:
            return
        STOP.check()
        now = self._seconds()
        if now - self._said < _EVERY_SECONDS:
            return
        self._said = now
        share = ""
        if path.suffix.lower() in _PLAIN_SUFFIXES and (size := path.stat().st_size):
            share = f", {offset / size:.0%} of {path.name}"
        self._say(f"reading data: {self._records:,} records{share or f', now in {path.name}'}")

"""One process a run directory: a kernel lock that vanishes with the process that holds it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from codex_ml.errors import UserError

# Whoever asks whether a lock is held takes it for an instant to find out; a run must not be refused because of that.
_PATIENCE_SECONDS = 1.0
_RETRY_SECONDS = 0.05


@contextmanager
def hold_lock(
    path: Path, patience_seconds: float = _PATIENCE_SECONDS, sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Hold the lock of a run directory for the length of a ``with`` block.

    The lock is `flock(2)`: the kernel releases it when the process ends, however it ends, so no stale lock can remain.
    The process id written into the file is information for people, never evidence.

    Parameters
    ----------
    path : Path
        The lock file, which is made when it is not there.
    patience_seconds : float
        How long to ask again before another holder is taken for a run in progress.
    sleep : callable
        Waits between two attempts.

    Raises
    ------
    UserError
        If another process holds the lock.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(descriptor, path, patience_seconds, sleep)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid()}).encode("utf-8"), 0)
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Tell whether some process holds the lock right now; a lock file that is not there is not held."""
    try:
        # For reading only: a run directory that may not be written can still be looked at.
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _take(descriptor: int, path: Path, patience_seconds: float, sleep: Callable[[float], None]) -> None:
    left_seconds = patience_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if left_seconds <= 0:
                raise UserError(
                    f"{_what(path)} is in progress in another process",
                    why=f"its lock is held ({_holder(path)})",
                    fix="wait for it to end, or start another run with another run.name",
                ) from error
        sleep(_RETRY_SECONDS)
        left_seconds -= _RETRY_SECONDS


def _what(path: Path) -> str:
    return f"an evaluation of {path.parent.parent.name}" if path.name == "eval.lock" else f"the run {path.parent.name}"


def _holder(path: Path) -> str:
    try:
        return f"process {json.loads(path.read_text('utf-8'))['pid']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "process unknown"

"""One process a run directory: a kernel lock that vanishes with the process that holds it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from codex_ml.errors import UserError


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a run directory for the length of a ``with`` block.

    The lock is `flock(2)`: the kernel releases it when the process ends, however it ends, so no stale lock can remain.
    The process id written into the file is information for people, never evidence.

    Raises
    ------
    UserError
        If another process holds the lock.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"the run {path.parent.name} is in progress in another process",
                why=f"its lock is held ({_holder(path)})",
                fix="wait for it to end, or start another run with another run.name",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid()}).encode("utf-8"), 0)
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Tell whether some process holds the lock right now."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _holder(path: Path) -> str:
    try:
        return f"process {json.loads(path.read_text('utf-8'))['pid']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "process unknown"

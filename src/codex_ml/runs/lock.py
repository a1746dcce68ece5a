"""Locks of run directories (one writer) and of checkpoints (shared by readers)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from codex_ml.errors import UserError
from codex_ml.io.clock import format_time, utc_now
from codex_ml.io.untrusted import kind_of, read_json

# A query takes the lock for an instant; a run must not be refused because of that.
_PATIENCE_SECONDS = 1.0
_RETRY_SECONDS = 0.05
_HOLDER_BYTES = 4096


@contextmanager
def hold_lock(
    path: Path, patience_seconds: float = _PATIENCE_SECONDS, sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Hold the lock of a run directory for the length of a ``with`` block.

    The lock is `flock(2)`: the kernel releases it when the process ends, however it ends, so no stale lock can remain.
    What is written into the file (process id, boot id of the machine, start) is information for people, never evidence.

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
        If another process holds the lock, or its path is something else: it is emptied when it is taken, so a
        link, or a file that has a second name, may belong to the user.
    """
    descriptor = _open_own(path)
    try:
        _take(descriptor, path, patience_seconds, sleep)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(_information()).encode("utf-8"), 0)
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Tell whether some process holds the lock right now; a lock file that is not there is not held."""
    try:
        # For reading only: a run directory that may not be written can still be looked at. Without waiting: what lies
        # there instead may be a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        # A link in its place is no lock of ours, and whatever it leads to is left alone.
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return False
        raise
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _open_own(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise _not_a_lock(path, "it is a link, a directory or a device") from error
    status = os.fstat(descriptor)
    fault = kind_of(status.st_mode)
    if fault is None and status.st_nlink > 1:
        fault = "a file with a second name (a hard link)"
    if fault is not None:
        os.close(descriptor)
        raise _not_a_lock(path, f"it is {fault}")
    return descriptor


def _not_a_lock(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is not a lock file of codex-ml",
        why=why,
        fix="find out who put it there, and remove it",
        code="RUN_FOREIGN_FILE",
    )


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
                    code="RUN_IN_PROGRESS",
                ) from error
        sleep(_RETRY_SECONDS)
        left_seconds -= _RETRY_SECONDS


def _information() -> dict[str, object]:
    return {"pid": os.getpid(), "boot_id": _boot_id(), "started": format_time(utc_now())}


def _boot_id() -> str | None:
    """Return what Linux calls this start of the machine; process ids mean nothing beyond it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None


def _what(path: Path) -> str:
    return f"an evaluation of {path.parent.parent.name}" if path.name == "eval.lock" else f"the run {path.parent.name}"


def _holder(path: Path) -> str:
    try:
        holder = read_json(path, _HOLDER_BYTES, follow_links=False)
        since = f", since {holder['started'][:19].replace('T', ' ')} UTC" if "started" in holder else ""
        return f"process {holder['pid']}{since}"
    except (OSError, ValueError, KeyError, TypeError):
        return "process unknown"


_READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class CheckpointHold:
    """A lock on a checkpoint directory, held until it is released or the process ends.

    Parameters
    ----------
    descriptor : int
        The open directory; the lock belongs to it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let retention delete the checkpoint again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            self.release()


def hold_checkpoint(directory: Path) -> CheckpointHold | None:
    """Keep a checkpoint from retention while it is verified and loaded.

    Returns
    -------
    CheckpointHold or None
        None if retention has deleted it, or is about to. Where the filesystem has no locks, what is returned holds
        nothing.
    """
    try:
        descriptor = os.open(directory, _READ_DIRECTORY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    hold = CheckpointHold(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        hold.release()
        return None
    except OSError:
        return hold
    try:
        # Between the opening and the lock it may have been renamed.
        is_there = os.path.samestat(os.fstat(descriptor), directory.stat())
    except FileNotFoundError:
        is_there = False
    if not is_there:
        hold.release()
        return None
    return hold


@contextmanager
def claim_for_deletion(directory: Path) -> Iterator[bool]:
    """Tell for the length of a ``with`` block whether a checkpoint may be deleted; no reader can begin in it."""
    descriptor = os.open(directory, _READ_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:
            # A filesystem without locks has no holds either.
            pass
        yield True
    finally:
        os.close(descriptor)

"""Keeps a checkpoint that is being read from retention: a kernel lock on its directory, shared by its readers."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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

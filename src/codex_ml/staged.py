"""Directories in which something is built beside its place: locked while their process lives, removed when it is gone.

The lock (`flock`) is the proof of life: the system drops it when the process ends, however it ends, and a process
that later gets the same number does not have it.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

from codex_ml.storage import PARTIAL_SUFFIX, Storage

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def staged_path(target: Path) -> Path:
    """Return the name beside a target under which this process builds it."""
    return target.with_name(f".{target.name}.{os.getpid()}{PARTIAL_SUFFIX}")


def staged_pattern(target: Path) -> re.Pattern[str]:
    """Return what the names of `staged_path` for a target match, of any process."""
    return re.compile(rf"\.{re.escape(target.name)}\.[0-9]+{re.escape(PARTIAL_SUFFIX)}", re.DOTALL)


def make_locked_directory(path: Path, storage: Storage) -> int:
    """Make a private directory and return a descriptor that holds the lock on it; closing it ends the lock.

    Raises
    ------
    OSError
        If it cannot be made; `FileExistsError` if it is there.
    """
    while True:
        storage.make_one_directory(path)
        try:
            descriptor = os.open(path, _FLAGS | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # another process took it for abandoned before it was locked
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)


def open_locked_file(path: Path) -> BinaryIO:
    """Make a private file, or empty it, and return it with the lock on it; closing it ends the lock.

    Raises
    ------
    OSError
        If it cannot be made, or is a link.
    """
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_at(path, descriptor):
            return os.fdopen(descriptor, "wb")
        # Another process took it for abandoned before it was locked.
        os.close(descriptor)


def remove_abandoned(directory: Path, name: re.Pattern[str], storage: Storage) -> list[str]:
    """Delete the files and directories of this user that match a name and that no process has locked.

    Parameters
    ----------
    directory : Path
        Where they are; only what is directly in it is looked at.
    name : pattern
        What the whole name must match.
    storage : Storage
        The disk.

    Returns
    -------
    list of str
        The names of what was deleted.

    Raises
    ------
    OSError
        If one cannot be deleted.
    """
    removed = []
    for path in sorted(directory.iterdir()):
        if name.fullmatch(path.name) is None:
            continue
        try:
            descriptor = os.open(path, _FLAGS)
        except OSError:
            continue  # a link, a socket, or it is gone
        try:
            status = os.fstat(descriptor)
            if status.st_uid != os.geteuid() or not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
                continue
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # It may have been renamed to its place meanwhile.
            if _is_at(path, descriptor):
                (storage.remove_tree if stat.S_ISDIR(status.st_mode) else storage.unlink)(path)
                removed.append(path.name)
        except (BlockingIOError, FileNotFoundError):
            continue  # a process has it locked, or has deleted it
        finally:
            os.close(descriptor)
    return removed


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False

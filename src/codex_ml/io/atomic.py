"""Files and directories written through one interface: durable, in private modes, and complete or absent."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from codex_ml.errors import UserError
from codex_ml.io.untrusted import kind_of

_CHUNK_BYTES = 1 << 20
# Ends the name of a file that an atomic write has not renamed yet.
PARTIAL_SUFFIX = ".partial"


class Storage:
    """The few filesystem operations that decide whether a file survives a crash.

    Everything durable goes through one instance, so that a test can pass another that records, fails or kills. The
    first group asks the kernel for one thing each; the second uses only the first, so a subclass that
    replaces the first sees every change and every request to force one to the disk.
    """

    def open_file(self, path: Path, flags: int) -> int:
        """Open a file and return its descriptor; one that ``O_CREAT`` makes is private (mode 0600).

        Raises
        ------
        UserError
            If a file is to be written and its path is a link, a pipe or a device, or a file that has a second
            name: a run directory may be untrusted, and writes must not leave it.
        """
        if flags & (os.O_WRONLY | os.O_RDWR) == 0:
            return os.open(path, flags | os.O_CLOEXEC, 0o600)
        try:
            # Emptied only when it is known to be the file itself.
            descriptor = os.open(path, flags & ~os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):
                raise
            raise _in_the_way(path, "it is a link, or a pipe that nobody reads") from error
        status = os.fstat(descriptor)
        if kind_of(status.st_mode) is not None or status.st_nlink > 1:
            os.close(descriptor)
            raise _in_the_way(path, f"it is {kind_of(status.st_mode) or 'a file that has a second name (a hard link)'}")
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
        return descriptor

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Hand bytes to the kernel and return how many it took."""
        return os.write(descriptor, data)

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        """Cut a file to a size."""
        os.ftruncate(descriptor, size_bytes)

    def fsync(self, descriptor: int) -> None:
        """Force the content of a file, or the names in a directory, to the disk."""
        os.fsync(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """Rename atomically; source and target lie on one filesystem."""
        os.replace(source, target)

    def unlink(self, path: Path) -> None:
        """Delete one file."""
        path.unlink()

    def make_one_directory(self, path: Path) -> None:
        """Make one private directory (mode 0700); its parent must exist, and it must not."""
        path.mkdir(mode=0o700)

    def remove_tree(self, path: Path) -> None:
        """Delete a directory and all it holds."""
        shutil.rmtree(path)

    def free_bytes(self, path: Path) -> int:
        """Return the bytes an unprivileged user may still write on the filesystem of ``path``."""
        return shutil.disk_usage(path).free

    def total_bytes(self, path: Path) -> int:
        """Return the size of the filesystem of ``path``; 0 for one that holds no files, such as /proc."""
        return shutil.disk_usage(path).total

    def write_bytes(self, path: Path, data: bytes) -> None:
        """Write a file and force its content to the disk before returning."""
        self.write_pieces(path, [data])

    def write_pieces(self, path: Path, pieces: Iterable[bytes | memoryview]) -> None:
        """Write a file piece by piece, so that it need not be in memory as a whole, and force it to the disk."""
        descriptor = self.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            for piece in pieces:
                left = memoryview(piece)
                # The kernel takes about 2 GiB at once, and less where the disk is nearly full.
                while left:
                    left = left[self.write(descriptor, left) :]
            self.fsync(descriptor)
        except OSError as error:
            # These calls know only a descriptor; the error needs the path. One without a number has words of
            # its own, which a name would hide.
            if error.errno is not None:
                error.filename = error.filename or str(path)
            raise
        finally:
            os.close(descriptor)

    def fsync_file(self, path: Path) -> None:
        """Force the content of a file that a library wrote to the disk."""
        descriptor = self.open_file(path, os.O_RDONLY)
        try:
            self.fsync(descriptor)
        finally:
            os.close(descriptor)

    def fsync_directory(self, path: Path) -> None:
        """Force the names in a directory to the disk; without it a rename can be lost at power failure."""
        self.fsync_file(path)

    def make_directory(self, path: Path) -> None:
        """Make a private directory (mode 0700) and its parents, so that each of them survives a power failure."""
        made = True
        try:
            self.make_one_directory(path)
        except FileNotFoundError:
            self.make_directory(path.parent)
            self.make_one_directory(path)
        except FileExistsError:
            if not path.is_dir():
                raise
            made = False
        # Also for an existing directory: its creator may have been killed before this line. Only one that
        # others created can be in a directory that is not readable.
        if made or os.access(path.parent, os.R_OK):
            self.fsync_directory(path.parent)

    def write_atomic(self, path: Path, data: bytes) -> None:
        """Write beside the target, force to disk, rename over it: readers see the old file or the new one."""
        staged = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
        try:
            self.write_bytes(staged, data)
            self.replace(staged, path)
        except BaseException as error:
            if isinstance(error, OSError) and error.errno is not None:
                # The staged name says nothing to anybody.
                error.filename = str(path)
            # What cannot be removed on a failing disk is removed by the next start; the first error is the one to show.
            with contextlib.suppress(OSError):
                self.unlink(staged)
            raise
        self.fsync_directory(path.parent)

    def write_json(self, path: Path, value: Any) -> None:
        """Write a value as readable JSON, atomically; NaN and infinities are refused (ValueError)."""
        self.write_atomic(path, json_bytes(value))


def _in_the_way(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is not written", why=why, fix="find out who put it there, and remove it", code="FILE_WRONG_KIND"
    )


def json_bytes(value: Any) -> bytes:
    """Return indented UTF-8 JSON with a final newline; the same value always gives the same bytes."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")


def bytes_digest(data: bytes) -> str:
    """Return the SHA-256 of bytes as ``"sha256:<hex>"``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content as ``"sha256:<hex>"``, reading it in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


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

"""A directory that appears whole or not at all, is never written over, and leaves nothing behind when it fails."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from codex_ml.errors import DataError, no_room
from codex_ml.io.atomic import Storage, make_locked_directory, remove_abandoned, staged_path, staged_pattern

_CHUNK_BYTES = 1 << 20


def refuse_foreign(target: Path, names: Collection[str]) -> None:
    """Stop when there is something at ``target`` that cannot be the very directory that is to be made.

    Raises
    ------
    DataError
        If it is no directory, or holds other names.
    """
    if not os.path.lexists(target):
        return
    if not target.is_dir() or {item.name for item in target.iterdir()} not in (set(), set(names)):
        raise _something_else(target)


@contextmanager
def staging(target: Path, storage: Storage) -> Iterator[Path]:
    """Give a private directory beside ``target``, on its filesystem, and remove it in the end with all that is in it.

    One that a killed process left for the same target is removed first: its lock ended with the process.

    Raises
    ------
    DataError
        If it cannot be made.
    """
    missing = [parent for parent in target.parents if not parent.exists()]
    root = staged_path(target)
    try:
        storage.make_directory(target.parent)
        remove_abandoned(target.parent, staged_pattern(target), storage)
        descriptor = make_locked_directory(root, storage)
        storage.fsync_directory(target.parent)
    except OSError as error:
        if no_room(error) is not None:
            raise
        raise DataError(
            f"{target} cannot be made",
            why=f"{error.filename or target.parent}: {error.strerror}",
            fix="name a directory in which you may write",
            code="OUTPUT_DIRECTORY_NOT_CREATED",
        ) from error
    try:
        yield root
    finally:
        os.close(descriptor)
        storage.remove_tree(root)
        for parent in missing:
            # Made for the target alone; where that has come to be, it is not empty.
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


def put_in_place(made: Path, target: Path, storage: Storage) -> bool:
    """Force a finished directory of plain files to the disk and rename it to ``target``.

    Returns
    -------
    bool
        False when the very same files lie there already, and nothing was done.

    Raises
    ------
    DataError
        If something else lies there.
    """
    files = sorted(made.iterdir())
    refuse_foreign(target, [file.name for file in files])
    if target.is_dir() and any(target.iterdir()):
        if all(_same_bytes(file, target / file.name) for file in files):
            return False
        raise _something_else(target)
    for file in files:
        storage.fsync_file(file)
    storage.fsync_directory(made)
    storage.replace(made, target)
    storage.fsync_directory(target.parent)
    return True


def _something_else(target: Path) -> DataError:
    return DataError(
        f"{target} exists and holds something else",
        why="a split is never written over",
        fix="name another directory",
        code="OUTPUT_EXISTS",
    )


def _same_bytes(first: Path, second: Path) -> bool:
    if not second.is_file():
        return False
    with first.open("rb") as one, second.open("rb") as other:
        while True:
            left, right = one.read(_CHUNK_BYTES), other.read(_CHUNK_BYTES)
            if left != right:
                return False
            if not left:
                return True

"""Files that a command makes where the user says: never written over unasked, and put in place whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from codex_ml.errors import UserError
from codex_ml.io.atomic import Storage
from codex_ml.io.untrusted import kind_of


def refuse_existing(written: Sequence[tuple[str, Path]], *, overwrite: bool) -> None:
    """Stop where a file would be lost.

    Parameters
    ----------
    written : sequence of (str, Path)
        Option and file.
    overwrite : bool
        Whether plain files may be replaced; links, directories and devices never are.

    Raises
    ------
    UserError
        For the first that is in the way.
    """
    for option, path in written:
        if not os.path.lexists(path):
            continue
        if path.is_dir():
            raise UserError(
                f"{option}: {path} is a directory",
                fix=f"name a file in it: {option} {path}/NAME",
                code="FILE_WRONG_KIND",
            )
        if path.is_symlink() or kind_of(path.lstat().st_mode) is not None:
            raise UserError(
                f"{option}: {path} is not written over",
                why="it is a link" if path.is_symlink() else f"it is {kind_of(path.lstat().st_mode)}",
                fix=f"name another file: {option} PATH",
                code="FILE_WRONG_KIND",
            )
        if not overwrite:
            raise UserError(
                f"{option}: {path} exists",
                why="a file is not written over unless that is asked for",
                fix="name another file, or add --overwrite",
                code="OUTPUT_EXISTS",
            )


def is_same_file(first: Path, second: Path) -> bool:
    """Tell whether two paths are one file: by name, link or hard link."""
    try:
        return first.resolve() == second.resolve() or first.samefile(second)
    except (OSError, RuntimeError):
        # One of them is not there yet, or is a link to itself, which its reader says better.
        return False


def in_real_directory(path: Path) -> Path:
    """Return a path with the links of its directory followed, and not that of its own name; loops stay as they are."""
    return Path(os.path.realpath(path.parent)) / path.name


def put_in_place(made: Path, target: Path, storage: Storage) -> None:
    """Give a file that is finished its name; after a power cut it is there whole, or not at all."""
    storage.fsync_directory(made.parent)
    storage.replace(made, target)
    storage.fsync_directory(target.parent)

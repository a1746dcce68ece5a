"""Tells a run directory that codex-ml made from one that a stranger prepared: no links, pipes or devices in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from codex_ml.errors import UserError
from codex_ml.untrusted import kind_of

# Read and written in all their depth; what trackers keep in directories of their own is their business.
_OWN_DIRECTORIES = ("checkpoints", "eval")


def require_own_files(directory: Path) -> None:
    """Refuse a run directory in which something leads elsewhere: what is written through it would be written there.

    Raises
    ------
    UserError
        With the first entry that is no file and no directory.
    """
    for entry in _entries(directory):
        try:
            kind = kind_of(entry.stat(follow_symlinks=False).st_mode)
        except FileNotFoundError:
            continue  # a run at work has moved or deleted it meanwhile
        if kind is not None and not entry.is_dir(follow_symlinks=False):
            raise UserError(
                f"{directory} is not used: {Path(entry.path).relative_to(directory)} is {kind}",
                why="codex-ml puts none into a run, and what a run writes through it would be written elsewhere",
                fix="find out who put it there, and remove it or put the file itself there",
            )


def _entries(directory: Path) -> Iterator[os.DirEntry[str]]:
    yield from _scan(directory)
    pending = [directory / name for name in _OWN_DIRECTORIES]
    while pending:
        for entry in _scan(pending.pop()):
            yield entry
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))


def _scan(directory: Path) -> list[os.DirEntry[str]]:
    if directory.is_symlink() and directory.name in _OWN_DIRECTORIES:
        return []
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []

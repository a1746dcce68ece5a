"""Removes run directories, but never anything else: no active run, no target of a link."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from codex_ml.errors import CodexError, UserError
from codex_ml.io.atomic import Storage
from codex_ml.io.terminal import visible_name
from codex_ml.runs.checkpoints import list_checkpoints, read_pointer
from codex_ml.runs.layout import RunLayout, RunRecord, read_record
from codex_ml.runs.lock import hold_lock, is_locked

_PREFIX = ".removed-"
# What `remove_run` renames to; nothing else that begins with a point is ever touched.
_LEFTOVER = re.compile(r"\.removed-(?P<name>.+)\.[0-9]+", re.DOTALL)
EVALUATION_LOCK = "eval.lock"


@dataclass(frozen=True)
class Removal:
    """One run that is to go, and what goes with it.

    Attributes
    ----------
    byte_count, file_count : int
        Of everything below its directory; links count as themselves.
    checkpoints : int
        How many it holds.
    best : str, optional
        Name of the best of them.
    """

    layout: RunLayout
    record: RunRecord
    byte_count: int
    file_count: int
    checkpoints: int
    best: str | None

    def line(self) -> str:
        """Return what goes, for people."""
        held = f"{self.checkpoints} checkpoints" + (f" (best {self.best})" if self.best else "")
        size = f"{self.file_count} files, {self.byte_count:,} bytes"
        return f"{visible_name(self.layout.directory)}  {self.record.status}  {size}, {held}"


def plan_removal(layout: RunLayout) -> Removal:
    """Look at a run that is to be removed; nothing is changed.

    Raises
    ------
    UserError
        If the directory is a link or no run of ours, or a process uses it.
    """
    directory = layout.directory
    if directory.is_symlink() or layout.record.is_symlink():
        raise UserError(
            f"{directory} is a link, or its run.json is one",
            why="what lies behind a link is never removed",
            fix="name the run's own directory; a link is removed with rm",
            code="RUN_FOREIGN_FILE",
        )
    # Only links above it are followed now: it is renamed where it lies.
    layout = RunLayout(directory.resolve())
    record = _record_of(layout)
    for lock, what in ((layout.lock, "the run"), (layout.evaluations / EVALUATION_LOCK, "an evaluation of it")):
        if is_locked(lock):
            raise UserError(
                f"{layout.directory.name} cannot be removed: {what} is in progress",
                why=f"{lock.name} is held by another process",
                fix="wait for it to end, or stop it with Ctrl-C, then remove the run",
                code="RUN_IN_PROGRESS",
            )
    sizes = _sizes(layout.directory)
    best = read_pointer(layout.checkpoints, "best")
    return Removal(
        layout,
        record,
        byte_count=sum(sizes),
        file_count=len(sizes),
        checkpoints=len(list_checkpoints(layout.checkpoints)),
        best=best.name if best is not None else None,
    )


def remove_run(removal: Removal, storage: Storage) -> None:
    """Remove a run: renamed aside first, so that an interrupted removal leaves nothing that looks like one.

    Raises
    ------
    UserError
        If a process began to work in it since it was planned.
    CodexError
        If the system refuses; what is left lies under another name, which the next removal finishes.
    """
    directory = removal.layout.directory
    aside = directory.with_name(f"{_PREFIX}{directory.name}.{os.getpid()}")
    # Held to the end: a resume that starts now is refused instead of losing its directory later.
    with hold_lock(removal.layout.lock):
        if read_record(removal.layout, any_files=True).run_id != removal.record.run_id:
            raise UserError(
                f"{directory} is another run now", fix="look again with codex-ml runs list", code="RUN_CHANGED"
            )
        storage.replace(directory, aside)
        storage.fsync_directory(directory.parent)
        _delete(aside, storage)


def finish_removals(directory: Path, storage: Storage, name: str | None = None) -> list[str]:
    """Delete what interrupted removals left in a directory of runs, and return the names of these runs.

    Parameters
    ----------
    directory : Path
        Where the runs are, or were.
    storage : Storage
        The disk.
    name : str, optional
        The one run to look for; None: every run.
    """
    if not directory.is_dir():
        return []
    finished = []
    for path in sorted(directory.iterdir()):
        match = _LEFTOVER.fullmatch(path.name)
        if match is None or name not in (None, match["name"]) or path.is_symlink() or not path.is_dir():
            continue
        # One that another process is deleting at this moment still holds its lock.
        if path.stat().st_uid == os.geteuid() and not is_locked(path / "run.lock"):
            _delete(path, storage)
            finished.append(match["name"])
    return finished


def _record_of(layout: RunLayout) -> RunRecord:
    try:
        return read_record(layout, any_files=True)
    except UserError as error:
        if not layout.record.exists():
            raise
        raise UserError(
            error.what,
            why=f"{error.why}; what cannot be read as a run is not removed",
            fix="restore the file from a copy, or delete the directory by hand: "
            f"rm -r {shlex.quote(str(layout.directory))}",
            code="RUN_FOREIGN_FILE",
        ) from error


def _delete(directory: Path, storage: Storage) -> None:
    try:
        storage.remove_tree(directory)
    except OSError as error:
        raise CodexError(
            f"{directory} could not be deleted wholly",
            why=f"{error.filename or directory}: {error.strerror or error}",
            fix="correct the permissions, then codex-ml runs rm again; it finishes what it left",
            code="RUN_NOT_REMOVED",
        ) from error


def _sizes(directory: Path) -> list[int]:
    """Return the size of every file below a directory; a link is a file, and what it leads to is not looked at."""
    found = []
    for place, folders, names in os.walk(directory, followlinks=False):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        found += [(Path(place) / name).lstat().st_size for name in (*names, *links)]
    return found

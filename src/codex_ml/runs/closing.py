"""Closes a run whose process died without a word: the record says RUNNING, and nobody holds its lock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from codex_ml.errors import UserError
from codex_ml.io.atomic import Storage
from codex_ml.io.clock import format_time
from codex_ml.runs.last_memory import read_last_memory
from codex_ml.runs.layout import RunLayout, RunRecord, read_record, write_record
from codex_ml.runs.lock import hold_lock, is_locked

# Between the directory of a run and its lock lie a few instructions: so young a run without a lock file is starting.
_STARTING = timedelta(minutes=1)


@dataclass(frozen=True)
class Closed:
    """The record of a run after a look at its lock.

    Attributes
    ----------
    record : RunRecord
        As it was, or closed as KILLED.
    message : str, optional
        What was done, for the user; None where nothing had to be done.
    """

    record: RunRecord
    message: str | None = None


def finalize_if_dead(
    layout: RunLayout,
    record: RunRecord,
    now: datetime,
    storage: Storage,
    on_close: Callable[[RunLayout, RunRecord], None] | None = None,
) -> Closed:
    """Close a run as KILLED if its process is gone.

    When it ended is unknown and stays so (``ended`` is null); the record keeps when it last wrote a file and when it
    was found dead. A kernel lock decides, never a process id or an age.

    Parameters
    ----------
    layout, record
        The run, and what its record says.
    now : datetime
        The time of the look.
    storage : Storage
        Writes the record.
    on_close : callable, optional
        Gets the closed record while the lock is held: what else is to be written into the run's directory.
    """
    if record.status != "RUNNING" or _is_alive(layout, record, now):
        return Closed(record)
    name = layout.directory.name
    try:
        # Held while writing: a resume that starts at this moment waits, and then writes RUNNING over it.
        with hold_lock(layout.lock, patience_seconds=0.0):
            record = read_record(layout)
            if record.status != "RUNNING":
                return Closed(record)
            dead = replace(
                record,
                status="KILLED",
                ended=None,
                found_dead=format_time(now),
                last_sign_of_life=format_time(last_sign_of_life(layout)),
            )
            write_record(layout, dead, storage)
            if on_close is not None:
                on_close(layout, dead)
    except UserError:
        # It was resumed in this very moment, by a process that now holds the lock.
        return Closed(record)
    except OSError as error:
        dead = replace(record, status="KILLED")
        return Closed(dead, f"{name} died without a word; its record cannot be closed: {error.strerror or error}")
    memory = read_last_memory(layout.metrics)
    return Closed(
        dead,
        f"{name} died without a word: closed as KILLED; its last file was written {_shown(dead)}"
        + (f"; {memory.text()}" if memory is not None else ""),
    )


def last_sign_of_life(layout: RunLayout) -> datetime:
    """Return when training last wrote a file of a run: record, logs, checkpoints (not what an evaluation adds)."""
    written = [layout.record, layout.metrics, layout.events, *layout.checkpoints.glob("*")]
    return datetime.fromtimestamp(max(path.stat().st_mtime for path in written if path.exists()), UTC)


def _is_alive(layout: RunLayout, record: RunRecord, now: datetime) -> bool:
    try:
        if layout.lock.exists():
            return is_locked(layout.lock)
    except PermissionError:
        # Another user's run: nothing can be said of it, so its own word stands.
        return True
    try:
        # A start in the future comes from a clock that was set back since: no reason to take it for a young run.
        return timedelta(0) <= now - datetime.fromisoformat(record.started) < _STARTING
    except (ValueError, TypeError):
        return False


def _shown(record: RunRecord) -> str:
    return (record.last_sign_of_life or "")[:19].replace("T", " ")

"""A run whose process died is closed as KILLED; one that lives, or may be starting, is left alone."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from codex_ml.io.atomic import Storage
from codex_ml.runs.closing import finalize_if_dead, last_sign_of_life
from codex_ml.runs.layout import RunRecord, close_record, read_record
from codex_ml.runs.lock import hold_lock

STARTED = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
LATER = STARTED + timedelta(hours=2)


def test_close_if_dead_lock_not_held_is_killed_with_unknown_end(make_run) -> None:
    """The record says KILLED, names no end, and between which two moments it was."""
    layout, record = make_run(status="RUNNING")
    layout.lock.write_text('{"pid": 1}')
    layout.metrics.write_text("{}\n")
    for path in (layout.record, layout.metrics):
        os.utime(path, (STARTED.timestamp() + 60, STARTED.timestamp() + 60))
    noted: list[RunRecord] = []
    closed = finalize_if_dead(layout, record, LATER, Storage(), lambda _layout, dead: noted.append(dead))
    assert closed.record == read_record(layout) == noted[0]
    assert (closed.record.status, closed.record.ended) == ("KILLED", None)
    assert closed.record.found_dead == "2026-11-22T14:00:00.000000Z"
    assert closed.record.last_sign_of_life == "2026-11-22T12:01:00.000000Z"
    assert closed.message is not None
    assert "died without a word" in closed.message
    assert "2026-11-22 12:01:00" in closed.message


def test_close_if_dead_lock_held_leaves_the_run_alone(make_run) -> None:
    """However old it is: a kernel lock decides."""
    layout, record = make_run(status="RUNNING")
    with hold_lock(layout.lock):
        closed = finalize_if_dead(layout, record, LATER, Storage())
    assert (closed.record, closed.message) == (record, None)
    assert read_record(layout) == record


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_close_if_dead_ended_run_is_not_touched(make_run, status: str) -> None:
    """How a run ended is never rewritten."""
    layout, record = make_run(status=status)
    before = layout.record.stat().st_mtime_ns
    assert finalize_if_dead(layout, record, LATER, Storage()).record == record
    assert layout.record.stat().st_mtime_ns == before


def test_close_if_dead_young_run_without_lock_file_is_starting(make_run) -> None:
    """Between its directory and its lock lie a few instructions; an old one without a lock died there."""
    layout, record = make_run(status="RUNNING")
    soon = finalize_if_dead(layout, record, STARTED + timedelta(seconds=5), Storage())
    assert soon.record.status == "RUNNING"
    assert finalize_if_dead(layout, record, LATER, Storage()).record.status == "KILLED"


def test_close_if_dead_start_in_the_future_without_lock_file_died_there(make_run) -> None:
    """The clock was set back since: such a run would be starting for as long as the clock is behind."""
    layout, record = make_run(status="RUNNING")
    assert finalize_if_dead(layout, record, STARTED - timedelta(hours=1), Storage()).record.status == "KILLED"


def test_close_if_dead_last_memory_stands_in_the_message(make_run) -> None:
    """What the run last wrote of its memory is the only trace of a kill by the kernel."""
    layout, record = make_run(status="RUNNING")
    layout.lock.touch()
    values = (("memory_bytes", 3 << 30), ("available_bytes", 1 << 20))
    lines = [json.dumps({"step": 7, "name": name, "value": value}) for name, value in values]
    layout.metrics.write_text("\n".join(lines) + "\n")
    message = finalize_if_dead(layout, record, LATER, Storage()).message or ""
    assert "at step 7 it held 3.00 GiB of memory, 0.00 GiB were left: the kernel's out-of-memory killer" in message


def test_close_if_dead_ended_since_it_was_read_keeps_its_own_end(make_run) -> None:
    """A run that ended in good order between the reading and the look is not called KILLED."""
    layout, record = make_run(status="RUNNING")
    layout.lock.touch()
    close_record(layout, record, "FINISHED", LATER, Storage())
    closed = finalize_if_dead(layout, record, LATER, Storage())
    assert (closed.record.status, closed.message) == ("FINISHED", None)
    assert read_record(layout).status == "FINISHED"


def test_close_if_dead_record_cannot_be_written_is_said(make_run) -> None:
    """On a disk that may not be written the run is shown as KILLED, and the user hears why it stays RUNNING there."""

    class ReadOnly(Storage):
        def write_json(self, path: Path, value: object) -> None:  # noqa: ARG002 - the signature of Storage
            raise OSError(30, "Read-only file system", str(path))

    layout, record = make_run(status="RUNNING")
    layout.lock.touch()
    closed = finalize_if_dead(layout, record, LATER, ReadOnly())
    assert closed.record.status == "KILLED"
    assert "Read-only file system" in (closed.message or "")
    assert json.loads(layout.record.read_text())["status"] == "RUNNING"


def test_last_sign_of_life_later_evaluation_and_lock_do_not_count(make_run) -> None:
    """Only what training writes tells when training was last alive."""
    layout, _ = make_run(status="RUNNING")
    os.utime(layout.record, (1000, 1000))
    (layout.evaluations).mkdir()
    layout.lock.touch()
    assert last_sign_of_life(layout) == datetime.fromtimestamp(1000, UTC)
    layout.checkpoints.joinpath("latest").write_text("x")
    os.utime(layout.checkpoints / "latest", (2000, 2000))
    assert last_sign_of_life(layout) == datetime.fromtimestamp(2000, UTC)


def test_close_record_after_a_resume_forgets_that_it_was_found_dead(make_run) -> None:
    """A run that was resumed and finished has an end like any other."""
    layout, record = make_run(status="RUNNING")
    dead = finalize_if_dead(layout, record, LATER, Storage()).record
    ended = close_record(layout, dead, "FINISHED", LATER, Storage())
    assert (ended.found_dead, ended.last_sign_of_life) == (None, None)

"""What `--resume-from` finds, and when it refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from codex_ml.errors import CheckpointError, UserError
from codex_ml.io.atomic import Storage
from codex_ml.monitoring.codex_logging import read_ndjson
from codex_ml.recipes.train.resume import ResumePoint, check_fingerprint, close_dead_run, find_resume_point
from codex_ml.runs.checkpoints import checkpoint_name
from codex_ml.runs.layout import close_record, create_run, read_record
from codex_ml.runs.lock import hold_lock
from codex_ml.runs.manifest import write_manifest

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def _checkpoint(layout, step: int):
    directory = layout.checkpoints / checkpoint_name(step)
    directory.mkdir()
    (directory / "weights.safetensors").write_bytes(f"{step}".encode())
    write_manifest(directory, {"step": step}, Storage())
    return directory


def test_find_resume_point_nothing_asked_starts_anew(tmp_path):
    """Without a reference there is neither run nor message."""
    point = find_resume_point(None, tmp_path, "run")
    assert point.layout is None
    assert point.message is None


def test_find_resume_point_latest_without_run_starts_one_and_says_so(tmp_path):
    """`latest` in an empty directory is not an error."""
    point = find_resume_point("latest", tmp_path, "name")
    assert point.layout is None
    assert (point.message or "").endswith("yet: starting one")


def test_find_resume_point_latest_of_a_mistyped_name_says_what_was_probably_meant(tmp_path):
    """A new run begins as asked, and the near name is said; a run without a checkpoint has no work to go on with."""
    layout, _ = create_run(tmp_path, "notes", START, Storage())
    _checkpoint(layout, 10)
    create_run(tmp_path, "notes-evaluate", START, Storage())
    point = find_resume_point("latest", tmp_path, "notse")
    assert point.layout is None
    assert (point.message or "").endswith("starting one (did you mean run.name=notes?)")


def test_find_resume_point_latest_takes_newest_run_of_that_name(tmp_path):
    """Other names and older runs do not count; within the run the newest whole checkpoint does."""
    old, _ = create_run(tmp_path, "mine", START, Storage())
    _checkpoint(old, 50)
    new, _ = create_run(tmp_path, "mine", START + timedelta(hours=1), Storage())
    _checkpoint(new, 9)
    newest = _checkpoint(new, 10)
    create_run(tmp_path, "other", START + timedelta(hours=2), Storage())
    point = find_resume_point("latest", tmp_path, "mine")
    assert point.layout == new
    assert point.checkpoint == newest


def test_find_resume_point_renamed_run_is_still_the_latest(tmp_path):
    """A second run beside the renamed one would lose the first's work in silence."""
    layout, _ = create_run(tmp_path, "mine", START, Storage())
    _checkpoint(layout, 10)
    renamed = layout.directory.rename(tmp_path / "good-one")
    point = find_resume_point("latest", tmp_path, "mine")
    assert point.checkpoint == renamed / "checkpoints" / checkpoint_name(10)


def test_find_resume_point_renamed_run_with_damaged_record_is_named(tmp_path):
    """It may be the latest; a stranger's directory with a run.json and no checkpoint is not in the way."""
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "run.json").write_text("{")
    assert find_resume_point("latest", tmp_path, "mine").layout is None
    layout, _ = create_run(tmp_path, "mine", START, Storage())
    _checkpoint(layout, 10)
    layout.record.write_text("{")
    layout.directory.rename(tmp_path / "good-one")
    with pytest.raises(UserError, match="good-one cannot be read"):
        find_resume_point("latest", tmp_path, "mine")


def test_find_resume_point_run_without_checkpoint_starts_at_zero_there(tmp_path):
    """A run that died before its first checkpoint goes on in its own directory."""
    layout, _ = create_run(tmp_path, "mine", START, Storage())
    point = find_resume_point("latest", tmp_path, "mine")
    assert point.layout == layout
    assert point.checkpoint is None
    assert "step 0" in (point.message or "")


def test_find_resume_point_damaged_newest_passes_it_over_by_name(tmp_path):
    """A damaged newest checkpoint is named, and the one before is used."""
    layout, _ = create_run(tmp_path, "mine", START, Storage())
    good = _checkpoint(layout, 5)
    bad = _checkpoint(layout, 10)
    (bad / "weights.safetensors").write_bytes(b"??")
    point = find_resume_point(str(layout.directory), tmp_path, "mine")
    assert point.checkpoint == good
    assert [item.directory for item in point.passed_over] == [bad]


def test_find_resume_point_only_damaged_checkpoints_is_an_error(tmp_path):
    """Starting again at step 0 over damaged checkpoints would lose work in silence."""
    layout, _ = create_run(tmp_path, "mine", START, Storage())
    bad = _checkpoint(layout, 10)
    (bad / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match="passes its verification"):
        find_resume_point(str(layout.directory), tmp_path, "mine")


def test_find_resume_point_checkpoint_directory_means_itself(tmp_path):
    """A checkpoint named by its directory is used, though a newer one is there."""
    layout, _ = create_run(tmp_path, "mine", START, Storage())
    older = _checkpoint(layout, 5)
    _checkpoint(layout, 10)
    assert find_resume_point(str(older), tmp_path, "mine").checkpoint == older


def test_find_resume_point_other_directory_is_refused(tmp_path):
    """A directory that is no run and no checkpoint inside one cannot be resumed."""
    (tmp_path / "else").mkdir()
    with pytest.raises(CheckpointError, match=r"run\.resume_from"):
        find_resume_point(str(tmp_path / "else"), tmp_path, "mine")


def test_check_fingerprint_difference_names_key_and_both_values(tmp_path):
    """Every difference is shown as it was and as it is."""
    with pytest.raises(CheckpointError) as caught:
        check_fingerprint({"adapter.r": 8, "run.seed": 1}, {"adapter.r": 16, "run.seed": 1}, tmp_path)
    assert "adapter.r: 8 there, 16 now" in caught.value.why
    assert "run.seed" not in caught.value.why


def test_close_dead_run_nobody_holds_the_lock_is_closed_as_killed(tmp_path):
    """The record says RUNNING, the lock is free: closed, said, and noted in the events."""
    layout, _ = create_run(tmp_path, "mine", START, Storage())
    layout.lock.touch()
    point = close_dead_run(find_resume_point("latest", tmp_path, "mine"), START, Storage())
    assert point.record is not None
    assert point.record.status == read_record(layout).status == "KILLED"
    assert (point.message or "").startswith(f"{layout.directory.name} died unexpectedly")
    assert "step 0" in (point.message or "")
    (event,) = read_ndjson(layout.events)
    assert event["kind"] == "previous_process_died"
    assert event["last_sign_of_life"] == point.record.last_sign_of_life


def test_close_dead_run_held_lock_is_refused_and_left_alone(tmp_path):
    """A process is at work there: the resume is refused before anything is read."""
    layout, _ = create_run(tmp_path, "mine", START, Storage())
    point = find_resume_point("latest", tmp_path, "mine")
    with hold_lock(layout.lock), pytest.raises(UserError, match="in progress"):
        close_dead_run(point, START, Storage())
    assert read_record(layout).status == "RUNNING"


def test_close_dead_run_new_or_ended_run_stays_as_it_is(tmp_path):
    """There is nothing to close."""
    assert close_dead_run(ResumePoint(), START, Storage()) == ResumePoint()
    layout, record = create_run(tmp_path, "mine", START, Storage())
    close_record(layout, record, "FAILED", START, Storage())
    point = find_resume_point("latest", tmp_path, "mine")
    assert close_dead_run(point, START, Storage()) == point
    assert not layout.events.exists()

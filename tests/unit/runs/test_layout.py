"""Run directories: made privately, recorded, found newest first by their recorded start."""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from codex_ml.errors import UserError
from codex_ml.io.atomic import Storage
from codex_ml.io.clock import format_time
from codex_ml.runs.layout import (
    RunLayout,
    RunRecord,
    close_record,
    create_run,
    find_runs,
    read_record,
    write_record,
)

NOON = datetime(2026, 11, 22, 12, 0, 0, 250_000, tzinfo=UTC)


def test_create_run_new_directory_is_stamped_private_and_recorded(tmp_path: Path) -> None:
    """The name is stamp and run name, the mode is 0700, the record says RUNNING."""
    layout, record = create_run(tmp_path / "runs", "first", NOON, Storage())
    assert layout.directory.name == "20261122T120000Z-first"
    assert stat.S_IMODE(layout.directory.stat().st_mode) == 0o700
    assert layout.checkpoints.is_dir()
    assert record == read_record(layout)
    assert (record.name, record.started, record.status, record.ended) == (
        "first",
        "2026-11-22T12:00:00.250000Z",
        "RUNNING",
        None,
    )


def test_create_run_local_time_is_stamped_in_utc(tmp_path: Path) -> None:
    """Two machines in two time zones name the same moment alike."""
    local = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    layout, record = create_run(tmp_path, "a", local, Storage())
    assert layout.directory.name == "20261122T120000Z-a"
    assert record.started == format_time(NOON)


def test_create_run_same_name_in_one_second_share_nothing(tmp_path: Path) -> None:
    """Each run gets its own directory and identity, and all of them are found."""
    made = [create_run(tmp_path, "a", NOON, Storage()) for _ in range(3)]
    assert len({layout.directory for layout, _ in made}) == 3
    assert len({record.run_id for _, record in made}) == 3
    assert len(find_runs(tmp_path, "a")) == 3


def test_create_run_file_in_the_way_is_a_user_error(tmp_path: Path) -> None:
    """The message names the key and the place."""
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UserError, match=r"run.output_dir: cannot make a run directory in .*runs") as caught:
        create_run(tmp_path / "runs", "a", NOON, Storage())
    assert caught.value.why


def test_find_runs_order_is_by_recorded_start(tmp_path: Path) -> None:
    """Neither the directory's name nor its modification time decides which run is newest."""
    older = create_run(tmp_path, "a", NOON, Storage())[0].directory
    newer = create_run(tmp_path, "a", NOON + timedelta(microseconds=1), Storage())[0].directory
    # The newer one is renamed to an early stamp, and the older one was touched last.
    renamed = newer.rename(tmp_path / "19990101T000000Z-a")
    os.utime(older, (2_000_000_000, 2_000_000_000))
    assert [layout.directory for layout, _ in find_runs(tmp_path)] == [renamed, older]


@pytest.mark.parametrize("new_name", ["best-run-so-far", "a", "2026", "step-00000001"])
def test_find_runs_directory_that_was_renamed_is_still_a_run(new_name: str, tmp_path: Path) -> None:
    """A run is known by its record: else `latest` would start a second one beside it."""
    layout, record = create_run(tmp_path, "a", NOON, Storage())
    renamed = layout.directory.rename(tmp_path / new_name)
    assert find_runs(tmp_path) == [(RunLayout(renamed), record)]


def test_find_runs_hidden_directory_or_second_name_is_no_run(tmp_path: Path) -> None:
    """What is being removed is hidden; a link to a run beside it is that run."""
    layout, record = create_run(tmp_path, "a", NOON, Storage())
    create_run(tmp_path, "b", NOON, Storage())[0].directory.rename(tmp_path / ".removing-b")
    (tmp_path / "newest").symlink_to(layout.directory.name)
    assert find_runs(tmp_path) == [(layout, record)]


def test_find_runs_by_name_returns_only_that_name(tmp_path: Path) -> None:
    """A name is compared whole, not as a prefix."""
    for name in ("a", "a-b", "b"):
        create_run(tmp_path, name, NOON, Storage())
    assert [record.name for _, record in find_runs(tmp_path, "a")] == ["a"]
    assert len(find_runs(tmp_path)) == 3


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', '{"run_id": "x"}', "record with a number as its start"])
def test_find_runs_damaged_record_is_passed_over(content: str, tmp_path: Path) -> None:
    """A run that died before it became one, or a stranger's directory, does not hide the others."""
    good, record = create_run(tmp_path, "a", NOON, Storage())
    bad = create_run(tmp_path, "b", NOON, Storage())[0]
    if content.startswith("record"):
        content = json.dumps({"run_id": "x", "name": "b", "started": 5, "status": "RUNNING"})
    bad.record.write_text(content)
    (tmp_path / "notes").mkdir()
    (tmp_path / "20261122T120000Z-file").write_text("")
    (tmp_path / "20261122T120001Z-empty").mkdir()
    assert find_runs(tmp_path) == [(good, record)]
    with pytest.raises(UserError, match="is damaged"):
        read_record(bad)


def test_find_runs_no_such_directory_is_empty(tmp_path: Path) -> None:
    """Before the first run there are none."""
    assert find_runs(tmp_path / "runs") == []


@pytest.mark.parametrize("name", ["missing", "file"])
def test_read_record_not_a_run_directory_says_so(name: str, tmp_path: Path) -> None:
    """An absent directory and a file are no run directories."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is not a run directory"):
        read_record(RunLayout(tmp_path / name))


def test_close_record_status_and_end_are_written(tmp_path: Path) -> None:
    """How a run ended can be read afterwards; the rest stays."""
    layout, record = create_run(tmp_path, "a", NOON, Storage())
    closed = close_record(layout, record, "KILLED", NOON + timedelta(hours=1), Storage())
    assert read_record(layout) == closed
    assert (closed.status, closed.ended, closed.run_id) == ("KILLED", "2026-11-22T13:00:00.250000Z", record.run_id)


def test_layout_paths_are_those_of_the_design(tmp_path: Path) -> None:
    """The names on disk are fixed: other tools read them."""
    layout = RunLayout(tmp_path)
    names = [
        path.relative_to(tmp_path).as_posix()
        for path in (
            layout.config,
            layout.provenance,
            layout.data_account,
            layout.data_splits,
            layout.metrics,
            layout.events,
            layout.checkpoints,
            layout.evaluations,
            layout.record,
            layout.lock,
        )
    ]
    assert names == [
        "config.yaml",
        "provenance.json",
        "data_account.json",
        "data_splits.json",
        "metrics.ndjson",
        "events.ndjson",
        "checkpoints",
        "eval",
        "run.json",
        "run.lock",
    ]


def test_write_record_round_trip_is_equal(tmp_path: Path) -> None:
    """What is written is what is read."""
    record = RunRecord("id", "näme", format_time(NOON), "FAILED", format_time(NOON))
    write_record(RunLayout(tmp_path), record, Storage())
    assert read_record(RunLayout(tmp_path)) == record

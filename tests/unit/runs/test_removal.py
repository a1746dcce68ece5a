"""Removing runs: what is no run, at work, or behind a link stays; what is interrupted looks like no run afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from codex_ml.errors import CodexError, UserError
from codex_ml.io.atomic import Storage
from codex_ml.runs.layout import RunLayout, find_runs
from codex_ml.runs.lock import hold_lock
from codex_ml.runs.removal import finish_removals, plan_removal, remove_run


class BreaksOff(Storage):
    """A storage whose deletion breaks off after the rename, as a kill would."""

    def remove_tree(self, path: Path) -> None:
        """Delete one file and fail."""
        (path / "run.json").unlink()
        raise OSError(5, "Input/output error", str(path))


def test_remove_run_counts_and_deletes_all_of_it(make_run, add_checkpoint) -> None:
    """The plan names files, bytes and checkpoints; afterwards the run is gone and its neighbour is not."""
    layout, _ = make_run("a")
    other, _ = make_run("b")
    add_checkpoint(layout, 4)
    planned = plan_removal(layout)
    files = [path for path in layout.directory.rglob("*") if path.is_file()]
    assert (planned.file_count, planned.byte_count) == (len(files), sum(path.stat().st_size for path in files))
    assert planned.checkpoints == 1
    assert f"{planned.byte_count:,} bytes, 1 checkpoints" in planned.line()
    remove_run(planned, Storage())
    assert [path.name for path in layout.directory.parent.iterdir()] == [other.directory.name]


def test_remove_run_link_inside_keeps_what_it_leads_to(make_run, tmp_path) -> None:
    """Links in a run go, their targets stay and are not counted."""
    layout, _ = make_run("a")
    dependencies = tmp_path / "outside"
    dependencies.mkdir()
    (dependencies / "precious.txt").write_bytes(b"x" * 100_000)
    (layout.directory / "to_directory").symlink_to(dependencies)
    (layout.directory / "to_file").symlink_to(dependencies / "precious.txt")
    planned = plan_removal(layout)
    assert planned.byte_count < 10_000
    remove_run(planned, Storage())
    assert (dependencies / "precious.txt").stat().st_size == 100_000
    assert not layout.directory.exists()


def test_plan_removal_damaged_record_says_how_to_delete_it(make_run) -> None:
    """What cannot be read as a run is not removed; the directory to delete by hand is named."""
    layout, _ = make_run("a")
    layout.record.write_text("{")
    with pytest.raises(UserError, match="is damaged") as caught:
        plan_removal(layout)
    assert caught.value.fix.endswith(f"rm -r {layout.directory}")
    assert layout.record.exists()


def test_plan_removal_link_to_run_is_refused(make_run, tmp_path) -> None:
    """A link to a run, and a run.json that is a link, are not what was meant."""
    layout, _ = make_run("a")
    link = tmp_path / "runs" / "latest-a"
    link.symlink_to(layout.directory)
    with pytest.raises(UserError, match="is a link"):
        plan_removal(RunLayout(link))
    borrowed = tmp_path / "borrowed"
    borrowed.mkdir()
    (borrowed / "run.json").symlink_to(layout.record)
    with pytest.raises(UserError, match="is a link"):
        plan_removal(RunLayout(borrowed))


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"run_id": 1}', '{"name": "package"}'])
def test_plan_removal_no_run_of_ours_is_refused(tmp_path, content) -> None:
    """A directory without a record of ours is never removed, whatever lies in it."""
    directory = tmp_path / "precious"
    directory.mkdir()
    if content is not None:
        (directory / "run.json").write_text(content)
    with pytest.raises(UserError):
        plan_removal(RunLayout(directory))


def test_plan_removal_at_work_is_refused_for_run_and_evaluation(make_run) -> None:
    """A kernel lock decides: neither a run nor an evaluation of it loses its directory."""
    layout, _ = make_run("a", status="RUNNING")
    with hold_lock(layout.lock), pytest.raises(UserError, match="the run is in progress"):
        plan_removal(layout)
    layout.evaluations.mkdir()
    with hold_lock(layout.evaluations / "eval.lock"), pytest.raises(UserError, match="an evaluation of it"):
        plan_removal(layout)
    assert plan_removal(layout).record.status == "RUNNING"


def test_remove_run_at_work_since_the_plan_is_refused(make_run) -> None:
    """Between the question and the answer a resume may have begun."""
    layout, _ = make_run("a")
    planned = plan_removal(layout)
    with hold_lock(layout.lock), pytest.raises(UserError, match="in progress"):
        remove_run(planned, Storage())
    assert layout.record.is_file()


def test_remove_run_broken_off_leaves_no_run_and_is_finished_later(make_run, tmp_path) -> None:
    """What is left is no run to anybody; the next removal deletes it, and nothing else that begins with a point."""
    layout, _ = make_run("a")
    runs = layout.directory.parent
    (runs / ".removed-mine").mkdir()
    with pytest.raises(CodexError, match="could not be deleted wholly") as caught:
        remove_run(plan_removal(layout), BreaksOff())
    assert caught.value.exit_code == 1
    assert find_runs(runs) == []
    assert not layout.directory.exists()
    assert finish_removals(runs, Storage(), "another") == []
    assert finish_removals(runs, Storage(), layout.directory.name) == [layout.directory.name]
    assert [path.name for path in runs.iterdir()] == [".removed-mine"]
    assert finish_removals(tmp_path / "nowhere", Storage()) == []

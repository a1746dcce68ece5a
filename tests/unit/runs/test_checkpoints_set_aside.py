"""A run that goes back sets its later checkpoints aside, and finishes that after a kill at any operation."""

from __future__ import annotations

import shlex
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from codex_ml.errors import CheckpointError
from codex_ml.io.atomic import Storage
from codex_ml.recipes.train.resume import find_resume_point
from codex_ml.runs.checkpoints import (
    checkpoint_name,
    list_checkpoints,
    newest_whole,
    read_pointer,
    restore_instructions,
    set_aside_newer,
)
from codex_ml.runs.layout import RunLayout, create_run
from codex_ml.runs.manifest import write_manifest

STAMP = "20261122T120000Z"


class _Killed(BaseException):
    """Stands for a kill: nothing catches it."""


class DyingStorage(Storage):
    """Dies before the operation of a number: renames, deletions and directories count."""

    def __init__(self, survived: int) -> None:
        self.left = survived

    def _count(self) -> None:
        if self.left == 0:
            raise _Killed
        self.left -= 1

    def replace(self, source: Path, target: Path) -> None:
        """Count a rename."""
        self._count()
        super().replace(source, target)

    def unlink(self, path: Path) -> None:
        """Count a deletion."""
        self._count()
        super().unlink(path)

    def make_one_directory(self, path: Path) -> None:
        """Count a directory."""
        self._count()
        super().make_one_directory(path)


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    """Return a run with checkpoints of steps 4, 8, 12 and 16."""
    layout, _ = create_run(tmp_path, "a", datetime(2026, 11, 22, tzinfo=UTC), Storage())
    for step in (4, 8, 12, 16):
        directory = layout.checkpoints / checkpoint_name(step)
        directory.mkdir()
        (directory / "weights").write_text(str(step))
        write_manifest(directory, {"step": step}, Storage())
    return layout


def type_in(commands: str) -> None:
    """Do what a user would who typed these commands."""
    for command in commands.split(" && "):
        subprocess.run(shlex.split(command), check=True)


def die_going_back(checkpoints: Path, survived: int) -> bool:
    """Go back to step 4 until killed; tell whether it was."""
    try:
        set_aside_newer(checkpoints, 4, STAMP, DyingStorage(survived))
    except _Killed:
        return True
    return False


@pytest.mark.parametrize("survived", range(1, 8))
def test_set_aside_newer_killed_at_any_operation_latest_stays_where_it_went_back_to(
    survived: int, run: RunLayout, tmp_path: Path
) -> None:
    """No later `latest` jumps into the future that was given up, and the next start finishes the move."""
    killed = die_going_back(run.checkpoints, survived)
    assert killed == (survived < 7)
    point = find_resume_point("latest", tmp_path, "a")
    assert point.checkpoint == run.checkpoints / checkpoint_name(4)
    aside = set_aside_newer(run.checkpoints, 4, "20261122T120001Z", Storage())
    names = [f"abandoned-{STAMP}/{checkpoint_name(step)}" for step in (8, 12, 16)]
    assert aside == (names if killed else [])
    assert all((run.checkpoints / name / "weights").is_file() for name in names)
    assert [entry.name for entry in sorted(run.checkpoints.iterdir())] == [
        f"abandoned-{STAMP}",
        "latest",
        checkpoint_name(4),
    ]
    assert read_pointer(run.checkpoints, "latest") == point.checkpoint


def test_set_aside_newer_killed_before_its_intention_stands_nothing_has_happened(run: RunLayout) -> None:
    """Before the first operation the newest checkpoint is still the newest."""
    assert die_going_back(run.checkpoints, 0)
    assert newest_whole(run.checkpoints) == (run.checkpoints / checkpoint_name(16), [])


def test_newest_whole_interrupted_going_back_says_why_later_ones_are_passed_over(run: RunLayout) -> None:
    """What is still in its place is named."""
    assert die_going_back(run.checkpoints, 3)
    _, passed_over = newest_whole(run.checkpoints)
    assert [item.directory.name for item in passed_over] == [checkpoint_name(16), checkpoint_name(12)]
    assert "went back to step 4" in passed_over[0].reason


def test_set_aside_newer_another_step_is_named_after_the_kill_it_counts(run: RunLayout) -> None:
    """Who names a later checkpoint that is still in its place goes on from there."""
    assert die_going_back(run.checkpoints, 3)
    assert set_aside_newer(run.checkpoints, 12, "20261122T120001Z", Storage()) == [
        f"abandoned-20261122T120001Z/{checkpoint_name(16)}"
    ]
    assert newest_whole(run.checkpoints) == (run.checkpoints / checkpoint_name(12), [])


def test_set_aside_newer_twice_in_a_second_keeps_both_futures(run: RunLayout) -> None:
    """A checkpoint of one step is in either."""
    set_aside_newer(run.checkpoints, 12, STAMP, Storage())
    assert set_aside_newer(run.checkpoints, 8, STAMP, Storage()) == [f"abandoned-{STAMP}.2/{checkpoint_name(12)}"]
    assert [step for step, _ in list_checkpoints(run.checkpoints)] == [4, 8]


@pytest.mark.parametrize("content", ["", "step-00000004", "step-00000004 ../..", "step-00000004 /etc", "x" * 999])
def test_newest_whole_intention_of_a_stranger_is_ignored(content: str, run: RunLayout) -> None:
    """It leads nowhere but into a directory of the known name."""
    (run.checkpoints / ".going-back").write_text(content)
    assert newest_whole(run.checkpoints)[0] == run.checkpoints / checkpoint_name(16)


def test_find_resume_point_checkpoint_that_was_set_aside_says_how_to_get_it_back(run: RunLayout) -> None:
    """The commands of the refusal work as they stand."""
    (name,) = set_aside_newer(run.checkpoints, 12, STAMP, Storage())
    with pytest.raises(CheckpointError, match="was set aside when its run went back") as caught:
        find_resume_point(run.checkpoints / name, run.directory.parent, "a")
    move, _, reference = caught.value.fix.partition(" and then codex-ml train … --resume-from ")
    type_in(move)
    point = find_resume_point(shlex.split(reference)[0], run.directory.parent, "a")
    assert point.checkpoint == run.checkpoints / checkpoint_name(16)


def test_way_back_step_that_was_made_again_moves_the_new_one_away_first(tmp_path: Path) -> None:
    """Both are kept; a blank in the path changes nothing."""
    checkpoints = tmp_path / "my runs" / "r" / "checkpoints"
    aside = checkpoints / f"abandoned-{STAMP}" / checkpoint_name(8)
    for directory in (aside, checkpoints / checkpoint_name(8)):
        directory.mkdir(parents=True)
        (directory / "weights").write_text(directory.parent.name)
    type_in(restore_instructions(aside).partition(" and then ")[0])
    assert (checkpoints / checkpoint_name(8) / "weights").read_text() == aside.parent.name
    assert (tmp_path / "my runs" / "r" / checkpoint_name(8) / "weights").read_text() == "checkpoints"

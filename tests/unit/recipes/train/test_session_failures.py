"""Failures of a run at work: what they become, and what is said of the last good checkpoint."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from codex_ml.errors import (
    CodexError,
    DiskSpaceError,
    InterruptedRun,
    MemoryShortageError,
    NonFiniteError,
    RunDirectoryError,
    RunDirectoryGoneError,
)
from codex_ml.io.atomic import Storage
from codex_ml.recipes.train.session import RunDirectoryWatch, suppress_secondary_error, translate_run_errors
from codex_ml.runs.layout import RunLayout
from codex_ml.runs.manifest import write_manifest

NO_ROOM = OSError(errno.ENOSPC, "No space left on device", "somewhere/metrics.ndjson")


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    """Return a run at work with two checkpoints, the later one damaged."""
    layout = RunLayout(tmp_path / "runs" / "20261122T120000Z-demo")
    for step in (5, 10):
        directory = layout.checkpoints / f"step-{step:08d}"
        directory.mkdir(parents=True)
        (directory / "adapter_model.safetensors").write_bytes(bytes(8))
        write_manifest(directory, {"step": step}, Storage())
    (layout.checkpoints / "step-00000010" / "adapter_model.safetensors").write_bytes(bytes(7))
    layout.lock.touch()
    return layout


def leave(layout: RunLayout, error: BaseException, before: Callable[[], None] = lambda: None) -> BaseException:
    """Return what leaves the block when an error is raised in it in step 13."""
    memory = lambda raised, step: MemoryShortageError(f"{raised} in step {step}")  # noqa: E731 - one line says it
    try:
        with translate_run_errors(layout, lambda: 12, memory):
            before()
            raise error
    except BaseException as left:  # noqa: BLE001 - whatever it is
        return left


@pytest.mark.parametrize(
    ("error", "becomes", "words"),
    [
        (NO_ROOM, DiskSpaceError, "disk is full: somewhere/metrics.ndjson"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), DiskSpaceError, "quota of this user is used up: a file of 2026"),
        (OSError(errno.EFBIG, "File too large"), DiskSpaceError, "file-size limit of this process: a file of 2026"),
        (Exception("I/O error: No space left on device (os error 28)"), DiskSpaceError, "disk is full"),
        (OSError(errno.EROFS, "Read-only file system", b"x"), RunDirectoryError, "x cannot be read or written"),
        (MemoryError("no more"), MemoryShortageError, "no more in step 13"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryShortageError, "in step 13"),
    ],
)
def test_failures_explained_error_of_the_system_becomes_our_own(layout, error, becomes, words) -> None:
    """What the system or a library says turns into one error with what to do, and the first stays its cause."""
    error.__notes__ = ["also: something else"]
    left = leave(layout, error)
    del error.__notes__
    assert type(left) is becomes
    assert left.__notes__.count("also: something else") == 1
    assert words in left.what
    assert left.__cause__ is error


@pytest.mark.parametrize("error", [NO_ROOM, NonFiniteError("step 13"), ZeroDivisionError("oops"), DiskSpaceError("x")])
def test_failures_explained_every_failure_names_the_last_good_checkpoint(layout, error) -> None:
    """The newest is damaged, so it is the one before; the steps that are lost are counted."""
    (note,) = leave(layout, error).__notes__
    assert note.startswith("kept: the last good checkpoint is step 5 (step-00000005, verified)")
    assert note.endswith("the 7 steps after it are lost")


def test_failures_explained_what_went_wrong_besides_is_said_of_our_own_error_too(layout) -> None:
    """A note on the error of the system, such as a checkpoint that failed after it, is not lost with its words."""
    raised = MemoryError()
    raised.add_note("also: no checkpoint of step 12 could be written: no room")
    assert "also: no checkpoint of step 12 could be written: no room" in leave(layout, raised).__notes__


def test_failures_explained_without_a_checkpoint_says_so(layout) -> None:
    """There is nothing good to name: a resume begins again."""
    for directory in layout.checkpoints.iterdir():
        (directory / "manifest.json").unlink()
    (note,) = leave(layout, NO_ROOM).__notes__
    assert "no checkpoint was whole yet" in note


@pytest.mark.parametrize("error", [InterruptedRun("stopped", 143), KeyboardInterrupt()])
def test_failures_explained_interruption_passes_as_it_is(layout, error) -> None:
    """Neither is a fault of the run."""
    assert leave(layout, error) is error
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "No such file"), Exception("x (os error 2)")])
def test_failures_explained_directory_gone_is_said_whatever_failed_first(layout, error, tmp_path) -> None:
    """Where the directory went away, an error about one of its files says nothing."""
    left = leave(layout, error, before=lambda: layout.directory.rename(tmp_path / "elsewhere"))
    assert isinstance(left, RunDirectoryGoneError)
    assert "removed or moved" in left.what
    assert "all 12 steps went with the directory" in left.__notes__[0]


def test_run_directory_watch_directory_gone_stops_the_run(layout, tmp_path) -> None:
    """As long as it is there, nothing happens; once it is gone, nothing more is done."""
    watch = RunDirectoryWatch(layout)
    watch.before_step(1)
    watch.after_step(1, {})
    layout.directory.rename(tmp_path / "elsewhere")
    with pytest.raises(RunDirectoryError, match="removed or moved"):
        watch.after_step(2, {})


@pytest.mark.parametrize("second", [NO_ROOM, DiskSpaceError("no room"), ValueError("closed")])
def test_second_to_keeps_the_first_error_and_notes_the_other(second: Exception) -> None:
    """Both are said, the first as the error, the second below it."""
    first = NonFiniteError("step 3")
    with suppress_secondary_error(first, "run.json"):
        raise second
    assert len(first.__notes__) == 1
    assert first.__notes__[0].startswith("also: run.json could not be written: ")


def test_second_to_directory_gone_is_not_said_twice() -> None:
    """Nothing can be written into a directory that is gone."""
    first = RunDirectoryGoneError("gone")
    with suppress_secondary_error(first, "run.json"):
        raise CodexError("run.json is gone, too")
    assert not hasattr(first, "__notes__")

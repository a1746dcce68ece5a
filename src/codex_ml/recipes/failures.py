"""Turns what goes wrong while a run is at work into one error that says what is lost and what is still good."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from codex_ml.errors import (
    NOTE_ALSO,
    NOTE_KEPT,
    CodexError,
    DiskSpaceError,
    InterruptedRun,
    MemoryShortageError,
    RunDirectoryError,
    RunDirectoryGoneError,
    free_what_failed,
    is_out_of_memory,
    no_room,
)
from codex_ml.runs.checkpoints import newest_whole, step_of
from codex_ml.runs.layout import RunLayout

_RESUME = "then go on with the same command and --resume-from latest"


@contextmanager
def failures_explained(
    layout: RunLayout,
    step_reached: Callable[[], int],
    explain_memory: Callable[[BaseException, int], MemoryShortageError],
) -> Iterator[None]:
    """Let every failure of the ``with`` block leave it with the last good checkpoint, and system errors as our own.

    Parameters
    ----------
    layout : RunLayout
        The run at work.
    step_reached : callable
        Returns the optimizer steps done so far.
    explain_memory : callable
        Turns an allocation that failed, and the step it failed in, into an error with the figures of this run.

    Raises
    ------
    CodexError
        `DiskSpaceError`, `RunDirectoryError` or `MemoryShortageError` in place of what the system or a library raised.
        Interruptions and all other exceptions pass, with a note added to the latter.
    """
    try:
        yield
    except InterruptedRun:
        # Not a fault: it names the checkpoint that was written.
        raise
    except Exception as error:
        free_what_failed(error)
        step = step_reached()
        explained = explain(error, layout, lambda raised: explain_memory(raised, step + 1))
        if explained is not None:
            for note in getattr(error, "__notes__", ()):
                explained.add_note(note)
        _note_last_good(explained or error, layout, step)
        if explained is None:
            raise
        raise explained from error


@contextmanager
def second_to(first: BaseException, what: str) -> Iterator[None]:
    """Keep an error of the ``with`` block from hiding the one that the run is dying of; it becomes a note on that.

    Parameters
    ----------
    first : BaseException
        What the run is dying of.
    what : str
        What the block tries to write, for the note.
    """
    if is_out_of_memory(first):
        free_what_failed(first)
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, memory included, the first one is what must be seen
        # Nothing can be written into a directory that is gone, and the first error says so.
        if not isinstance(first, RunDirectoryGoneError):
            first.add_note(f"{NOTE_ALSO}{what} could not be written: {_first_line(error)}")


def explain(
    error: Exception, layout: RunLayout, explain_memory: Callable[[BaseException], MemoryShortageError]
) -> CodexError | None:
    """Return the error to show in place of one that the system or a library raised; None where it speaks for itself."""
    touches_files = isinstance(error, OSError | DiskSpaceError | RunDirectoryError) or "os error" in str(error)
    if touches_files and is_gone(layout):
        return directory_gone(layout)
    if isinstance(error, CodexError):
        return None
    if is_out_of_memory(error):
        return explain_memory(error)
    limit = no_room(error)
    if limit is not None:
        return DiskSpaceError(
            f"{limit.problem}: {_place(error, layout)} cannot be written",
            why=_first_line(error),
            fix=f"{limit.fix}, {_RESUME}",
        )
    if isinstance(error, OSError):
        return RunDirectoryError(
            f"{_place(error, layout)} cannot be read or written any more",
            why=error.strerror or _first_line(error),
            fix=f"see to the disk and its permissions, {_RESUME}",
        )
    return None


def last_good(layout: RunLayout) -> Path | None:
    """Return the newest checkpoint that passes its verification; None where there is none, or nothing to look at."""
    try:
        return newest_whole(layout.checkpoints)[0]
    except OSError:
        return None


def is_gone(layout: RunLayout) -> bool:
    """Tell whether the directory of a run at work is no longer there; its lock file is as old as the run."""
    return not layout.lock.exists()


def directory_gone(layout: RunLayout) -> RunDirectoryGoneError:
    """Return the error that stops a run whose directory was taken away."""
    return RunDirectoryGoneError(
        f"the run directory {layout.directory} was removed or moved while the run was at work",
        why="nothing of the run can be written any more, and it is not made again half empty",
        fix="start the run again; if the directory was only moved, put it back and use --resume-from latest",
    )


class RunDirectoryWatch:
    """A hook that stops a run whose directory was removed: an open log would swallow lines, a save make half a run."""

    def __init__(self, layout: RunLayout) -> None:
        self._layout = layout

    def before_step(self, step: int) -> None:
        """Do nothing."""

    def after_step(self, step: int, metrics: Mapping[str, float]) -> None:  # noqa: ARG002 - signature of a hook
        """Stop where the directory is gone.

        Raises
        ------
        RunDirectoryGoneError
            Before anything is written to where it was.
        """
        if is_gone(self._layout):
            raise directory_gone(self._layout)


def _note_last_good(error: BaseException, layout: RunLayout, step: int) -> None:
    """Say which checkpoint is whole, once; the files are read for that, so it is no guess."""
    if any(note.startswith(NOTE_KEPT) for note in getattr(error, "__notes__", ())):
        return
    if is_gone(layout):
        error.add_note(f"{NOTE_KEPT}nothing; the logs and checkpoints of all {step} steps went with the directory")
        return
    checkpoint = last_good(layout)
    if checkpoint is None:
        error.add_note(f"{NOTE_KEPT}no checkpoint was whole yet; a resume starts at step 0 in {layout.directory.name}")
        return
    saved = step_of(checkpoint) or 0
    steps = "1 step after it is" if step - saved == 1 else f"{step - saved} steps after it are"
    lost = f"; the {steps} lost" if step > saved else ""
    error.add_note(f"{NOTE_KEPT}the last good checkpoint is step {saved} ({checkpoint.name}, verified){lost}")


def _place(error: BaseException, layout: RunLayout) -> str:
    """Name what could not be written, relative to where the runs lie, as far as the error says."""
    name = getattr(error, "filename", None)
    if not isinstance(name, str | bytes):
        return f"a file of {layout.directory.name}"
    path = Path(name.decode("utf-8", "replace") if isinstance(name, bytes) else name)
    return str(path.relative_to(layout.directory.parent)) if path.is_relative_to(layout.directory.parent) else str(path)


def _first_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__

"""A running training: signals, failures and the final status."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import FrameType

from codex_ml.config.schema.root import RunConfig
from codex_ml.errors import (
    NOTE_ALSO,
    NOTE_KEPT,
    STOP_EXIT_CODES,
    CodexError,
    DiskSpaceError,
    InterruptedRun,
    MemoryShortageError,
    RunDirectoryError,
    RunDirectoryGoneError,
    is_out_of_memory,
    no_room,
    release_exception_frames,
)
from codex_ml.io.atomic import Storage
from codex_ml.io.clock import utc_now
from codex_ml.io.stopping import STOP, StopRequest
from codex_ml.monitoring.debug_log import FILE_NAME as DEBUG_LOG
from codex_ml.monitoring.debug_log import debug_log
from codex_ml.recipes.train.resume import ResumePoint
from codex_ml.runs.checkpoints import (
    newest_whole,
    remove_partial,
    remove_staged,
    restore_instructions,
    set_aside_newer,
    step_of,
)
from codex_ml.runs.layout import RunLayout, RunRecord, close_record, create_run, format_stamp, write_record
from codex_ml.runs.lock import hold_lock
from codex_ml.runs.run_manifest import remove_run_manifest, write_run_manifest
from codex_ml.safety.filters import SafetyFilters
from codex_ml.tracking.context import ExperimentContext, end_status
from codex_ml.tracking.opening import TrackingDependencies, open_experiment
from codex_ml.tracking.sinks import RunInfo


@contextmanager
def listen_for_stop(request: StopRequest = STOP) -> Iterator[StopRequest]:
    """Handle the signals for the length of a ``with`` block, and restore the handlers that were there before.

    A signal that the process was started to ignore (a job of a shell's ``&``, ``nohup``) stays ignored. The block ends
    what was asked for, so the request is forgotten after it.

    Parameters
    ----------
    request : StopRequest
        Where the handlers record a signal.

    Raises
    ------
    StopSignal
        On entry, if a signal came before and its exception was lost. In the block, at the second signal: the user does
        not want to wait for the end of the step. A second SIGHUP does not count: a session that closes sends it twice,
        once by the shell and once by the system.
    """

    def receive(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signature of a signal handler
        if request.signal is None:
            request.record(number)
        elif number != signal.SIGHUP:
            request.leave(number)

    heard = [number for number in STOP_EXIT_CODES if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, receive) for number in heard}
    try:
        request.check()
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        request.forget()


_RESUME = "then go on with the same command and --resume-from latest"


@contextmanager
def translate_run_errors(
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
        release_exception_frames(error)
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
def suppress_secondary_error(first: BaseException, what: str) -> Iterator[None]:
    """Keep an error of the ``with`` block from hiding the one that the run is dying of; it becomes a note on that.

    Parameters
    ----------
    first : BaseException
        What the run is dying of.
    what : str
        What the block tries to write, for the note.
    """
    if is_out_of_memory(first):
        release_exception_frames(first)
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


@dataclass(frozen=True)
class Session:
    """The open run."""

    layout: RunLayout
    record: RunRecord
    context: ExperimentContext


@dataclass(frozen=True)
class SessionDependencies:
    """What a session uses of the outside world: files, the user's screen, the time, and the trackers."""

    storage: Storage
    emit: Callable[[str], None]
    clock: Callable[[], datetime] = utc_now
    tracking: TrackingDependencies = field(default_factory=TrackingDependencies)


@contextmanager
def open_session(
    config: RunConfig,
    filters: SafetyFilters,
    resume: ResumePoint,
    tracker_run_ids: Mapping[str, str],
    dependencies: SessionDependencies,
) -> Iterator[Session]:
    """Open the run that a config starts or goes on with, for the length of a ``with`` block.

    The run ends FINISHED, or KILLED or FAILED by the exception that leaves the block.
    """
    storage, clock = dependencies.storage, dependencies.clock

    def warn(text: str) -> None:
        # What is wrong with a checkpoint or a tracker is said in the words of others.
        dependencies.emit(f"warning: {filters.redact(text)}")

    output_dir = config.run.output_dir
    assert output_dir is not None, "composing a config fills run.output_dir in"
    reopened = resume.layout is not None and resume.record is not None
    if resume.layout is not None and resume.record is not None:
        layout, record = resume.layout, resume.record
    else:
        layout, record = create_run(output_dir, config.run.name, clock(), storage)
    with hold_lock(layout.lock):
        # It was true of the run as it ended; a run that goes on gets another at its next end.
        remove_run_manifest(layout, storage)
        previous_status = record.status
        record = replace(record, status="RUNNING", ended=None, found_dead=None, last_sign_of_life=None)
        write_record(layout, record, storage)
        leftovers = remove_staged(layout.checkpoints, storage) + remove_partial(layout.directory, storage)
        set_aside = _set_aside(layout, resume, clock(), storage)
        info = RunInfo(
            run_id=record.run_id,
            name=record.name,
            directory_name=layout.directory.name,
            experiment=config.tracking.experiment,
            resumed=reopened,
            resumed_step=step_of(resume.checkpoint) if resume.checkpoint is not None else None,
            tracker_run_ids=tracker_run_ids,
        )
        try:
            with (
                # Closed before the run is: what it says of the end stands in it.
                debug_log(
                    layout.directory / DEBUG_LOG, config.logging.max_bytes, config.logging.backup_count, filters.redact
                ),
                open_experiment(
                    info,
                    layout.directory,
                    config.tracking.sinks,
                    redact=filters.redact_value,
                    on_warning=warn,
                    max_bytes=config.logging.max_bytes,
                    dependencies=dependencies.tracking,
                    storage=storage,
                ) as context,
            ):
                if reopened:
                    context.log_event("run_resumed", previous_status=previous_status, removed_unfinished=leftovers)
                # The reason first, then what it led to.
                for item in resume.passed_over:
                    context.log_event("checkpoint_passed_over", checkpoint=item.directory.name, reason=item.reason)
                    warn(f"passed over {item.directory.name}: {item.reason}")
                if set_aside:
                    back = restore_instructions(layout.checkpoints / set_aside[-1])
                    context.log_event("checkpoints_set_aside", checkpoints=set_aside, restore_instructions=back)
                    named = f"checkpoints/{', '.join(set_aside)}"
                    warn(f"later checkpoints were set aside, not deleted: {named}; to go on from one: {back}")
                yield Session(layout, record, context)
        except BaseException as error:
            with suppress_secondary_error(error, "run.json"):
                record = close_record(layout, record, end_status(error), clock(), storage)
                write_run_manifest(layout, record, storage)
            raise
        record = close_record(layout, record, "FINISHED", clock(), storage)
        write_run_manifest(layout, record, storage)


def _set_aside(layout: RunLayout, resume: ResumePoint, now: datetime, storage: Storage) -> list[str]:
    """Move checkpoints later than the one that the run goes on from out of the way, damaged ones included."""
    step = step_of(resume.checkpoint) if resume.checkpoint is not None else None
    return [] if step is None else set_aside_newer(layout.checkpoints, step, format_stamp(now), storage)

"""The border between the toolkit and the shell: offline first, errors as one filtered block, documented exit codes."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any, ParamSpec, TextIO

import typer

from codex_ml.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_RUN_FAILED,
    NOTE_ALSO,
    NOTE_KEPT,
    STOP_EXIT_CODES,
    CodexError,
    StopSignal,
    is_out_of_memory,
    is_panic,
    no_room,
    release_exception_frames,
)
from codex_ml.io.stopping import STOP, StopRequest
from codex_ml.io.terminal import drop_output, finish_output, visible, visible_json, write_message, write_result
from codex_ml.offline import GUARD, PRIVATE_UMASK, go_offline

Arguments = ParamSpec("Arguments")
_LESS_FOR_A_MODEL = (
    "lower training.micro_batch_size (and raise training.gradient_accumulation_steps), lower data.max_length_tokens, "
    "or use model.dtype=bfloat16"
)
_LESS_FOR_FILES = (
    "stop other programs, or raise the limit (ulimit -v); if the files are untrusted, check whether "
    "they are what they should be"
)
# Threads that wait by spinning starve each other as soon as anything else runs on the machine: a tiny model then
# computes many times slower. Waiting asleep changes no result. A user's own choice is kept.
_QUIET_DEFAULTS = {
    "OMP_WAIT_POLICY": "PASSIVE",
    # Progress bars and advice of the libraries; what concerns the user we say ourselves.
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
}


@functools.lru_cache(maxsize=1)
def _default_filters() -> Callable[[str], str]:
    # Only when there is something to show: reading the policy has no place in `--help`.
    from codex_ml.safety.filters import SafetyFilters
    from codex_ml.safety.policy import load_policy

    return SafetyFilters(load_policy("default")).redact


def run_command(body: Callable[[], int], *, has_model: bool = True) -> None:
    """Run the body of a command and leave with its exit code; no traceback unless ``CODEX_ML_DEBUG=1``.

    What is shown of an error, a traceback or a warning has passed the default safety policy: an exception carries
    whatever the code that raised it had in hand.

    Parameters
    ----------
    body : callable
        Does the work and returns the exit code.
    has_model : bool
        It computes with a model, so that smaller batches help where memory runs out.

    Raises
    ------
    typer.Exit
        Always, carrying the exit code.
    """
    os.umask(PRIVATE_UMASK)
    for name, value in _QUIET_DEFAULTS.items():
        os.environ.setdefault(name, value)
    # What one library deprecates in another is no business of the user of either.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|accelerate)\.")
    warnings.showwarning = show_warning
    sys.unraisablehook = _pass_over_stop
    handlers_before = _leave_when_asked(_leave_at_once)
    try:
        go_offline()
        GUARD.activate()
        code = body()
    except BrokenPipeError:
        # The reader of our output is gone: there is nobody to print to.
        drop_output(sys.stdout)
        code = EXIT_RUN_FAILED
    except BaseException as raised:
        # The last border: all that is left becomes one block; SystemExit is not ours.
        if not (isinstance(raised, Exception | KeyboardInterrupt) or is_panic(raised)):
            raise
        # It leaves anyway; one more signal would only put a traceback in place of the reason.
        _leave_when_asked(signal.SIG_IGN)
        error = _what_ended_it(raised, STOP)
        if os.environ.get("CODEX_ML_DEBUG") == "1":
            write_message(fit_to_show("".join(traceback.format_exception(error))))
        block, code = error_block(error, has_model=has_model)
        # The filters of the text need some memory, too.
        release_exception_frames(error)
        # An interruption of ours has nothing to hide, and the filters may be what it has interrupted half imported.
        shown = block if isinstance(error, StopSignal) and "\n" not in block else fit_to_show(block)
        # A terminal that hung up takes no line; the exit code still says how it ended.
        write_message(shown)
    finally:
        for number, handler in handlers_before.items():
            signal.signal(number, handler)
        STOP.forget()
    raise typer.Exit(finish_output(code))


def _what_ended_it(error: BaseException, request: StopRequest) -> BaseException:
    """Return the error to show: the stop that was asked for, where a library made something else of it.

    An import that a signal interrupts can leave half a module behind, over which transformers then raises errors of its
    own. What we found wrong ourselves is said in any case.
    """
    if request.signal is None or isinstance(error, CodexError | StopSignal):
        return error
    stopped = StopSignal(request.signal)
    stopped.__cause__ = error
    return stopped


def leave_before_anything_begins() -> None:
    """Let SIGINT, SIGTERM and SIGHUP end the process with one line while it still reads its command line."""
    _leave_when_asked(_leave_without_unwinding)


def _leave_without_unwinding(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler
    # Typer would turn an exception into a silent exit. Nothing has begun, so there is nothing to unwind.
    name = signal.Signals(number).name
    with contextlib.suppress(OSError):
        os.write(sys.stderr.fileno(), f"error: stopped by {name}; no work had started\n".encode())
    os._exit(STOP_EXIT_CODES[signal.Signals(number)])


def _leave_when_asked(
    handler: Callable[[int, FrameType | None], None] | signal.Handlers,
) -> dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None]:
    """Say what the signals that ask to stop do from now on, and return what they did before.

    A signal that the process was started to ignore stays ignored, and is not among those returned.
    """
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set handlers; a caller in another thread has its own.
        return {}
    heard = [number for number in STOP_EXIT_CODES if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heard}


def _leave_at_once(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signature of a signal handler
    """Leave a command that has nothing to finish first, such as one that still reads data; training asks for more.

    Where the exception is lost (a library catches everything around an import), the next stage checks the record.
    """
    STOP.record(number)
    STOP.leave(number)


def print_results(lines: Iterable[str], *, is_visible: bool = False) -> None:
    """Print results on standard output; a reader that went away (`| head`) does not make finished work a failure.

    Parameters
    ----------
    lines : iterable of str
        The results.
    is_visible : bool
        The lines have passed `visible`, and hold colours of ours.

    Raises
    ------
    OutputError
        If standard output takes no more, as on a full disk.
    """
    try:
        for line in lines:
            write_result(line, is_visible=is_visible)
    except BrokenPipeError:
        # Else the interpreter would complain once more when it closes the stream.
        drop_output(sys.stdout)


def print_json(value: Any) -> None:
    """Print a result as JSON, as `print_results` prints lines."""
    print_results([visible_json(value)], is_visible=True)


def print_piece(text: str) -> None:
    """Print a piece of a text on standard output at once, as `print_results` prints a whole line."""
    write_result(text, end="")


def _pass_over_stop(lost: sys.UnraisableHookArgs) -> None:
    """Print an exception that Python cannot raise, unless it is our stop: that is recorded, and ends the command."""
    if not isinstance(lost.exc_value, StopSignal):
        sys.__unraisablehook__(lost)


def guarded(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Return a command whose errors are reported as `run_command` does, with the same options."""

    @functools.wraps(command)
    def inside(*arguments: Arguments.args, **options: Arguments.kwargs) -> None:
        def body() -> int:
            try:
                command(*arguments, **options)
                sys.stdout.flush()
            except BrokenPipeError:
                # These commands only show something; a reader that has seen enough (`| head`) is no failure.
                drop_output(sys.stdout)
            return EXIT_DONE

        run_command(body, has_model=False)

    return inside


def fit_to_show(text: str, filters: Callable[[], Callable[[str], str]] = _default_filters) -> str:
    """Return a text as the default policy lets it be shown; where the filters themselves fail, nothing of it.

    Characters that would move the cursor, colour or hide something are written out: names in an untrusted file
    are shown too.
    """
    try:
        return visible(filters()(text))
    except Exception as error:  # noqa: BLE001 - fails closed: whatever is wrong with the filters, the text does not pass
        return (
            f"error: the command failed; what it has to say is withheld\n"
            f"  why: the safety filters that all text passes cannot be used ({type(error).__name__})\n"
            "  fix: install codex-ml again; safety/policies/default.yaml in its configs is missing or damaged"
        )


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,  # noqa: ARG001 - signature of `warnings.showwarning`
) -> None:
    """Print a warning of a library as one filtered line; replaces `warnings.showwarning`."""
    place = f"{Path(filename).name}:{lineno}"
    write_message(fit_to_show(f"warning: {message} ({category.__name__}, {place})"), stream=file)


def error_block(error: BaseException, *, has_model: bool = True) -> tuple[str, int]:
    """Return the text of an error, and its exit code.

    The notes of the error follow the block: what was kept, and what else went wrong.
    """
    block, code = _block_of(error, has_model)
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith((NOTE_KEPT, NOTE_ALSO))]
    return "\n  ".join([block, *notes]), code


def _block_of(error: BaseException, has_model: bool) -> tuple[str, int]:
    if isinstance(error, CodexError):
        return error.block(), error.exit_code
    if isinstance(error, StopSignal):
        return f"error: stopped by {error.signal.name}; {_what_is_left(has_model)}", error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return f"error: interrupted; {_what_is_left(has_model)}", EXIT_INTERRUPTED
    if isinstance(error, OSError) or no_room(error) is not None:
        return _system_error(error), EXIT_RUN_FAILED
    if is_out_of_memory(error):
        fix = _LESS_FOR_A_MODEL if has_model else _LESS_FOR_FILES
        block = f"error: out of memory\n  why: {_first_line(error)}\n  fix: {fix}\n  code: MEMORY_EXHAUSTED"
        return block, EXIT_RUN_FAILED
    if is_panic(error):
        return (
            "error: a native library failed (Rust panic)\n"
            "  why: it was given something that it cannot handle, such as a damaged tokenizer.json\n"
            "  fix: copy the files of the model again from their source\n"
            "  code: MODEL_NATIVE_PANIC",
            EXIT_RUN_FAILED,
        )
    return (
        f"error: internal error: {type(error).__name__}\n  why: {_first_line(error)}\n"
        "  fix: this is a bug in codex-ml; run again with CODEX_ML_DEBUG=1 and report the traceback\n"
        "  code: INTERNAL_ERROR",
        EXIT_RUN_FAILED,
    )


def _what_is_left(has_model: bool) -> str:
    return "checkpoints that were written are whole" if has_model else "nothing half-written is left"


def _system_error(error: BaseException) -> str:
    filename = getattr(error, "filename", None)
    place = f" ({filename})" if filename else ""
    why = getattr(error, "strerror", None) or _first_line(error)
    limit = no_room(error)
    if limit is not None:
        # A run that can be resumed says so itself, see `codex_ml.recipes.train.session`.
        what, fix, code = limit.problem, f"{limit.fix}, and run the command again", "DISK_LIMIT"
    else:
        what, fix, code = "the system refused", "check the path and its permissions", "FILE_SYSTEM_REFUSED"
    return f"error: {what}{place}\n  why: {why}\n  fix: {fix}\n  code: {code}"


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else "no message"

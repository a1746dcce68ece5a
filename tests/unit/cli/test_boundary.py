"""Exceptions become one block and the documented exit code."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
import typer

from codex_ml.cli.boundary import error_block, fit_to_show, guarded, run_command, show_warning
from codex_ml.errors import ConfigError, ConfigProblem, DataError, InterruptedRun, NonFiniteError


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            ConfigError(
                [
                    ConfigProblem("a.b", "is wrong", "do this", code="TEST_ERROR"),
                    ConfigProblem("c", "too", code="TEST_ERROR"),
                ]
            ),
            2,
            ["a.b", "c", "do this"],
        ),
        (DataError("f.jsonl:7", why="cut", fix="mend", code="TEST_ERROR"), 2, ["f.jsonl:7", "cut", "mend"]),
        (NonFiniteError("step 3", code="TEST_ERROR"), 1, ["step 3"]),
        (InterruptedRun("stopped", 143, code="TEST_ERROR"), 143, ["stopped"]),
        (KeyboardInterrupt(), 130, ["interrupted"]),
        (MemoryError(), 1, ["out of memory", "micro_batch_size"]),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 1, ["disk is full (x)", "free space, and run"]),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded", "x"),
            1,
            ["quota of this user is used up (x)", "raise the quota"],
        ),
        (OSError(errno.EFBIG, "File too large", "x"), 1, ["file-size limit of this process (x)", "ulimit -f"]),
        (PermissionError(errno.EACCES, "Permission denied", "y"), 1, ["Permission denied", "y"]),
        (ZeroDivisionError("oops"), 1, ["internal error", "ZeroDivisionError", "CODEX_ML_DEBUG"]),
    ],
)
def test_error_block_exception_gives_code_and_words(error, code, words):
    """Each kind of error has its exit code and says what to do."""
    block, given = error_block(error)
    assert given == code
    assert block.startswith("error:") or code in (130, 143)
    for word in words:
        assert word in block
    # Only a run with a checkpoint can be resumed, and its own error gives that advice.
    assert "--resume-from" not in block


def test_error_block_out_of_memory_without_a_model_gives_no_advice_on_training():
    """Who lists or verifies runs trains nothing: a smaller batch would not help."""
    block, code = error_block(MemoryError(), has_model=False)
    assert code == 1
    assert "out of memory" in block
    assert "training." not in block
    assert "ulimit" in block


def test_guarded_command_out_of_memory_gives_no_advice_on_training(capsys):
    """Commands that only show something are guarded."""

    def listing() -> None:
        raise MemoryError

    with pytest.raises(typer.Exit):
        guarded(listing)()
    assert "ulimit" in capsys.readouterr().err


# Made here, so that it stands in no file of the repository.
SECRET = "gh" + "p_" + "a1B2" * 9

INTERNAL_ERROR = """
import sys, warnings, typer
from codex_ml.cli.boundary import run_command
secret = "gh" + "p_" + "a1B2" * 9
def body():
    warnings.warn("beware of " + secret)
    assert not {"codex_ml.safety.filters"} - set(sys.modules), "a warning was shown without the filters"
    raise ValueError(secret + " was refused") from KeyError(secret)
try:
    run_command(body)
except typer.Exit as end:
    assert "torch" not in sys.modules
    sys.exit(end.exit_code)
"""


def test_fit_to_show_text_with_secret_is_redacted() -> None:
    """What the default policy knows is marked; the rest of the text stays as it is."""
    assert fit_to_show(f"error: {SECRET} is no value\n  fix: another") == (
        "error: [REDACTED:github_token] is no value\n  fix: another"
    )


def _broken() -> Callable[[str], str]:
    raise ValueError(SECRET)


def _failing() -> Callable[[str], str]:
    def redact(text: str) -> str:
        raise RuntimeError(text)

    return redact


@pytest.mark.parametrize("filters", [_broken, _failing])
def test_fit_to_show_filters_fail_shows_nothing_of_the_text(filters: Callable[[], Callable[[str], str]]) -> None:
    """Fail closed: neither the text nor the text of the fault is shown, but what to do is."""
    shown = fit_to_show(f"error: {SECRET}", filters)
    assert SECRET not in shown
    assert "withheld" in shown
    assert "fix:" in shown


def test_show_warning_text_with_secret_is_one_redacted_line() -> None:
    """A warning names its kind and place, without the directories of the machine."""
    stream = io.StringIO()
    show_warning(UserWarning(f"odd {SECRET}"), UserWarning, "/some/where/module.py", 7, stream)
    assert stream.getvalue() == "warning: odd [REDACTED:github_token] (UserWarning, module.py:7)\n"


@pytest.mark.parametrize("debug", ["0", "1"])
def test_run_command_internal_error_and_warning_hold_no_secret(debug: str) -> None:
    """The block, the traceback with its causes and the warning of a library pass the filters, without torch."""
    done = subprocess.run(
        [sys.executable, "-c", INTERNAL_ERROR],
        env={**os.environ, "CODEX_ML_DEBUG": debug},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert "warning: beware of [REDACTED:github_token]" in done.stderr
    assert "error: internal error: ValueError" in done.stderr
    assert ("Traceback" in done.stderr) == (debug == "1")
    assert done.stderr.count("[REDACTED:github_token]") == (2 if debug == "0" else 4)


def test_run_command_stop_that_a_library_makes_an_error_of_is_a_stop(capsys):
    """An interrupted import can end as another error; what we found wrong ourselves is still said."""

    def swallowing(error: Exception) -> Callable[[], int]:
        def body() -> int:
            with contextlib.suppress(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
                raise AssertionError("the signal was not delivered")
            raise error

        return body

    with pytest.raises(typer.Exit) as left:
        run_command(swallowing(ModuleNotFoundError("Could not import module 'X'")))
    assert left.value.exit_code == 143
    said = capsys.readouterr().err
    assert "SIGTERM" in said
    assert "internal error" not in said
    with pytest.raises(typer.Exit) as left:
        run_command(swallowing(DataError("f.jsonl:7", why="cut", fix="mend", code="TEST_ERROR")))
    assert left.value.exit_code == 2
    assert "f.jsonl:7" in capsys.readouterr().err
    with pytest.raises(typer.Exit) as left:
        run_command(lambda: 1 // 0)
    assert "internal error" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("has_model", "left_behind"),
    [(True, "checkpoints that were written are whole"), (False, "nothing half-written is left")],
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_run_command_signal_outside_of_training_leaves_with_one_line(
    capsys, number, code, has_model, left_behind
) -> None:
    """A command that has nothing to finish leaves at once; afterwards the signals do what they did before."""
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]

    def body() -> int:
        os.kill(os.getpid(), number)
        return 0

    with pytest.raises(typer.Exit) as left:
        run_command(body, has_model=has_model)
    assert left.value.exit_code == code
    assert capsys.readouterr().err == f"error: stopped by {number.name}; {left_behind}\n"
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_error_block_notes_that_are_ours_stand_below_the_block() -> None:
    """What is still good and what went wrong besides are shown, the notes of others are not."""
    error = NonFiniteError("step 3", fix="lower it", code="TEST_ERROR")
    for note in ("kept: step 2", "somebody else's", "also: run.json"):
        error.add_note(note)
    assert error_block(error) == (
        "error: step 3\n  fix: lower it\n  code: TEST_ERROR\n  kept: step 2\n  also: run.json",
        1,
    )


def test_error_block_disk_full_in_the_words_of_a_library_is_no_fault_of_ours() -> None:
    """Libraries in Rust raise errors of their own, with the number of the system's."""
    block, code = error_block(Exception("I/O error: No space left on device (os error 28)"))
    assert code == 1
    assert block.startswith("error: the disk is full\n  why: I/O error")


def test_run_command_terminal_that_is_gone_leaves_the_exit_code(tmp_path):
    """What could not be written any more does not put the interpreter's own exit code in place of ours."""
    program = (
        "import os, signal, sys\n"
        "import typer\n"
        "from codex_ml.cli.boundary import run_command\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "def body():\n"
        "    print('kept in the buffer', end='')\n"
        "    os.close(int(sys.argv[1]))\n"
        "    return 5\n"
        "try:\n    run_command(body)\n"
        "except typer.Exit as stop:\n    sys.exit(stop.exit_code)\n"
    )
    ours, theirs = os.openpty()
    # Buffered, as it is for a user.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(ours)], stdout=theirs, pass_fds=[ours], cwd=tmp_path, env=environment
    )
    os.close(ours)
    os.close(theirs)
    assert process.wait(timeout=180) == 5

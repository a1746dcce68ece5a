"""The border between the toolkit and the shell: offline first, errors as one block, exit codes as documented."""

from __future__ import annotations

import errno
import functools
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import ParamSpec

import typer

from codex_ml.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_RUN_FAILED, CodexError
from codex_ml.offline import GUARD, go_offline

Arguments = ParamSpec("Arguments")
_PRIVATE_UMASK = 0o077
# Threads that wait by spinning starve each other as soon as anything else runs on the machine: a tiny model then
# computes many times slower. Waiting asleep changes no result. A user's own choice is kept.
_QUIET_DEFAULTS = {
    "OMP_WAIT_POLICY": "PASSIVE",
    # Progress bars and advice of the libraries; what concerns the user we say ourselves.
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
}


def run_command(body: Callable[[], int]) -> None:
    """Run the body of a command and leave with its exit code; no traceback unless ``CODEX_ML_DEBUG=1``.

    Raises
    ------
    typer.Exit
        Always, carrying the exit code.
    """
    os.umask(_PRIVATE_UMASK)
    for name, value in _QUIET_DEFAULTS.items():
        os.environ.setdefault(name, value)
    # What one library deprecates in another is no business of the user of either.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|accelerate)\.")
    try:
        # Before any command imports a library that would read its switches; a command whose config says
        # `offline: false` lifts the guard later, never the switches.
        go_offline()
        GUARD.activate()
        code = body()
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_RUN_FAILED
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last border: all that is left becomes one block
        if os.environ.get("CODEX_ML_DEBUG") == "1":
            traceback.print_exception(error)
        block, code = error_block(error)
        typer.echo(block, err=True)
    raise typer.Exit(code)


def guarded(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Return a command whose errors are reported as `run_command` does, with the same options."""

    @functools.wraps(command)
    def inside(*arguments: Arguments.args, **options: Arguments.kwargs) -> None:
        def body() -> int:
            command(*arguments, **options)
            return EXIT_DONE

        run_command(body)

    return inside


def error_block(error: Exception | KeyboardInterrupt) -> tuple[str, int]:
    """Return what is shown of an error, and the exit code it stands for."""
    if isinstance(error, CodexError):
        return error.block(), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "error: interrupted; the last checkpoint is untouched", EXIT_INTERRUPTED
    if isinstance(error, OSError):
        return _system_error(error), EXIT_RUN_FAILED
    # torch's own errors are told by their names: this module must stay free of torch.
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "not enough memory" in str(error)
    ):
        return (
            "error: out of memory\n"
            "  fix: lower training.micro_batch_size (and raise training.gradient_accumulation_steps), lower "
            "data.max_length_tokens, or use model.dtype=bfloat16",
            EXIT_RUN_FAILED,
        )
    return (
        f"error: internal error: {type(error).__name__}\n  why: {_first_line(error)}\n"
        "  fix: this is a fault of codex-ml; run again with CODEX_ML_DEBUG=1 and report the traceback",
        EXIT_RUN_FAILED,
    )


def _system_error(error: OSError) -> str:
    place = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"error: the disk is full{place}\n  why: {error.strerror}\n"
            "  fix: free space and resume with --resume-from latest; the last good checkpoint is untouched"
        )
    return (
        f"error: the system refused{place}\n  why: {error.strerror or error}\n  fix: check the path and its permissions"
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else "no message"

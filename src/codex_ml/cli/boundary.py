"""The border between the toolkit and the shell: offline first, errors as one block, exit codes as documented."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable

import typer

from codex_ml.errors import EXIT_INTERRUPTED, EXIT_RUN_FAILED, CodexError
from codex_ml.offline import GUARD, go_offline

_PRIVATE_UMASK = 0o077


def run_command(body: Callable[[], int]) -> None:
    """Run the body of a command and leave with its exit code; no traceback unless ``CODEX_ML_DEBUG=1``.

    Raises
    ------
    typer.Exit
        Always, carrying the exit code.
    """
    os.umask(_PRIVATE_UMASK)
    try:
        # Before any command imports a library that would read its switches; a command whose config says
        # `offline: false` lifts the guard later, never the switches.
        go_offline()
        GUARD.activate()
        code = body()
    except CodexError as error:
        code = _report(error, error.block(), error.exit_code)
    except KeyboardInterrupt as error:
        code = _report(error, "interrupted", EXIT_INTERRUPTED)
    except MemoryError as error:
        code = _report(error, _out_of_memory("the machine"), EXIT_RUN_FAILED)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_RUN_FAILED
    except OSError as error:
        code = _report(error, _system_error(error), EXIT_RUN_FAILED)
    except Exception as error:  # noqa: BLE001 - the last border: whatever is left becomes one block and exit code 1
        code = _report(error, _unexpected(error), EXIT_RUN_FAILED)
    raise typer.Exit(code)


def _report(error: BaseException, block: str, code: int) -> int:
    if os.environ.get("CODEX_ML_DEBUG") == "1":
        traceback.print_exception(error)
    print(block, file=sys.stderr, flush=True)  # noqa: T201 - the one place where errors are shown
    return code


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


def _out_of_memory(where: str) -> str:
    return (
        f"error: {where} is out of memory\n"
        "  fix: lower training.micro_batch_size (and raise training.gradient_accumulation_steps), lower "
        "data.max_length_tokens, or use model.dtype=bfloat16"
    )


def _unexpected(error: Exception) -> str:
    name = type(error).__name__
    if name == "OutOfMemoryError" or "not enough memory" in str(error):
        # torch's own errors, named rather than imported: this module must stay free of torch.
        return _out_of_memory("the device")
    return (
        f"error: internal error: {name}\n  why: {str(error).splitlines()[0] if str(error) else 'no message'}\n"
        "  fix: this is a fault of codex-ml; run again with CODEX_ML_DEBUG=1 and report the traceback"
    )

"""The one error family: what went wrong, why, what to do, and the exit code the command line returns for it."""

from __future__ import annotations

import errno
import gc
import signal
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

EXIT_DONE = 0
EXIT_RUN_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_HUNG_UP = 129
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
STOP_EXIT_CODES = {
    signal.SIGINT: EXIT_INTERRUPTED,
    signal.SIGTERM: EXIT_TERMINATED,
    signal.SIGHUP: EXIT_HUNG_UP,
}
# What the notes of an exception (PEP 678) begin with that the command line shows below its block: what is still good,
# and what went wrong besides, while the run was ending.
NOTE_KEPT, NOTE_ALSO = "kept: ", "also: "
# How allocators that are not Python's say that they failed; torch is told by its words, not imported.
_NO_MEMORY_TEXTS = (
    "DefaultCPUAllocator",
    "not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


class CodexError(Exception):
    """A problem that the toolkit understands and can explain.

    Parameters
    ----------
    what : str
        What is wrong, led by where: a dotted config key, or ``file:line``.
    why : str
        The reason it cannot go on; empty where ``what`` says it all.
    fix : str
        What the user can do now.
    code : str
        Stable name of the kind of problem, such as ``CONFIG_UNKNOWN_KEY``; a literal at every place that raises.
    """

    exit_code = EXIT_RUN_FAILED

    def __init__(self, what: str, why: str = "", fix: str = "", *, code: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix
        self.code = code

    def block(self) -> str:
        """Return the error as the one block that the command line prints."""
        lines = [f"error: {self.what}"]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        lines.append(f"  code: {self.code}")
        return "\n".join(lines)


class UserError(CodexError):
    """The user can fix it: usage, configuration, data, a missing file, a failed verification (exit code 2)."""

    exit_code = EXIT_USER_ERROR


@dataclass(frozen=True)
class ConfigProblem:
    """One problem of a configuration: its dotted key, what is wrong, how to fix it, and its stable code."""

    key: str
    what: str
    fix: str = ""
    code: str = ""


class ConfigError(UserError):
    """A configuration that cannot be used; carries every problem found, not only the first."""

    def __init__(self, problems: Sequence[ConfigProblem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        super().__init__(f"the configuration has {count} problem{'s' if count != 1 else ''}", code="CONFIG_INVALID")

    def block(self) -> str:
        """Return every problem, one under the other."""
        lines = [f"error: {self.what}"]
        for problem in self.problems:
            lines.append(f"  {problem.key}: {problem.what}")
            if problem.fix:
                lines.append(f"    fix: {problem.fix}")
            lines.append(f"    code: {problem.code}")
        return "\n".join(lines)


class DataError(UserError):
    """A data file, record or split that cannot be used as asked; ``what`` begins with ``file:line`` where known."""


class SafetyError(UserError):
    """A safety policy that cannot be loaded, a bypass without a reason, or content that the policy blocks."""


class ModelError(UserError):
    """A model, tokenizer, device or dtype that is absent or does not fit."""


class AdapterError(UserError):
    """An adapter that cannot be built or applied as asked."""


class CheckpointError(UserError):
    """A checkpoint that is absent, damaged, or belongs to another run."""


class DiskSpaceError(CodexError):
    """The disk is too small for what the run still has to write."""


class RunDirectoryError(CodexError):
    """The directory of a run at work can be read or written no more."""


class RunDirectoryGoneError(RunDirectoryError):
    """The directory of a run at work was removed or moved; nothing more can be written of the run."""


class MemoryShortageError(CodexError):
    """The memory of the machine or of the device was not enough for what the run asked for."""


class NonFiniteError(CodexError):
    """A loss or gradient norm is not finite; raised before the optimizer step that would have used it."""


class VanishedGradientError(CodexError):
    """The gradient is exactly zero although the loss is not: the weights have left the range the model computes in."""


class NetworkBlockedError(CodexError):
    """Something in this process tried to reach another machine while offline."""


class OutputError(CodexError):
    """Standard output takes no more, so the results of a command are lost.

    Parameters
    ----------
    reason : str
        The system's words for it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"standard output: the results cannot be written (got: {reason})",
            why="what was printed so far may be cut short",
            fix="send the output to a place with room, and run the command again",
        )


class StopSignal(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP that asks to leave at once; what was being written is whole or absent.

    Parameters
    ----------
    number : int
        The signal.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(self.signal.name)

    @property
    def exit_code(self) -> int:
        """Exit code that goes with the signal."""
        return STOP_EXIT_CODES[self.signal]


class InterruptedRun(CodexError):  # noqa: N818 - not a fault: the run did what it was asked
    """The run was asked to stop by a signal and did so after writing a checkpoint."""

    def __init__(self, what: str, exit_code: int) -> None:
        super().__init__(what)
        self.exit_code = exit_code


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an allocation failed: Python's, torch's on the CPU, or a device's; told by name, without torch."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY_TEXTS)


def is_panic(error: BaseException) -> bool:
    """Tell whether a library written in Rust panicked: pyo3 raises a ``PanicException``, which is no `Exception`.

    Each library has a class of its own, so it is told by its name (https://pyo3.rs, ``pyo3::panic``).
    """
    return type(error).__name__ == "PanicException" and type(error).__module__ == "pyo3_runtime"


@dataclass(frozen=True)
class NoRoom:
    """Why a file could not grow, and what helps.

    Attributes
    ----------
    problem : str
        What had no room, as a sentence.
    fix : str
        What the user can do, as a command without a full stop.
    """

    problem: str
    fix: str


_NO_ROOM = {
    errno.ENOSPC: NoRoom("the disk is full", "free space"),
    errno.EDQUOT: NoRoom("the disk quota of this user is used up", "free space or raise the quota"),
    errno.EFBIG: NoRoom("a file reached the file-size limit of this process", "raise the limit (ulimit -f)"),
}


def no_room(error: BaseException) -> NoRoom | None:
    """Return which limit a write ran into: the disk, the quota, or the limit on file sizes; None for other errors.

    Libraries written in Rust (safetensors, tokenizers) name the number of the system's error in their own exceptions.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return _NO_ROOM.get(error.errno)
    return next((limit for number, limit in _NO_ROOM.items() if f"(os error {number})" in str(error)), None)


def release_exception_frames(error: BaseException | None) -> None:
    """Free what the frames of an error and of its causes hold: whoever runs out of memory needs some to end in order.

    Frames that are still at work keep what they have, and the traceback can still be shown.
    """
    seen: set[int] = set()
    # An error can be among its own causes (`raise error from error`): each is visited once.
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()

"""The one error family: what went wrong, why, what to do, and the exit code the command line returns for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

EXIT_DONE = 0
EXIT_RUN_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


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
    """

    exit_code = EXIT_RUN_FAILED

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix

    def block(self) -> str:
        """Return the error as the one block that the command line prints."""
        lines = [f"error: {self.what}"]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class UserError(CodexError):
    """The user can fix it: usage, configuration, data, a missing file, a failed verification (exit code 2)."""

    exit_code = EXIT_USER_ERROR


@dataclass(frozen=True)
class ConfigProblem:
    """One fault in a configuration: its dotted key, what is wrong with it, and what to write instead."""

    key: str
    what: str
    fix: str = ""


class ConfigError(UserError):
    """A configuration that cannot be used; carries every problem found, not only the first."""

    def __init__(self, problems: Sequence[ConfigProblem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        super().__init__(f"the configuration has {count} problem{'s' if count != 1 else ''}")

    def block(self) -> str:
        """Return every problem, one under the other."""
        lines = [f"error: {self.what}"]
        for problem in self.problems:
            lines.append(f"  {problem.key}: {problem.what}")
            if problem.fix:
                lines.append(f"    fix: {problem.fix}")
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


class NonFiniteError(CodexError):
    """A loss or gradient norm is not finite; raised before the optimizer step that would have used it."""


class VanishedGradientError(CodexError):
    """The gradient is exactly zero although the loss is not: the weights have left the range the model computes in."""


class NetworkBlockedError(CodexError):
    """Something in this process tried to reach another machine while offline."""


class InterruptedRun(CodexError):  # noqa: N818 - not a fault: the run did what it was asked
    """The run was asked to stop by a signal and did so after writing a checkpoint."""

    def __init__(self, what: str, exit_code: int) -> None:
        super().__init__(what)
        self.exit_code = exit_code

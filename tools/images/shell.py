"""Runs the commands of the image test: each with a limit, each with what it said when it fails."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")
LAST_CHARACTERS = 4000


class StepError(Exception):
    """Why the image test failed."""


@dataclass(frozen=True)
class Shell:
    """Where commands run.

    Attributes
    ----------
    root : Path
        The checkout, their working directory.
    environment : mapping
        Their environment, with the daemon that they speak to.
    """

    root: Path
    environment: Mapping[str, str]

    def run(self, *command: str, limit_seconds: float = 600) -> str:
        """Return what a command prints.

        Raises
        ------
        StepError
            If it fails or takes longer than the limit.
        """
        code, text = self.try_run(*command, limit_seconds=limit_seconds)
        if code != 0:
            raise StepError(f"{' '.join(command)} exits with {code}:\n{text[-LAST_CHARACTERS:]}")
        return text

    def try_run(self, *command: str, limit_seconds: float = 600) -> tuple[int, str]:
        """Return the exit code of a command and what it prints, on both streams.

        Raises
        ------
        StepError
            If it cannot be started or takes longer than the limit.
        """
        try:
            answer = subprocess.run(
                command,
                cwd=self.root,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
                timeout=limit_seconds,
            )
        except OSError as error:
            raise StepError(f"{command[0]} cannot be started: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise StepError(f"{' '.join(command)} takes longer than {limit_seconds:g} s") from error
        return answer.returncode, answer.stdout


def wait_for(
    what: str, ask: Callable[[], Found | None], limit_seconds: float, sleep: Callable[[float], None] = time.sleep
) -> Found:
    """Ask once a second until the answer is not None, and return it.

    Raises
    ------
    StepError
        If there is none in time.
    """
    deadline = time.monotonic() + limit_seconds
    while (found := ask()) is None:
        if time.monotonic() > deadline:
            raise StepError(f"{what}: not within {limit_seconds:g} s")
        sleep(1.0)
    return found

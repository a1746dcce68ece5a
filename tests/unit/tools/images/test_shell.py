"""Tests of the commands of the image test."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from images.shell import Shell, StepError, wait_for


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Return a shell in a directory of its own."""
    return Shell(tmp_path, dict(os.environ))


def test_run_command_that_works_returns_what_it_prints(shell: Shell, tmp_path: Path) -> None:
    """In the directory it was given, without standard input."""
    program = "import os, sys; print(os.getcwd(), repr(sys.stdin.read()))"
    assert shell.run(sys.executable, "-c", program).strip() == f"{tmp_path} ''"


def test_run_command_that_fails_says_code_and_words(shell: Shell) -> None:
    """Both streams are shown."""
    with pytest.raises(StepError, match=r"exits with 3:\nwhy"):
        shell.run(sys.executable, "-c", "import sys; print('why', file=sys.stderr); sys.exit(3)")


def test_run_command_without_end_is_given_up(shell: Shell) -> None:
    """Nothing waits for ever."""
    with pytest.raises(StepError, match="longer than"):
        shell.run(sys.executable, "-c", "import time; time.sleep(60)", limit_seconds=0.5)


def test_run_command_that_is_not_there_is_an_error(shell: Shell) -> None:
    """By its name."""
    with pytest.raises(StepError, match="no-such-program cannot be started"):
        shell.run("no-such-program")


def test_wait_for_asks_until_there_is_an_answer() -> None:
    """And gives up in time."""
    answers = iter([None, None, "healthy"])
    assert wait_for("x", lambda: next(answers), 60, lambda _: None) == "healthy"
    with pytest.raises(StepError, match="x: not within"):
        wait_for("x", lambda: None, 0, lambda _: None)

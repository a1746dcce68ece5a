"""The error family: exit codes and the one block that a user reads."""

from __future__ import annotations

import errno

import pytest
from safetensors import SafetensorError

from codex_ml import errors
from codex_ml.errors import CodexError, ConfigError, ConfigProblem, InterruptedRun, UserError, no_room


def test_block_all_parts_given_has_a_line_each() -> None:
    """What, why and fix stand under one another."""
    assert CodexError("data.jsonl:7: broken", why="no colon", fix="add it").block() == (
        "error: data.jsonl:7: broken\n  why: no colon\n  fix: add it"
    )


def test_block_only_what_has_one_line() -> None:
    """Empty parts leave no empty line behind."""
    assert CodexError("broken").block() == "error: broken"


def test_config_error_several_problems_shows_each_with_its_key() -> None:
    """All problems of a configuration are shown at once."""
    error = ConfigError([ConfigProblem("a.b", "is wrong", "write 1"), ConfigProblem("c", "is odd")])
    assert error.block() == ("error: the configuration has 2 problems\n  a.b: is wrong\n    fix: write 1\n  c: is odd")


def test_config_error_one_problem_is_singular() -> None:
    """One problem is not called problems."""
    assert str(ConfigError([ConfigProblem("a", "b")])) == "the configuration has 1 problem"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ConfigError", 2),
        ("DataError", 2),
        ("SafetyError", 2),
        ("ModelError", 2),
        ("AdapterError", 2),
        ("CheckpointError", 2),
        ("DiskSpaceError", 1),
        ("NonFiniteError", 1),
        ("NetworkBlockedError", 1),
    ],
)
def test_exit_code_each_error_is_that_of_the_design(name: str, code: int) -> None:
    """What the user can fix ends with 2, a failed run with 1."""
    kind = getattr(errors, name)
    assert kind.exit_code == code
    assert issubclass(kind, UserError) == (code == 2)


def test_interrupted_run_carries_the_code_of_its_signal() -> None:
    """Interrupt and termination end with different codes."""
    assert InterruptedRun("stopped", errors.EXIT_TERMINATED).exit_code == 143
    assert InterruptedRun("stopped", errors.EXIT_INTERRUPTED).exit_code == 130


def test_free_what_failed_error_that_is_its_own_cause_ends() -> None:
    """Each error of a ring of causes is visited once."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    errors.release_exception_frames(first)
    alone = ValueError("alone")
    alone.__cause__ = alone
    errors.release_exception_frames(alone)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (OSError(errno.ENOSPC, "x"), "the disk is full"),
        (OSError(errno.EDQUOT, "x"), "the disk quota of this user is used up"),
        (OSError(errno.EFBIG, "x"), "a file reached the file-size limit of this process"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (
            SafetensorError("I/O error: File too large (os error 27)"),
            "a file reached the file-size limit of this process",
        ),
        (OSError(errno.EACCES, "os error 28"), None),
        (SafetensorError("No such file or directory (os error 2)"), None),
        (SafetensorError("header too large"), None),
    ],
)
def test_no_room_names_the_limit_in_the_words_of_the_system_or_of_a_library(error: Exception, problem: str) -> None:
    """Each limit has its own fix; Rust libraries give the system error only as text."""
    limit = no_room(error)
    assert (limit.problem if limit is not None else None) == problem

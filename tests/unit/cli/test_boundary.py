"""Exceptions become one block and the documented exit code."""

from __future__ import annotations

import errno

import pytest

from codex_ml.cli.boundary import error_block
from codex_ml.errors import ConfigError, ConfigProblem, DataError, InterruptedRun, NonFiniteError


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            ConfigError([ConfigProblem("a.b", "is wrong", "do this"), ConfigProblem("c", "too")]),
            2,
            ["a.b", "c", "do this"],
        ),
        (DataError("f.jsonl:7", why="cut", fix="mend"), 2, ["f.jsonl:7", "cut", "mend"]),
        (NonFiniteError("step 3"), 1, ["step 3"]),
        (InterruptedRun("stopped", 143), 143, ["stopped"]),
        (KeyboardInterrupt(), 130, ["interrupted"]),
        (MemoryError(), 1, ["out of memory", "micro_batch_size"]),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 1, ["disk is full", "--resume-from"]),
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

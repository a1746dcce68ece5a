"""The debug log in a run directory: what was said, the traceback of what ended the run, bounded by its two options."""

from __future__ import annotations

import re

import pytest

from codex_ml.errors import CodexError

pytestmark = pytest.mark.slow


def test_debug_log_of_a_run_holds_what_was_said_and_is_bounded(train_here) -> None:
    """The introduction and each progress line stand in it, with times; old parts go, and the newest stays."""
    run = train_here("training.logging_steps=1")
    text = (run.directory / "debug.log").read_text("utf-8")
    assert "INFO codex_ml: device cpu" in text
    assert len(re.findall(r"Z INFO codex_ml: step \d+/4 \| loss", text)) == 4
    small = train_here("training.logging_steps=1", "logging.max_bytes=1024", "logging.backup_count=1", "run.name=small")
    parts = sorted(path.name for path in small.directory.glob("debug.log*"))
    assert parts == ["debug.log", "debug.log.1"]
    assert "step 4/4" in (small.directory / "debug.log").read_text("utf-8")
    assert small.weights() == run.weights()


def test_debug_log_of_a_run_that_fails_holds_the_traceback(train_here) -> None:
    """The screen shows one block; where it came from stands in the file."""
    with pytest.raises(CodexError):
        train_here("training.learning_rate=1e6")
    (run,) = (train_here.working_directory / "runs").glob("*-run")
    text = (run / "debug.log").read_text("utf-8")
    assert "Traceback (most recent call last)" in text
    assert "training/loop.py" in text

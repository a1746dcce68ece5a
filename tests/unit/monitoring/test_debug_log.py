"""The debug log: redacted, bounded, private, and never a reason for a run to fail."""

from __future__ import annotations

import io
import logging
import re
import sys
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from codex_ml.monitoring.debug_log import LOGGER, debug_log

SECRET = "hunter2"


def redact(text: str) -> str:
    """Stand in for the filters."""
    return text.replace(SECRET, "[REDACTED]")


def test_debug_log_entries_are_redacted_with_their_tracebacks(tmp_path: Path) -> None:
    """Message, arguments, exception text and chained exception pass the filters; the exception goes on."""
    file = tmp_path / "debug.log"

    def fail() -> None:
        with debug_log(file, 10_000, 1, redact):
            LOGGER.debug("value %s", SECRET)
            try:
                raise KeyError(SECRET)
            except KeyError as error:
                raise ValueError(f"about {SECRET}") from error

    with pytest.raises(ValueError, match=SECRET):
        fail()
    text = file.read_text("utf-8")
    assert SECRET not in text
    assert text.count("[REDACTED]") == 3
    assert "Traceback" in text
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z DEBUG codex_ml: value \[REDACTED\]\n", text)
    assert file.stat().st_mode & 0o777 == 0o600


def test_debug_log_failing_filter_withholds_the_entry(tmp_path: Path) -> None:
    """The log fails closed: of the text nothing is written, and nothing is raised or printed."""
    said = io.StringIO()

    def broken(text: str) -> str:
        raise RuntimeError(text)

    with redirect_stderr(said), debug_log(tmp_path / "debug.log", 10_000, 1, broken):
        LOGGER.warning(SECRET)
    assert (tmp_path / "debug.log").read_text("utf-8") == "(withheld: the filters failed with RuntimeError)\n"
    assert said.getvalue() == ""


def test_debug_log_size_is_bounded_and_the_newest_stays(tmp_path: Path) -> None:
    """Unlike NDJSON, old parts go: at most backup_count + 1 files, none beyond max_bytes, the last entry among them."""
    with debug_log(tmp_path / "debug.log", 2_000, 2, redact):
        for number in range(400):
            LOGGER.info("entry %d", number)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["debug.log", "debug.log.1", "debug.log.2"]
    assert all((tmp_path / name).stat().st_size <= 2_000 for name in files)
    assert all((tmp_path / name).stat().st_mode & 0o777 == 0o600 for name in files)
    assert "entry 399\n" in (tmp_path / "debug.log").read_text("utf-8")


def test_debug_log_library_warnings_are_taken_and_their_chatter_is_not(tmp_path: Path) -> None:
    """What libraries find worth a warning is in it; afterwards the handler is gone."""
    before = list(logging.getLogger().handlers)
    with debug_log(tmp_path / "debug.log", 10_000, 1, redact):
        logging.getLogger("somelibrary").warning("a %s warning", SECRET)
        logging.getLogger("somelibrary").info("chatter")
    LOGGER.warning("too late")
    text = (tmp_path / "debug.log").read_text("utf-8")
    assert text.endswith("WARNING somelibrary: a [REDACTED] warning\n")
    assert "chatter" not in text
    assert logging.getLogger().handlers == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_debug_log_full_disk_changes_nothing(tmp_path: Path) -> None:
    """An entry that cannot be written is lost without a word of it on the screen, and the block goes on."""
    (tmp_path / "debug.log").symlink_to("/dev/full")
    said = io.StringIO()
    reached = False
    with redirect_stderr(said), debug_log(tmp_path / "debug.log", 10_000, 1, redact):
        LOGGER.warning(SECRET)
        reached = True
    assert reached
    assert said.getvalue() == ""
    assert sys.exc_info() == (None, None, None)

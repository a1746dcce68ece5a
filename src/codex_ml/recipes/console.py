"""What a job tells the user while it works: lines on the error stream, where nothing reads results."""

from __future__ import annotations

import contextlib
import sys

from codex_ml.monitoring.debug_log import LOGGER


def say(text: str) -> None:
    """Print a line on the error stream, and into the debug log of a run at work.

    A reader that went away is no reason to end a run.
    """
    LOGGER.info(text)
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

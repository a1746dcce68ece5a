"""What a job tells the user while it works: lines on the error stream, where nothing reads results."""

from __future__ import annotations

from codex_ml.monitoring.debug_log import LOGGER
from codex_ml.terminal import write_message


def say(text: str) -> None:
    """Print a line on the error stream, and into the debug log of a run at work.

    A reader that went away, or a full disk behind the stream, is no reason to end a run.
    """
    LOGGER.info(text)
    write_message(text)

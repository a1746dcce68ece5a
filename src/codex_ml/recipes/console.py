"""What a job tells the user while it works: lines on the error stream, where nothing reads results."""

from __future__ import annotations

import errno
import sys

from codex_ml.monitoring.debug_log import LOGGER

# A pipe whose reader went away, and a terminal that hung up.
_NOBODY_READS = (errno.EPIPE, errno.EIO)


def say(text: str) -> None:
    """Print a line on the error stream, and into the debug log of a run at work.

    A reader that went away is no reason to end a run.
    """
    LOGGER.info(text)
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except OSError as error:
        if error.errno not in _NOBODY_READS:
            raise

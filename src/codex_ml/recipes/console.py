"""What a job tells the user while it works: lines on the error stream, where nothing reads results."""

from __future__ import annotations

import contextlib
import sys


def say(text: str) -> None:
    """Print a line on the error stream; a reader that went away is no reason to end a run."""
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

"""Turns the first SIGINT or SIGTERM into a polite request to stop, the second into leaving at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from codex_ml.errors import EXIT_INTERRUPTED, STOP_EXIT_CODES, StopSignal


class StopRequest:
    """Remembers that the run was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self._signal: signal.Signals | None = None

    def __call__(self) -> str | None:
        """Return why the run should stop; None while it should not."""
        return None if self._signal is None else self._signal.name

    @property
    def exit_code(self) -> int:
        """Exit code that goes with the signal."""
        return EXIT_INTERRUPTED if self._signal is None else STOP_EXIT_CODES[self._signal]

    def receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signature of a signal handler
        """Signal handler.

        Raises
        ------
        StopSignal
            At the second signal: the user does not want to wait for the end of the step.
        """
        if self._signal is not None:
            raise StopSignal(number)
        self._signal = signal.Signals(number)


@contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Handle both signals for the length of a ``with`` block, and give them back as they were."""
    request = StopRequest()
    previous = {number: signal.signal(number, request.receive) for number in STOP_EXIT_CODES}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

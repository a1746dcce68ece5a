"""Turns the first SIGINT, SIGTERM or SIGHUP into a polite request to stop, the second into leaving at once."""

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
            At the second signal: the user does not want to wait for the end of the step. A second SIGHUP says no such
            thing: a session that closes sends it twice, once by the shell and once by the system.
        """
        if self._signal is not None and number == signal.SIGHUP:
            return
        if self._signal is not None:
            raise StopSignal(number)
        self._signal = signal.Signals(number)


@contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Handle the signals for the length of a ``with`` block, and give them back as they were.

    One that the process was started to ignore (a job of a shell's ``&``, ``nohup``) stays ignored.
    """
    request = StopRequest()
    heard = [number for number in STOP_EXIT_CODES if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, request.receive) for number in heard}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

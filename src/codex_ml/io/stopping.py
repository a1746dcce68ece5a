"""The request to stop this process: a signal handler records it here before it raises, and every stage checks it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from codex_ml.errors import EXIT_INTERRUPTED, STOP_EXIT_CODES, StopSignal


class StopRequest:
    """Keeps the first signal that asked the process to stop.

    An exception that a signal handler raises can be lost: a library catches `BaseException` around an import, or Python
    runs the handler inside a destructor, where it only prints the exception. The record is not lost.
    """

    def __init__(self) -> None:
        self._signal: signal.Signals | None = None
        self._deferrals = 0
        self._deferred: int | None = None
        # A child that another thread forked would otherwise defer all signals.
        os.register_at_fork(after_in_child=self._end_deferrals)

    def __call__(self) -> str | None:
        """Return the name of the signal; None while nothing was asked."""
        return None if self._signal is None else self._signal.name

    @property
    def signal(self) -> signal.Signals | None:
        """The first signal that asked; None while nothing was asked."""
        return self._signal

    @property
    def exit_code(self) -> int:
        """Exit code that goes with the signal."""
        return EXIT_INTERRUPTED if self._signal is None else STOP_EXIT_CODES[self._signal]

    def record(self, number: int) -> None:
        """Keep a signal; of several, the first one counts."""
        if self._signal is None:
            self._signal = signal.Signals(number)

    def check(self) -> None:
        """Stop here if the process was asked to stop and the exception of the signal handler was lost.

        Raises
        ------
        StopSignal
            With the first signal.
        """
        if self._signal is not None:
            raise StopSignal(self._signal)

    def leave(self, number: int) -> None:
        """Raise the exception of a signal handler, now or at the end of `deferred`.

        Raises
        ------
        StopSignal
            With the signal.
        """
        if self._deferrals:
            self._deferred = number
            return
        raise StopSignal(number)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let no signal handler that calls `leave` raise in a ``with`` block, which must be short.

        For changes that must be undone whole, and for imports: some native modules abort the process when an exception
        arrives while they load. Blocking the signals in the main thread is not enough: the system delivers them to
        another thread, and Python still runs the handler in the main thread. Other threads run no handlers, so nothing
        is deferred for them.

        Raises
        ------
        StopSignal
            At the end of the block, if a handler wanted to raise in it.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        if not self._deferrals:
            # Left from a block at whose end a second signal raised first.
            self._deferred = None
        self._deferrals += 1
        try:
            yield
        finally:
            self._deferrals = max(0, self._deferrals - 1)
            # From here on a handler raises by itself.
            if not self._deferrals and self._deferred is not None:
                number, self._deferred = self._deferred, None
                raise StopSignal(number)

    def _end_deferrals(self) -> None:
        self._deferrals, self._deferred = 0, None

    def forget(self) -> None:
        """Forget the request: the command that it was meant for has ended."""
        self._signal = None


# One per process, like the signal handlers that write to it.
STOP = StopRequest()

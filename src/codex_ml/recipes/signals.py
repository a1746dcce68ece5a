"""Turns the first SIGINT, SIGTERM or SIGHUP into a polite request to stop, the second into leaving at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from codex_ml.errors import STOP_EXIT_CODES
from codex_ml.stopping import STOP, StopRequest


@contextmanager
def listen_for_stop(request: StopRequest = STOP) -> Iterator[StopRequest]:
    """Handle the signals for the length of a ``with`` block, and restore the handlers that were there before.

    A signal that the process was started to ignore (a job of a shell's ``&``, ``nohup``) stays ignored. The block ends
    what was asked for, so the request is forgotten after it.

    Parameters
    ----------
    request : StopRequest
        Where the handlers record a signal.

    Raises
    ------
    StopSignal
        On entry, if a signal came before and its exception was lost. In the block, at the second signal: the user does
        not want to wait for the end of the step. A second SIGHUP does not count: a session that closes sends it twice,
        once by the shell and once by the system.
    """

    def receive(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signature of a signal handler
        if request.signal is None:
            request.record(number)
        elif number != signal.SIGHUP:
            request.leave(number)

    heard = [number for number in STOP_EXIT_CODES if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, receive) for number in heard}
    try:
        request.check()
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        request.forget()

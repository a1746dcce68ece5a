"""The request to stop: the first signal is recorded, and every check raises it."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any

import pytest

from codex_ml.errors import StopSignal
from codex_ml.io.stopping import StopRequest


def test_stop_request_nothing_asked_passes_every_check() -> None:
    """Without a signal a check does not raise."""
    request = StopRequest()
    request.check()
    assert (request(), request.signal, request.exit_code) == (None, None, 130)


def test_stop_request_first_signal_counts_and_every_check_raises_it() -> None:
    """A later signal does not replace the first; a check raises again even if its exception was lost."""
    request = StopRequest()
    request.record(signal.SIGTERM)
    request.record(signal.SIGINT)
    for _ in range(2):
        with pytest.raises(StopSignal) as stopped:
            request.check()
        assert stopped.value.exit_code == 143
    assert (request(), request.exit_code) == ("SIGTERM", 143)
    request.forget()
    request.check()


def test_deferred_signal_that_a_second_one_overtakes_is_not_raised_later() -> None:
    """The second signal raises at the end of the block before the first one does; the next block does not raise."""
    request = StopRequest()
    is_second_sent = False

    def ask_at_every_line(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal is_second_sent
        del event, argument
        if frame.f_code.co_name == "deferred":
            is_second_sent = True
            request.leave(signal.SIGHUP)
        return ask_at_every_line

    def block() -> None:
        with request.deferred():
            request.leave(signal.SIGTERM)
            sys.settrace(ask_at_every_line)

    tracer = sys.gettrace()
    try:
        with pytest.raises(StopSignal):
            block()
    finally:
        sys.settrace(tracer)
    assert is_second_sent
    with request.deferred():
        pass

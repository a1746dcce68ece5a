"""Signals while a run is at work: the first is remembered, the second leaves at once, what is ignored stays so."""

from __future__ import annotations

import os
import signal

import pytest

from codex_ml.errors import StopSignal
from codex_ml.io.stopping import STOP, StopRequest
from codex_ml.recipes.train.session import listen_for_stop


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_listen_for_stop_first_signal_is_remembered_with_its_code(number: signal.Signals, code: int) -> None:
    """Nothing is interrupted; who asks is told which signal it was."""
    with listen_for_stop() as stop:
        assert stop() is None
        os.kill(os.getpid(), number)
        assert stop() == number.name
        assert stop.exit_code == code


def test_listen_for_stop_second_signal_leaves_at_once_with_its_own_code() -> None:
    """SIGINT, then SIGTERM: whoever sends the second does not want to wait, and its code is the one that counts."""

    def twice() -> None:
        with listen_for_stop():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StopSignal) as left:
        twice()
    assert left.value.exit_code == 143
    assert isinstance(left.value, KeyboardInterrupt)


def test_listen_for_stop_block_that_ends_gives_the_handlers_back() -> None:
    """Outside of a run the signals do what they did before."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with listen_for_stop():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_listen_for_stop_signal_that_was_ignored_stays_ignored(number: signal.Signals) -> None:
    """A shell's ``&`` starts a job that ignores SIGINT, and ``nohup`` one that ignores SIGHUP; they are to go on."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with listen_for_stop() as stop:
            os.kill(os.getpid(), number)
            assert stop() is None
            assert signal.getsignal(number) is signal.SIG_IGN
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("first", [signal.SIGHUP, signal.SIGTERM])
def test_listen_for_stop_hang_up_after_another_signal_does_not_leave_at_once(first: signal.Signals) -> None:
    """A session that closes sends SIGHUP twice, by the shell and by the system: nobody is impatient there."""
    with listen_for_stop() as stop:
        os.kill(os.getpid(), first)
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop() == first.name
        with pytest.raises(StopSignal):
            os.kill(os.getpid(), signal.SIGTERM)


def test_listen_for_stop_signal_that_came_before_is_not_forgotten() -> None:
    """The recorded request raises before the block begins, although the exception of the handler was lost."""
    before = signal.getsignal(signal.SIGTERM)
    request = StopRequest()
    request.record(signal.SIGTERM)
    entered = False

    def enter() -> None:
        nonlocal entered
        with listen_for_stop(request):
            entered = True

    with pytest.raises(StopSignal) as left:
        enter()
    assert (left.value.exit_code, entered) == (143, False)
    assert signal.getsignal(signal.SIGTERM) is before


def test_listen_for_stop_block_that_ends_forgets_its_request() -> None:
    """A request to stop one run does not stop the next run in the same process."""
    with listen_for_stop():
        os.kill(os.getpid(), signal.SIGTERM)
        assert STOP() == "SIGTERM"
    STOP.check()

"""Tests of the thread around a sink, driven by sinks that raise, block, exit or lag."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from codex_ml.tracking.sinks import BackgroundSink, RunInfo

RUN = RunInfo(run_id="r1", name="demo", directory_name="demo")
PATIENCE_SECONDS = 50.0


class FakeSink:
    """Notes every call; what each call does beyond that is given by name."""

    def __init__(self, **behaviour: Callable[[], None]) -> None:
        self.name = "fake"
        self.tracker_run_id = "t1"
        self.calls: list[tuple[str, Any]] = []
        self._behaviour = behaviour

    def _note(self, call: str, argument: Any) -> None:
        self.calls.append((call, argument))
        self._behaviour.get(call, lambda: None)()

    def start(self, run: RunInfo) -> None:
        """Note the start."""
        self._note("start", run.run_id)

    def params(self, values: Any) -> None:
        """Note parameters."""
        self._note("params", values)

    def metrics(self, step: int, metrics: Any, split: Any, time: Any) -> None:  # noqa: ARG002 - as the protocol says
        """Note the step."""
        self._note("metrics", step)

    def event(self, kind: str, fields: Any) -> None:  # noqa: ARG002 - as the protocol says
        """Note the kind."""
        self._note("event", kind)

    def artifact(self, path: Any, name: str) -> None:  # noqa: ARG002 - as the protocol says
        """Note the name."""
        self._note("artifact", name)

    def close(self, status: Any) -> None:
        """Note the end."""
        self._note("close", status)


def fail(error: BaseException) -> Callable[[], None]:
    """Return a behaviour that raises."""

    def behave() -> None:
        raise error

    return behave


def finish(background: BackgroundSink, timeout_seconds: float = PATIENCE_SECONDS) -> None:
    """Ask for the end and wait for it."""
    background.request_close("FINISHED")
    background.wait(time.monotonic() + timeout_seconds)


def test_submit_healthy_sink_gets_everything_in_order() -> None:
    """All calls arrive in their order, between start and close."""
    sink = FakeSink()
    background = BackgroundSink(sink, RUN, queue_limit=100)
    for step in range(50):
        background.submit(lambda target, step=step: target.metrics(step, {}, None, None))
    finish(background)
    assert sink.calls == [("start", "r1"), *(("metrics", step) for step in range(50)), ("close", "FINISHED")]
    assert background.status().as_dict() == {"state": "closed", "errors": 0, "dropped": 0, "last_error": None}
    assert background.status().healthy
    assert background.tracker_run_id == "t1"


def test_submit_raising_sink_is_counted_and_called_again() -> None:
    """Each failed call counts; the sink still gets the next one, and its end."""
    sink = FakeSink(metrics=fail(OSError("disk gone")))
    background = BackgroundSink(sink, RUN, queue_limit=100)
    for step in range(3):
        background.submit(lambda target, step=step: target.metrics(step, {}, None, None))
    finish(background)
    status = background.status()
    assert (status.state, status.errors, status.last_error) == ("closed", 3, "OSError: disk gone")
    assert not status.healthy
    assert sink.calls[-1] == ("close", "FINISHED")


def test_start_raising_sink_fails_and_counts_what_it_missed() -> None:
    """A sink that cannot start gets nothing more; every report counts as dropped."""
    sink = FakeSink(start=fail(ValueError("no store")))
    background = BackgroundSink(sink, RUN, queue_limit=100)
    for _ in range(4):
        background.submit(lambda target: target.event("x", {}))
    finish(background)
    status = background.status()
    assert (status.state, status.errors, status.dropped) == ("failed", 1, 4)
    assert sink.calls == [("start", "r1")]


def test_call_system_exit_in_sink_stays_in_its_thread() -> None:
    """Even SystemExit from a tracker is its own affair."""
    background = BackgroundSink(FakeSink(event=fail(SystemExit(3))), RUN, queue_limit=10)
    background.submit(lambda target: target.event("x", {}))
    finish(background)
    assert (background.status().state, background.status().last_error) == ("closed", "SystemExit: 3")


def test_close_raising_sink_is_failed() -> None:
    """A sink that cannot end its run has not ended in good order."""
    background = BackgroundSink(FakeSink(close=fail(OSError("no"))), RUN, queue_limit=10)
    finish(background)
    assert (background.status().state, background.status().errors) == ("failed", 1)


def test_submit_blocking_sink_drops_beyond_the_limit_and_close_is_bounded() -> None:
    """A sink that never returns costs neither submit nor close more than the agreed time; losses are counted."""
    release = threading.Event()
    sink = FakeSink(start=lambda: release.wait(60) and None)
    background = BackgroundSink(sink, RUN, queue_limit=5)
    before = time.monotonic()
    for _ in range(8):
        background.submit(lambda target: target.event("x", {}))
    assert background.status().dropped == 3
    finish(background, timeout_seconds=0.05)
    assert time.monotonic() - before < PATIENCE_SECONDS
    status = background.status()
    assert (status.state, status.dropped) == ("blocked", 8)
    release.set()
    background._thread.join(PATIENCE_SECONDS)
    assert sink.calls == [("start", "r1")], "an abandoned sink must not wake up and write"


def test_thread_is_a_daemon() -> None:
    """A sink that blocks for ever does not keep the process alive."""
    release = threading.Event()
    background = BackgroundSink(FakeSink(start=lambda: release.wait(60) and None), RUN, queue_limit=1)
    release.set()
    finish(background)
    assert background._thread.daemon


def test_submit_after_close_is_counted() -> None:
    """A report that comes too late is not lost without a trace."""
    background = BackgroundSink(FakeSink(), RUN, queue_limit=10)
    finish(background)
    background.submit(lambda target: target.event("x", {}))
    assert background.status().dropped == 1


def test_call_error_that_has_no_text_is_counted_like_any_other() -> None:
    """An exception whose text cannot be made would otherwise end the thread without a word."""

    class NoTextError(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    sink = FakeSink(event=fail(NoTextError()))
    background = BackgroundSink(sink, RUN, queue_limit=10)
    background.submit(lambda given: given.event("a", {}))
    finish(background)
    assert background.status().state == "closed"
    assert background.status().last_error == "NoTextError: (no text)"

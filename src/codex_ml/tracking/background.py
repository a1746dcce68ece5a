"""Keeps a sink that fails, blocks or is slow away from the run: its own daemon thread behind a bounded queue."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from codex_ml.tracking.sinks import EndStatus, RunInfo, Sink

SinkState = Literal["running", "closed", "failed", "blocked", "missing"]


@dataclass(frozen=True)
class SinkStatus:
    """How one sink fared.

    Parameters
    ----------
    state : str
        ``running``; ``closed`` in good order; ``failed`` (could not start or end; takes nothing); ``blocked`` (did not
        come back in time when the run ended); ``missing`` (not installed).
    errors : int
        Calls that raised.
    dropped : int
        Reports that the sink never got: the queue was full, the sink had failed, or time ran out.
    last_error : str, optional
        Type and message of the newest error.
    """

    state: SinkState
    errors: int = 0
    dropped: int = 0
    last_error: str | None = None

    @property
    def healthy(self) -> bool:
        """Whether everything reported so far has reached the sink or is on its way."""
        return self.state in ("running", "closed") and not self.errors and not self.dropped

    def as_dict(self) -> dict[str, Any]:
        """Return the status as JSON values."""
        return asdict(self)


class BackgroundSink:
    """Runs one sink in a daemon thread, which never keeps the process alive; no method here waits but `wait`.

    Parameters
    ----------
    sink : Sink
        Every call to it happens in the thread, `start` included.
    run : RunInfo
        Given to the sink's `start`.
    queue_limit : int
        How many reports may wait; when it is reached, new ones are dropped and counted.
    """

    def __init__(self, sink: Sink, run: RunInfo, queue_limit: int) -> None:
        self.name = sink.name
        self._sink = sink
        self._run = run
        self._queue_limit = queue_limit
        self._queue: deque[Callable[[Sink], None]] = deque()
        self._changed = threading.Condition()
        self._state: SinkState = "running"
        self._end: EndStatus | None = None
        self._errors = 0
        self._dropped = 0
        self._last_error: str | None = None
        self._tracker_run_id: str | None = None
        self._thread = threading.Thread(target=self._work, name=f"sink-{self.name}", daemon=True)
        self._thread.start()

    @property
    def tracker_run_id(self) -> str | None:
        """What the tracker calls the run, once the sink has started."""
        return self._tracker_run_id

    def submit(self, action: Callable[[Sink], None]) -> None:
        """Queue one call, or count it as dropped."""
        with self._changed:
            if self._state != "running" or self._end is not None or len(self._queue) >= self._queue_limit:
                self._dropped += 1
                return
            self._queue.append(action)
            self._changed.notify()

    def submit_params(self, values: Mapping[str, Any]) -> None:
        """Queue the parameters; a sink may see by them that it has to go on under another id."""

        def pass_on(sink: Sink) -> None:
            sink.params(values)
            self._remember_tracker_run_id(sink)

        self.submit(pass_on)

    def request_close(self, status: EndStatus) -> None:
        """Ask the sink to end the run after what is queued; returns at once."""
        with self._changed:
            self._end = status
            self._changed.notify()

    def wait(self, deadline: float) -> None:
        """Wait for the end until a moment of `time.monotonic`; later the sink counts as blocked and is left alone."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            if self._thread.is_alive() and self._state == "running":
                self._state = "blocked"
                self._drop_queued()

    def status(self) -> SinkStatus:
        """Return how the sink fares at this moment."""
        with self._changed:
            return SinkStatus(self._state, self._errors, self._dropped, self._last_error)

    def _work(self) -> None:
        if not self._call(lambda sink: sink.start(self._run)):
            self._finish("failed")
            return
        # Read here and kept: a property of a sick sink could block, too.
        self._call(self._remember_tracker_run_id)
        end = self._serve_queue()
        if end is not None:
            self._finish("closed" if self._call(lambda sink: sink.close(end)) else "failed")

    def _serve_queue(self) -> EndStatus | None:
        """Pass on what is queued until the queue is empty and the end asked for; None when nobody waits any more."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._end is not None or self._state != "running")
                if self._state != "running":
                    return None
                if not self._queue:
                    return self._end
                action = self._queue.popleft()
            self._call(action)

    def _remember_tracker_run_id(self, sink: Sink) -> None:
        self._tracker_run_id = sink.tracker_run_id

    def _call(self, action: Callable[[Sink], None]) -> bool:
        try:
            action(self._sink)
        except BaseException as error:  # noqa: BLE001 - the boundary of promise 9: whatever a tracker raises stays here
            with self._changed:
                self._errors += 1
                self._last_error = f"{type(error).__name__}: {_text(error)}"
            return False
        return True

    def _finish(self, state: SinkState) -> None:
        with self._changed:
            if self._state == "running":
                self._state = state
            self._drop_queued()

    def _drop_queued(self) -> None:
        self._dropped += len(self._queue)
        self._queue.clear()


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - an exception that cannot even be shown would end the thread without a word
        return "(no text)"

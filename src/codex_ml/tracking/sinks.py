"""Tracking sinks, each in a background thread so that it cannot delay or fail a run."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from codex_ml.io.atomic import Storage
from codex_ml.io.clock import utc_now
from codex_ml.monitoring.codex_logging import DEFAULT_MAX_BYTES, NdjsonWriter

_THEN = "then resume with --resume-from latest"

EndStatus = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class RunInfo:
    """Who the run is, for a sink.

    Parameters
    ----------
    run_id : str
        Identity of the run in this toolkit.
    name : str
        Name that the user gave the run.
    directory_name : str
        Name of the run directory; never its absolute path, which means nothing on another machine.
    experiment : str
        Group of runs, in trackers that have such a thing.
    resumed : bool
        Whether an earlier process began this run.
    resumed_step : int, optional
        Step of the checkpoint that the run resumes from.
    tracker_run_ids : mapping of str to str
        What the trackers called this run, by sink name, as saved in the checkpoint that the run resumes from.
    """

    run_id: str
    name: str
    directory_name: str
    experiment: str = "codex-ml"
    resumed: bool = False
    resumed_step: int | None = None
    tracker_run_ids: Mapping[str, str] = field(default_factory=dict)


class Sink(Protocol):
    """Takes what a run reports. Values are plain JSON and have passed the safety filters already.

    A sink may raise or block as it likes: `codex_ml.tracking.sinks` keeps that from the run.
    """

    @property
    def name(self) -> str:
        """Name of the sink in the configuration and in status reports."""
        ...

    @property
    def tracker_run_id(self) -> str | None:
        """What the tracker calls this run, known after `start`; None where it has no such thing."""
        ...

    def start(self, run: RunInfo) -> None:
        """Open the tracker for this run, or reopen it when the run is resumed."""
        ...

    def params(self, values: Mapping[str, Any]) -> None:
        """Take the flattened configuration."""
        ...

    def metrics(self, step: int, metrics: Mapping[str, float], split: str | None, time: datetime) -> None:
        """Take the metrics of one optimizer step."""
        ...

    def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Take one thing that happened."""
        ...

    def artifact(self, path: Path, name: str) -> None:
        """Take a file of the run directory, under its name relative to that directory."""
        ...

    def close(self, status: EndStatus) -> None:
        """End the run in the tracker."""
        ...


# A sink factory gets the directory that holds the runs (where a local store belongs).
SinkFactory = Callable[[Path], Sink]


class NdjsonSink:
    """Writes ``metrics.ndjson`` (one line a value) and ``events.ndjson`` into the run directory, at once.

    These files are the run's own record, so this sink is called directly: when it cannot write, the run stops.

    Parameters
    ----------
    run_directory : Path
        Existing directory of the run.
    max_bytes : int
        Size at which each of the two files is rotated; nothing is ever deleted.
    redact : callable
        Applied to every line before it is written.
    clock : callable
        Stamps the lines.
    storage : Storage
        Renames and rewrites files.
    """

    def __init__(
        self,
        run_directory: Path,
        max_bytes: int = DEFAULT_MAX_BYTES,
        *,
        redact: Callable[[Any], Any],
        clock: Callable[[], datetime] = utc_now,
        storage: Storage | None = None,
    ) -> None:
        self._run_id = ""
        self._metrics = NdjsonWriter(
            run_directory / "metrics.ndjson", max_bytes, redact=redact, clock=clock, storage=storage, then=_THEN
        )
        self._events = NdjsonWriter(
            run_directory / "events.ndjson", max_bytes, redact=redact, clock=clock, storage=storage, then=_THEN
        )

    @property
    def name(self) -> str:
        """Name of the sink in status reports."""
        return "ndjson"

    @property
    def tracker_run_id(self) -> str | None:
        """None: the files are in the run directory and need no other name for it."""
        return None

    def start(self, run: RunInfo) -> None:
        """Store the run id, which is part of every line."""
        self._run_id = run.run_id

    def params(self, values: Mapping[str, Any]) -> None:
        """Write the flattened configuration as one event."""
        self.event("params", {"params": dict(values)})

    def metrics(
        self,
        step: int,
        metrics: Mapping[str, float],
        split: str | None,
        time: datetime,  # noqa: ARG002 - the writer stamps each line itself, at this same moment
    ) -> None:
        """Write one line for each value."""
        for name, value in metrics.items():
            self._metrics.write({"run_id": self._run_id, "step": step, "split": split, "name": name, "value": value})

    def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Write one event.

        Raises
        ------
        ValueError
            If a field is called ``run_id`` or ``kind``: it would hide the event's own.
        """
        own: dict[str, Any] = {"run_id": self._run_id, "kind": kind}
        clash = sorted(own.keys() & fields.keys())
        if clash:
            raise ValueError(f"an event may not have a field named {', '.join(clash)}")
        self._events.write({**own, **fields})

    def artifact(self, path: Path, name: str) -> None:
        """Note that a file became part of the run; it is in the run directory already."""
        self.event("artifact", {"name": name, "bytes": path.stat().st_size})

    def rewind_to_step(self, step: int) -> int:
        """Cut the metrics back to a checkpoint's step and return how many lines went.

        Events stay: that an earlier process got further and died is true, and part of the audit.
        """
        return self._metrics.truncate_after_step(step)

    def sync(self) -> None:
        """Force both files to the disk."""
        self._metrics.sync()
        self._events.sync()

    def close(self, status: EndStatus) -> None:  # noqa: ARG002 - the context writes how the run ended as an event
        """Force both files to the disk and close them."""
        try:
            self._metrics.close()
        finally:
            self._events.close()


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
        """Queue the parameters; a sink may have to continue under another id because of them."""

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
    except BaseException:  # noqa: BLE001 - an exception that cannot even be shown would end the thread silently
        return "(no text)"

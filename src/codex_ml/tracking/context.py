"""The one object a run reports to: NDJSON at once, every other tracker behind its own thread, one end for all."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from codex_ml.errors import NOTE_ALSO, CodexError, InterruptedRun, RunDirectoryGoneError
from codex_ml.io.clock import utc_now
from codex_ml.monitoring.dependencies import DependencyStatus
from codex_ml.monitoring.json_values import flatten, plain_copy
from codex_ml.tracking.sinks import BackgroundSink, EndStatus, NdjsonSink, RunInfo, Sink, SinkStatus

DEFAULT_QUEUE_LIMIT = 10_000
DEFAULT_CLOSE_TIMEOUT_SECONDS = 30.0
AT_ONCE_SECONDS = 1.0


class ExperimentContext:
    """Receives parameters, metrics, events and artifacts of one run and passes them to its sinks.

    Used as a context manager it ends the run as FINISHED, as KILLED (`KeyboardInterrupt`, `SystemExit`,
    `InterruptedRun`) or as FAILED (any other exception), and lets every exception pass.

    Parameters
    ----------
    run : RunInfo
        Who the run is.
    local : NdjsonSink
        The run's own files; called directly, and an error in it (a full disk) is an error of the run.
    sinks : sequence of Sink
        Trackers; each runs in its own daemon thread, and nothing it does or fails to do reaches the run.
    missing : sequence of DependencyStatus
        Trackers that were asked for and are not installed; one structured warning each, and the run continues.
    redact : callable
        Passes nested JSON values through the safety filters before any sink gets them.
    on_warning : callable
        Shows one line to the user; called in the caller's thread only.
    queue_limit : int
        How many reports may wait for one sink before new ones are dropped and counted.
    close_timeout_seconds : float
        How long `close` waits for all trackers together.
    clock : callable
        Gives the time of each metric.
    """

    def __init__(
        self,
        run: RunInfo,
        local: NdjsonSink,
        sinks: Sequence[Sink] = (),
        missing: Sequence[DependencyStatus] = (),
        *,
        redact: Callable[[Any], Any],
        on_warning: Callable[[str], None],
        queue_limit: int = DEFAULT_QUEUE_LIMIT,
        close_timeout_seconds: float = DEFAULT_CLOSE_TIMEOUT_SECONDS,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._run = run
        self._local = local
        self._missing = tuple(missing)
        self._redact = redact
        self._on_warning = on_warning
        self._close_timeout_seconds = close_timeout_seconds
        self._clock = clock
        self._closed = False
        self._reported: set[str] = set()
        self._local.start(run)
        self._background = [BackgroundSink(sink, run, queue_limit) for sink in sinks]
        self.log_event("run_started", name=run.name, directory=run.directory_name, resumed=run.resumed)
        for status in self._missing:
            self.log_event("sink_missing", **status.as_event())
            self._on_warning(f"tracking continues without it: {status.message()}")

    @property
    def run_id(self) -> str:
        """Identity of the run."""
        return self._run.run_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Report the configuration; nested mappings become dotted keys."""
        flat = flatten(self._clean(params))
        self._local.params(flat)
        for sink in self._background:
            sink.submit_params(flat)

    def log_metrics(self, step: int, metrics: Mapping[str, float], split: str | None = None) -> None:
        """Report the metrics of one optimizer step.

        Parameters
        ----------
        step : int
            Optimizer steps done.
        metrics : mapping of str to float
            Values by name; anything `float` accepts. NaN and infinities are kept as such where the sink can.
        split : str, optional
            Which split they were measured on.
        """
        values = {name: value if isinstance(value, int) else float(value) for name, value in metrics.items()}
        moment = self._clock()
        self._local.metrics(step, values, split, moment)
        self._submit(lambda sink: sink.metrics(step, values, split, moment))
        self._report_new_failures()

    def log_event(self, kind: str, /, **fields: Any) -> None:
        """Report one thing that happened; fields are JSON values and must not be named run_id, kind or time."""
        cleaned = self._clean(fields)
        self._local.event(kind, cleaned)
        self._submit(lambda sink: sink.event(kind, cleaned))

    def log_missing(self, status: DependencyStatus) -> None:
        """Report an optional package that the run would have used: one event and one warning, and the run continues."""
        self.log_event("dependency_missing", **status.as_event())
        self._on_warning(status.message())

    def emit(self, event: Mapping[str, Any]) -> None:
        """Report an event that names its own ``kind``: the shape in which the safety audit hands its events over."""
        fields = dict(event)
        self.log_event(fields.pop("kind"), **fields)

    def log_artifact(self, path: Path, name: str | None = None) -> None:
        """Report a file of the run directory; ``name`` is its name relative to that directory."""
        shown = name if name is not None else path.name
        self._local.artifact(path, shown)
        self._submit(lambda sink: sink.artifact(path, shown))

    def rewind_to_step(self, step: int) -> None:
        """Cut the run's own metrics back to a checkpoint's step; trackers skip the steps that they have."""
        removed = self._local.rewind_to_step(step)
        self.log_event("rewound", step=step, removed_lines=removed)

    def sync(self) -> None:
        """Force the run's own lines to the disk; trackers look after theirs."""
        self._local.sync()

    def tracker_run_ids(self) -> dict[str, str]:
        """Return what each tracker calls this run, as far as it has started; saved in every checkpoint.

        A tracker that has not started yet is named as the checkpoint before knew it, if it did.
        """
        known = dict(self._run.tracker_run_ids)
        known.update({sink.name: sink.tracker_run_id for sink in self._background if sink.tracker_run_id is not None})
        return known

    def sink_status(self) -> dict[str, dict[str, Any]]:
        """Return how every sink fares, by name; see `SinkStatus`."""
        statuses = {"ndjson": SinkStatus("closed" if self._closed else "running")}
        statuses.update({sink.name: sink.status() for sink in self._background})
        statuses.update({status.name: SinkStatus("missing", last_error=status.message()) for status in self._missing})
        return {name: {**status.as_dict(), "last_error": self._text(status)} for name, status in statuses.items()}

    def close(self, status: EndStatus = "FINISHED", *, at_once: bool = False) -> None:
        """End the run in every sink; a second call does nothing.

        Trackers get at most ``close_timeout_seconds``; one second after a request to stop at once.
        """
        if self._closed:
            return
        timeout_seconds = min(self._close_timeout_seconds, AT_ONCE_SECONDS if at_once else math.inf)
        try:
            self._close_background(status, timeout_seconds)
            self._report_new_failures()
            for name, before in self._run.tracker_run_ids.items():
                if (now := self.tracker_run_ids()[name]) != before:
                    self._local.event("tracker_run_changed", {"sink": name, "before": before, "now": now})
            self._local.event("sink_status", {"sinks": self.sink_status()})
            self._local.event("run_ended", {"status": status})
        finally:
            self._closed = True
            self._local.close(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._closed:
            return
        try:
            try:
                if error is not None:
                    self._note_stop(error)
            finally:
                # A second Ctrl-C: do not wait for a tracker.
                self.close(end_status(error), at_once=isinstance(error, KeyboardInterrupt))
        except Exception as problem:
            # Broad, because the run may be dying of something else, and that is the error to show.
            if error is None:
                raise
            # Where the directory is gone, the first error says so.
            if not isinstance(error, RunDirectoryGoneError):
                error.add_note(f"{NOTE_ALSO}the end of the run could not be logged: {self._safe(str(problem))}")

    def _note_stop(self, error: BaseException) -> None:
        code = error.code if isinstance(error, CodexError) else None
        fields = {"error_type": type(error).__name__, "code": code, "message": self._safe(str(error))}
        self._local.event("run_stopped", fields)
        self._submit(lambda sink: sink.event("run_stopped", fields))

    def _close_background(self, status: EndStatus, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        for sink in self._background:
            sink.request_close(status)
        for sink in self._background:
            sink.wait(deadline)

    def _submit(self, action: Callable[[Sink], None]) -> None:
        for sink in self._background:
            sink.submit(action)

    def _report_new_failures(self) -> None:
        """Warn about each failing sink once; the counts are in `sink_status` and in the last event."""
        for sink in self._background:
            status = sink.status()
            if status.healthy or sink.name in self._reported:
                continue
            self._reported.add(sink.name)
            reason = self._text(status) or "it does not keep up"
            self._on_warning(f"tracking sink {sink.name} is {status.state}, the run continues: {reason}")
            self._local.event("sink_warning", {"sink": sink.name, **status.as_dict(), "last_error": reason})

    def _clean(self, values: Mapping[str, Any]) -> dict[str, Any]:
        cleaned = self._redact(plain_copy(values))
        if not isinstance(cleaned, dict):
            raise TypeError(f"redact turned a mapping into {type(cleaned).__name__}")
        return cleaned

    def _text(self, status: SinkStatus) -> str | None:
        return None if status.last_error is None else self._safe(status.last_error)

    def _safe(self, text: str) -> str:
        try:
            return str(self._redact(text))
        except Exception as error:  # noqa: BLE001 - a broken filter must not hide why the run ended, nor let text pass
            return f"(withheld: the filter failed with {type(error).__name__})"


def end_status(error: BaseException | None) -> EndStatus:
    """Return how a run ends that is left by this exception."""
    if error is None:
        return "FINISHED"
    if isinstance(error, (KeyboardInterrupt, SystemExit, InterruptedRun)):
        return "KILLED"
    return "FAILED"

"""What a sink is, and the one that is always there: NDJSON files in the run directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from codex_ml.clock import utc_now
from codex_ml.monitoring.codex_logging import DEFAULT_MAX_BYTES, NdjsonWriter
from codex_ml.storage import Storage

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
        Step of the checkpoint that the run goes on from.
    tracker_run_ids : mapping of str to str
        What the trackers called this run, by sink name, as saved in the checkpoint that the run goes on from.
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

    A sink may raise or block as it likes: `codex_ml.tracking.background` keeps that from the run.
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
        """None: the files lie in the run's own directory and need no other name for it."""
        return None

    def start(self, run: RunInfo) -> None:
        """Remember the run's id, which stands on every line."""
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
        """Note that a file became part of the run; it lies in the run directory already."""
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

"""Opens the `ExperimentContext` of a run from what the configuration asks for: names of sinks become sinks."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from codex_ml.io.atomic import Storage
from codex_ml.io.clock import utc_now
from codex_ml.monitoring.codex_logging import DEFAULT_MAX_BYTES
from codex_ml.monitoring.dependencies import PACKAGES, DependencyStatus, probe_dependency
from codex_ml.registry import SINKS, Registry
from codex_ml.tracking.context import DEFAULT_CLOSE_TIMEOUT_SECONDS, DEFAULT_QUEUE_LIMIT, ExperimentContext
from codex_ml.tracking.mlflow_sink import require_local_store
from codex_ml.tracking.sinks import EndStatus, NdjsonSink, RunInfo, Sink, SinkFactory


@dataclass(frozen=True)
class TrackingDependencies:
    """Collaborators and limits of `open_experiment`; the defaults are the real ones.

    Parameters
    ----------
    clock : callable
        Gives the time of every line.
    find_spec : callable
        Finds a module by name, as `importlib.util.find_spec` does.
    registry : Registry
        Sinks by name.
    environment : mapping, optional
        Variables of the process.
    close_timeout_seconds : float
        How long the end of a run waits for all trackers together, where the caller does not say.
    """

    clock: Callable[[], datetime] = utc_now
    find_spec: Callable[[str], object | None] = importlib.util.find_spec
    registry: Registry[SinkFactory] = SINKS
    environment: Mapping[str, str] | None = None
    close_timeout_seconds: float = DEFAULT_CLOSE_TIMEOUT_SECONDS


class _LateSink:
    """A sink that is made when it is started, so in the thread that keeps its faults, import included, from the run."""

    def __init__(self, name: str, make: Callable[[], Sink]) -> None:
        self.name = name
        self._make = make
        self._sink: Sink | None = None

    @property
    def tracker_run_id(self) -> str | None:
        return self._made().tracker_run_id

    def start(self, run: RunInfo) -> None:
        self._sink = self._make()
        self._sink.start(run)

    def params(self, values: Mapping[str, Any]) -> None:
        self._made().params(values)

    def metrics(self, step: int, metrics: Mapping[str, float], split: str | None, time: datetime) -> None:
        self._made().metrics(step, metrics, split, time)

    def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        self._made().event(kind, fields)

    def artifact(self, path: Path, name: str) -> None:
        self._made().artifact(path, name)

    def close(self, status: EndStatus) -> None:
        self._made().close(status)

    def _made(self) -> Sink:
        if self._sink is None:
            raise RuntimeError(f"the sink {self.name} was not started")
        return self._sink


def open_experiment(
    run: RunInfo,
    run_directory: Path,
    sink_names: Sequence[str] = (),
    *,
    redact: Callable[[Any], Any],
    on_warning: Callable[[str], None],
    max_bytes: int = DEFAULT_MAX_BYTES,
    queue_limit: int = DEFAULT_QUEUE_LIMIT,
    close_timeout_seconds: float | None = None,
    dependencies: TrackingDependencies | None = None,
    storage: Storage | None = None,
) -> ExperimentContext:
    """Open the context of one run; NDJSON is always there, the named sinks where they are installed.

    Parameters
    ----------
    run : RunInfo
        Who the run is.
    run_directory : Path
        Existing directory of the run; local stores are in its parent.
    sink_names : sequence of str
        ``tracking.sinks`` of the configuration. One that is not installed costs a warning, not the run.
    redact, on_warning, queue_limit, close_timeout_seconds
        See `ExperimentContext`.
    max_bytes : int
        Size at which NDJSON files are rotated.
    dependencies : TrackingDependencies, optional
        Clock, module finder, sink registry and environment.
    storage : Storage, optional
        Writes the NDJSON files and forces them to the disk.

    Raises
    ------
    UserError
        If no sink has such a name, or the environment points MLflow at a server.
    """
    dependencies = dependencies if dependencies is not None else TrackingDependencies()
    sinks, missing = build_sinks(sink_names, run_directory.parent, dependencies)
    local = NdjsonSink(run_directory, max_bytes, redact=redact, clock=dependencies.clock, storage=storage)
    return ExperimentContext(
        run,
        local,
        sinks,
        missing,
        redact=redact,
        on_warning=on_warning,
        queue_limit=queue_limit,
        close_timeout_seconds=(
            dependencies.close_timeout_seconds if close_timeout_seconds is None else close_timeout_seconds
        ),
        clock=dependencies.clock,
    )


def check_sinks(names: Sequence[str], dependencies: TrackingDependencies | None = None) -> None:
    """Check the names of sinks before a run directory is made; cheap, imports no tracker.

    Raises
    ------
    UserError
        If no sink has such a name, or the environment points MLflow at a server.
    """
    dependencies = dependencies if dependencies is not None else TrackingDependencies()
    environment = os.environ if dependencies.environment is None else dependencies.environment
    for name in names:
        if name not in dependencies.registry.names():
            # Raises with what there is; a known sink is imported only in its own thread.
            dependencies.registry.get(name)
        if name == "mlflow" and environment.get("MLFLOW_TRACKING_URI"):
            # The sink would not read it; but the user expects the run on that server, and it must not go there.
            require_local_store(environment["MLFLOW_TRACKING_URI"])


def build_sinks(
    names: Sequence[str], store_directory: Path, dependencies: TrackingDependencies
) -> tuple[list[Sink], list[DependencyStatus]]:
    """Return the sinks that can be used, and the status of those whose package is missing.

    Raises
    ------
    UserError
        As `check_sinks`.
    """
    check_sinks(names, dependencies)
    sinks: list[Sink] = []
    missing: list[DependencyStatus] = []
    for name in dict.fromkeys(names):
        status = probe_dependency(name, dependencies.find_spec) if name in PACKAGES else None
        if status is not None and status.state == "missing":
            missing.append(status)
        else:
            sinks.append(_LateSink(name, partial(_make, dependencies.registry, name, store_directory)))
    return sinks, missing


def _make(registry: Registry[SinkFactory], name: str, store_directory: Path) -> Sink:
    return registry.get(name)(store_directory)

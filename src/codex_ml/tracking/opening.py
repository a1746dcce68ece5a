"""Opens the `ExperimentContext` of a run from what the configuration asks for: names of sinks become sinks."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from codex_ml.monitoring.codex_logging import DEFAULT_MAX_BYTES, utc_now
from codex_ml.monitoring.dependencies import PACKAGES, DependencyStatus, probe_dependency
from codex_ml.registry import Registry
from codex_ml.tracking.context import DEFAULT_CLOSE_TIMEOUT_SECONDS, DEFAULT_QUEUE_LIMIT, ExperimentContext
from codex_ml.tracking.mlflow_sink import require_local_store
from codex_ml.tracking.sinks import SINKS, NdjsonSink, RunInfo, Sink, SinkFactory


@dataclass(frozen=True)
class TrackingDependencies:
    """Collaborators of `open_experiment`; the defaults are the real ones."""

    clock: Callable[[], datetime] = utc_now
    find_spec: Callable[[str], object | None] = importlib.util.find_spec
    registry: Registry[SinkFactory] = SINKS
    environment: Mapping[str, str] | None = None


def open_experiment(
    run: RunInfo,
    run_directory: Path,
    sink_names: Sequence[str] = (),
    *,
    redact: Callable[[Any], Any],
    on_warning: Callable[[str], None],
    max_bytes: int = DEFAULT_MAX_BYTES,
    queue_limit: int = DEFAULT_QUEUE_LIMIT,
    close_timeout_seconds: float = DEFAULT_CLOSE_TIMEOUT_SECONDS,
    dependencies: TrackingDependencies | None = None,
) -> ExperimentContext:
    """Open the context of one run; NDJSON is always there, the named sinks where they are installed.

    Parameters
    ----------
    run : RunInfo
        Who the run is.
    run_directory : Path
        Existing directory of the run; local stores lie in its parent.
    sink_names : sequence of str
        ``tracking.sinks`` of the configuration. One that is not installed costs a warning, not the run.
    redact, on_warning, queue_limit, close_timeout_seconds
        See `ExperimentContext`.
    max_bytes : int
        Size at which NDJSON files are rotated.
    dependencies : TrackingDependencies, optional
        Clock, module finder, sink registry and environment.

    Raises
    ------
    UserError
        If no sink has such a name, or the environment points MLflow at a server.
    """
    dependencies = dependencies if dependencies is not None else TrackingDependencies()
    sinks, missing = build_sinks(sink_names, run_directory.parent, dependencies)
    local = NdjsonSink(run_directory, max_bytes, redact=redact, clock=dependencies.clock)
    return ExperimentContext(
        run,
        local,
        sinks,
        missing,
        redact=redact,
        on_warning=on_warning,
        queue_limit=queue_limit,
        close_timeout_seconds=close_timeout_seconds,
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
        dependencies.registry.get(name)
        if name == "mlflow" and environment.get("MLFLOW_TRACKING_URI"):
            # The sink would not read it; but whoever set it expects the run on that server, and it must not go there.
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
            sinks.append(dependencies.registry.get(name)(store_directory))
    return sinks, missing

"""Copies a run into a local MLflow store (one SQLite file); MLflow is imported only when a run starts using it."""

from __future__ import annotations

import importlib
import logging
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from codex_ml.errors import UserError
from codex_ml.tracking.sinks import EndStatus, RunInfo

STORE_NAME = "mlflow.db"
ARTIFACTS_NAME = "mlartifacts"
RUN_ID_TAG = "codex_ml.run_id"
DIRECTORY_TAG = "codex_ml.run_directory"
PARENT_TAG = "codex_ml.parent_run_id"
GIVEN_UP_TAG = "codex_ml.given_up_from_step"
CHANGED_TAG_PREFIX = "codex_ml.changed."
# Parameters that change no number of a step, so that a resume with others has the same future.
_WITHOUT_EFFECT = (
    "run.",
    "tracking.",
    "logging.",
    "eval.",
    "offline",
    "schema_version",
    "training.save_",
    "training.keep_",
)
# Limits of MLflow's stores: https://mlflow.org/docs/latest/api_reference/python_api/mlflow.client.html (log_batch).
_MAX_KEY_CHARACTERS = 250
_MAX_PARAM_CHARACTERS = 6000
_MAX_TAG_CHARACTERS = 5000
_MAX_PARAMS_A_BATCH = 100
_REFUSED_IN_KEYS = re.compile(r"[^\w\-. /]", re.ASCII)
_SQLITE_PREFIX = "sqlite:///"


@dataclass(frozen=True)
class MlflowLibrary:
    """The parts of MLflow that the sink uses: the client class and the two entities it takes."""

    client: Callable[..., Any]
    metric: Callable[..., Any]
    param: Callable[..., Any]


def load_mlflow() -> MlflowLibrary:
    """Import MLflow (about five seconds); its offline switches are set by `codex_ml.offline` long before."""
    mlflow = importlib.import_module("mlflow")
    entities = importlib.import_module("mlflow.entities")
    # It reports each table it makes; a failure reaches the sink as an exception and is reported there.
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    return MlflowLibrary(mlflow.MlflowClient, entities.Metric, entities.Param)


def local_store_uri(directory: Path) -> str:
    """Return the MLflow URI of the store in a directory, the directory that holds the runs."""
    path = str((directory / STORE_NAME).resolve())
    # SQLAlchemy reads these two as an escape and as the start of options.
    return _SQLITE_PREFIX + path.replace("%", "%25").replace("?", "%3F")


def require_local_store(uri: str) -> None:
    """Refuse every MLflow store but a local SQLite file.

    Raises
    ------
    UserError
        If the URI names a server, or a kind of store that is not supported here.
    """
    if not uri.startswith(_SQLITE_PREFIX):
        raise UserError(
            f"tracking: {uri.partition(':')[0]!r} is not a local MLflow store",
            why="runs are tracked on this machine only, in one SQLite file",
            fix="unset MLFLOW_TRACKING_URI; the store is mlflow.db in run.output_dir",
            code="TRACKING_NOT_LOCAL",
        )


class MlflowSink:
    """Writes one run into a local MLflow store through `MlflowClient`; MLflow's global state stays untouched.

    Parameters
    ----------
    directory : Path
        Holds the store (``mlflow.db``) and the copies of artifacts (``mlartifacts/``); the output directory of runs.
    load : callable
        Returns the MLflow library; called in `start`, so making a sink is cheap.
    """

    def __init__(self, directory: Path, load: Callable[[], MlflowLibrary] = load_mlflow) -> None:
        self.store_uri = local_store_uri(directory)
        self._directory = directory
        self._load = load
        self._library: MlflowLibrary | None = None
        self._client: Any = None
        self._tracker_run_id: str | None = None
        self._run: RunInfo | None = None
        self._experiment = ""
        self._known_params: dict[str, str] = {}
        self._known_steps: dict[str, set[int]] = {}

    @property
    def name(self) -> str:
        """Name of the sink in the configuration."""
        return "mlflow"

    @property
    def tracker_run_id(self) -> str | None:
        """MLflow's id of the run, once started."""
        return self._tracker_run_id

    def start(self, run: RunInfo) -> None:
        """Open the store and make the run, or find it again when the run is resumed.

        Raises
        ------
        sqlite3.Error
            If the store cannot be opened or is no SQLite file.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # MLflow retries for minutes on a store that cannot be opened; SQLite itself says so at once.
        with closing(sqlite3.connect(self._directory / STORE_NAME)) as connection:
            connection.execute("PRAGMA schema_version")
        self._library = self._load()
        self._client = self._library.client(tracking_uri=self.store_uri)
        self._run, self._experiment = run, self._experiment_id(run.experiment)
        existing = self._find(run, self._experiment) if run.resumed else None
        if existing is None:
            self._create(run, {})
        else:
            self._take_up(existing)

    def params(self, values: Mapping[str, Any]) -> None:
        """Write the parameters that the run does not have yet; MLflow never lets one change, so others become tags.

        Where steps that the tracker has are made again with other settings, another MLflow run is begun: the curve of
        one run must not be that of two futures.
        """
        library = self._started()
        new = {_key(key): str(value)[:_MAX_PARAM_CHARACTERS] for key, value in values.items()}
        changed = {key: value for key, value in new.items() if self._known_params.get(key, value) != value}
        if self._gives_up_steps() and not all(key.startswith(_WITHOUT_EFFECT) for key in changed):
            self._begin_another()
            changed = {}
        for key, value in changed.items():
            tag = f"{CHANGED_TAG_PREFIX}{key}"[:_MAX_KEY_CHARACTERS]
            self._client.set_tag(self._tracker_run_id, tag, value[:_MAX_TAG_CHARACTERS])
        entities = [library.param(key, value) for key, value in new.items() if key not in self._known_params]
        for start in range(0, len(entities), _MAX_PARAMS_A_BATCH):
            self._client.log_batch(self._tracker_run_id, params=entities[start : start + _MAX_PARAMS_A_BATCH])
        self._known_params = new | self._known_params

    def metrics(self, step: int, metrics: Mapping[str, float], split: str | None, time: datetime) -> None:
        """Write the metrics of a step as ``split/name``, leaving out those that the run has already."""
        library = self._started()
        milliseconds = round(time.timestamp() * 1000)
        named = {_key(f"{split}/{name}" if split else name): value for name, value in metrics.items()}
        entities = [
            library.metric(key, value, milliseconds, step)
            for key, value in named.items()
            if step not in self._known_steps.get(key, ())
        ]
        if entities:
            self._client.log_batch(self._tracker_run_id, metrics=entities)

    def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Write why a run stopped as a tag; other events are in the run's own files."""
        self._started()
        if kind == "run_stopped":
            text = f"{fields.get('error_type')}: {fields.get('message')}"
            self._client.set_tag(self._tracker_run_id, "codex_ml.stopped_by", text[:_MAX_TAG_CHARACTERS])

    def artifact(self, path: Path, name: str) -> None:
        """Copy a file into the store, under the directory that its name gives."""
        self._started()
        folder = Path(name).parent.as_posix()
        self._client.log_artifact(self._tracker_run_id, str(path), None if folder == "." else folder)

    def close(self, status: EndStatus) -> None:
        """End the run in MLflow."""
        self._started()
        self._client.set_terminated(self._tracker_run_id, status)

    def _started(self) -> MlflowLibrary:
        if self._library is None or self._tracker_run_id is None:
            raise RuntimeError("the MLflow sink was not started")
        return self._library

    def _experiment_id(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        location = (self._directory / ARTIFACTS_NAME).resolve().as_uri()
        return str(self._client.create_experiment(name, artifact_location=location))

    def _find(self, run: RunInfo, experiment_id: str) -> Any:
        """Return the MLflow run of an earlier process.

        By our own id: the earlier process may have died before MLflow's id reached a checkpoint, and a store that was
        deleted since does not know the id in the checkpoint.
        """
        known = run.tracker_run_ids.get(self.name)
        runs: Sequence[Any] = self._client.search_runs(
            [experiment_id],
            filter_string=f"tags.`{RUN_ID_TAG}` = '{run.run_id}'",
            order_by=["attributes.start_time ASC"],
        )
        living = [found for found in runs if GIVEN_UP_TAG not in found.data.tags] or runs
        return next((found for found in living if found.info.run_id == known), living[0] if living else None)

    def _create(self, run: RunInfo, more_tags: Mapping[str, str]) -> None:
        own = {RUN_ID_TAG: run.run_id, DIRECTORY_TAG: run.directory_name, "codex_ml.name": run.name}
        created = self._client.create_run(self._experiment, run_name=run.directory_name, tags={**own, **more_tags})
        self._tracker_run_id = created.info.run_id

    def _gives_up_steps(self) -> bool:
        step = None if self._run is None else self._run.resumed_step
        return step is not None and any(max(steps, default=0) > step for steps in self._known_steps.values())

    def _begin_another(self) -> None:
        """Keep the MLflow run as the record of the abandoned steps, and continue in a new one that names it."""
        run, parent = self._run, self._tracker_run_id
        assert run is not None, "the sink was started"
        assert run.resumed_step is not None, "steps are given up by a resume only"
        assert parent is not None, "only a run that was taken up has known steps"
        self._client.set_tag(parent, GIVEN_UP_TAG, str(run.resumed_step + 1))
        self._client.set_terminated(parent, "KILLED")
        self._create(run, {PARENT_TAG: parent, "mlflow.parentRunId": parent})
        self._known_params, self._known_steps = {}, {}

    def _take_up(self, existing: Any) -> None:
        run_id = str(existing.info.run_id)
        self._known_params = dict(existing.data.params)
        for key in existing.data.metrics:
            history = self._client.get_metric_history(run_id, key)
            self._known_steps[key] = {metric.step for metric in history}
        self._client.update_run(run_id, status="RUNNING")
        self._tracker_run_id = run_id


def create_mlflow_sink(directory: Path) -> MlflowSink:
    """Make the sink for the runs below a directory (the registry's factory)."""
    return MlflowSink(directory)


def _key(text: str) -> str:
    return _REFUSED_IN_KEYS.sub("_", text)[:_MAX_KEY_CHARACTERS]

"""Tests of the MLflow sink against a small store in memory; the real one is in tests/integration."""

from __future__ import annotations

import sqlite3
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from codex_ml.errors import UserError
from codex_ml.tracking.mlflow_sink import MlflowLibrary, MlflowSink, local_store_uri, require_local_store
from codex_ml.tracking.sinks import RunInfo

MOMENT = datetime(2026, 11, 3, 10, 0, tzinfo=UTC)
RUN = RunInfo(run_id="r1", name="demo", directory_name="20261103T100000Z-demo", experiment="trials")


class Store:
    """The part of MLflow's client that the sink uses, in memory, with MLflow's own rules about parameters."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, SimpleNamespace] = {}
        self.artifacts: list[tuple[str, str | None]] = []
        self.batch_sizes: list[int] = []

    def library(self) -> MlflowLibrary:
        """Return what `load_mlflow` would."""
        return MlflowLibrary(
            client=self._client,
            metric=lambda key, value, timestamp, step: SimpleNamespace(
                key=key, value=value, timestamp=timestamp, step=step
            ),
            param=lambda key, value: SimpleNamespace(key=key, value=value),
        )

    def _client(self, *, tracking_uri: str) -> Store:
        self.uris.append(tracking_uri)
        return self

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        """Find an experiment."""
        return SimpleNamespace(experiment_id="7") if name in self.experiments else None

    def create_experiment(self, name: str, artifact_location: str) -> str:
        """Make an experiment."""
        self.experiments[name] = artifact_location
        return "7"

    def create_run(self, experiment_id: str, run_name: str, tags: dict[str, str]) -> SimpleNamespace:
        """Make a run."""
        run_id = f"m{len(self.runs) + 1}"
        info = SimpleNamespace(run_id=run_id, experiment_id=experiment_id, run_name=run_name)
        data = SimpleNamespace(params={}, metrics={}, tags=tags)
        self.runs[run_id] = SimpleNamespace(info=info, data=data, history=[], status="RUNNING")
        return self.runs[run_id]

    def search_runs(self, experiment_ids: list[str], filter_string: str, order_by: list[str]) -> list[SimpleNamespace]:
        """Find runs by our tag."""
        assert (experiment_ids, order_by) == (["7"], ["attributes.start_time ASC"])
        wanted = filter_string.partition("= '")[2].rstrip("'")
        return [run for run in self.runs.values() if run.data.tags["codex_ml.run_id"] == wanted]

    def get_metric_history(self, run_id: str, key: str) -> list[Any]:
        """Return what a metric has seen."""
        return [metric for metric in self.runs[run_id].history if metric.key == key]

    def update_run(self, run_id: str, status: str) -> None:
        """Set the status."""
        self.runs[run_id].status = status

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        """Take metrics and parameters."""
        run = self.runs[run_id]
        self.batch_sizes.append(len(metrics) + len(params))
        for param in params:
            assert run.data.params.setdefault(param.key, param.value) == param.value, "a parameter cannot change"
        for metric in metrics:
            run.history.append(metric)
            run.data.metrics[metric.key] = metric.value

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        """Set a tag."""
        self.runs[run_id].data.tags[key] = value

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str | None) -> None:
        """Take a file."""
        assert run_id in self.runs
        self.artifacts.append((Path(local_path).name, artifact_path))

    def set_terminated(self, run_id: str, status: str) -> None:
        """End a run."""
        self.runs[run_id].status = status


@pytest.fixture
def store() -> Store:
    """Return an empty store."""
    return Store()


def started(directory: Path, store: Store, run: RunInfo = RUN) -> MlflowSink:
    """Return a sink with its run begun."""
    sink = MlflowSink(directory, load=store.library)
    sink.start(run)
    return sink


def test_start_new_run_links_run_and_directory_name(tmp_path: Path, store: Store) -> None:
    """Store and artifacts lie in the output directory; tags name the run, and no tag holds an absolute path."""
    sink = started(tmp_path, store)
    assert store.uris == [f"sqlite:///{tmp_path}/mlflow.db"]
    assert store.experiments == {"trials": (tmp_path / "mlartifacts").as_uri()}
    assert sink.tracker_run_id == "m1"
    assert store.runs["m1"].data.tags == {
        "codex_ml.run_id": "r1",
        "codex_ml.run_directory": "20261103T100000Z-demo",
        "codex_ml.name": "demo",
    }


def test_metrics_and_params_are_written_in_mlflows_terms(tmp_path: Path, store: Store) -> None:
    """The split leads the name, the time is the report's, odd characters and long values are fitted in."""
    sink = started(tmp_path, store)
    sink.metrics(3, {"loss": 1.5}, "valid", MOMENT)
    sink.metrics(3, {"lr:0": 0.1}, None, MOMENT)
    sink.params({"data.columns[x]": None, "long": "x" * 7000, "é" * 300: 1})
    first, second = store.runs["m1"].history
    assert (first.key, first.value, first.timestamp, first.step) == ("valid/loss", 1.5, 1793700000000, 3)
    assert second.key == "lr_0"
    assert store.runs["m1"].data.params == {"data.columns_x_": "None", "long": "x" * 6000, "_" * 250: "1"}


def test_params_many_are_written_in_batches_of_a_hundred(tmp_path: Path, store: Store) -> None:
    """MLflow takes at most a hundred parameters at once."""
    started(tmp_path, store).params({f"p{number}": number for number in range(250)})
    assert store.batch_sizes == [100, 100, 50]


def test_event_stop_becomes_a_tag_and_others_are_left_to_the_files(tmp_path: Path, store: Store) -> None:
    """MLflow shows why a run stopped; it is no event log."""
    sink = started(tmp_path, store)
    sink.event("saved", {"step": 1})
    sink.event("run_stopped", {"error_type": "NonFiniteError", "message": "loss is nan"})
    assert store.runs["m1"].data.tags["codex_ml.stopped_by"] == "NonFiniteError: loss is nan"
    assert len(store.runs["m1"].data.tags) == 4


def test_artifact_keeps_the_directory_of_its_name(tmp_path: Path, store: Store) -> None:
    """A file keeps its place relative to the run directory."""
    sink = started(tmp_path, store)
    sink.artifact(tmp_path / "config.yaml", "config.yaml")
    sink.artifact(tmp_path / "results.json", "eval/best/results.json")
    assert store.artifacts == [("config.yaml", None), ("results.json", "eval/best")]


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_close_status_is_passed_on(tmp_path: Path, store: Store, status: Any) -> None:
    """Each end has its word in MLflow."""
    started(tmp_path, store).close(status)
    assert store.runs["m1"].status == status


@pytest.mark.parametrize("known", [{"mlflow": "m1"}, {}, {"mlflow": "of another store"}])
def test_start_resumed_run_goes_on_in_it_and_skips_known_steps(
    tmp_path: Path, store: Store, known: dict[str, str]
) -> None:
    """The run is found by its id or our tag; steps and parameters that it has are not written again."""
    first = started(tmp_path, store)
    first.params({"seed": 0})
    for step in (1, 2, 4):
        first.metrics(step, {"loss": float(step)}, "train", MOMENT)
    first.close("KILLED")
    resumed = RunInfo("r1", "demo", "20261103T100000Z-demo", experiment="trials", resumed=True, tracker_run_ids=known)
    second = started(tmp_path, store, resumed)
    assert (second.tracker_run_id, store.runs["m1"].status) == ("m1", "RUNNING")
    second.params({"seed": 1, "run.resume_from": "latest"})
    for step in (2, 3, 4, 5):
        second.metrics(step, {"loss": float(step)}, "train", MOMENT)
    assert [metric.step for metric in store.runs["m1"].history] == [1, 2, 4, 3, 5]
    assert store.runs["m1"].data.params == {"seed": "0", "run.resume_from": "latest"}


def resumed_from(step: int) -> RunInfo:
    """Return the run as it goes on from a checkpoint that the first MLflow run wrote."""
    known = {"mlflow": "m1"}
    return RunInfo("r1", "demo", "d", experiment="trials", resumed=True, resumed_step=step, tracker_run_ids=known)


def test_params_changed_and_steps_given_up_begin_another_linked_run(tmp_path: Path, store: Store) -> None:
    """The curve of one MLflow run is never that of two futures; who resumes once more finds the living one."""
    first = started(tmp_path, store)
    first.params({"training.max_steps": 12})
    for step in range(1, 13):
        first.metrics(step, {"loss": float(step)}, "train", MOMENT)
    first.close("FINISHED")
    second = started(tmp_path, store, resumed_from(4))
    second.params({"training.max_steps": 30})
    second.metrics(5, {"loss": 0.5}, "train", MOMENT)
    assert second.tracker_run_id == "m2"
    assert store.runs["m1"].data.tags["codex_ml.given_up_from_step"] == "5"
    assert (len(store.runs["m1"].history), store.runs["m1"].status) == (12, "KILLED")
    assert store.runs["m2"].data.tags["codex_ml.parent_run_id"] == "m1"
    assert store.runs["m2"].data.params == {"training.max_steps": "30"}
    assert [(metric.step, metric.value) for metric in store.runs["m2"].history] == [(5, 0.5)]
    third = started(tmp_path, store, resumed_from(4))
    third.params({"training.max_steps": 30})
    assert third.tracker_run_id == "m2"


def test_params_same_future_or_no_step_given_up_goes_on_in_the_run_and_tags_what_changed(
    tmp_path: Path, store: Store
) -> None:
    """After a kill the steps are made again with equal numbers; an extension gives nothing up."""
    first = started(tmp_path, store)
    first.params({"training.max_steps": 6, "training.save_steps": 2})
    for step in range(1, 7):
        first.metrics(step, {"loss": float(step)}, "train", MOMENT)
    killed = started(tmp_path, store, resumed_from(4))
    killed.params({"training.max_steps": 6, "training.save_steps": 3})
    extended = started(tmp_path, store, resumed_from(6))
    extended.params({"training.max_steps": 9})
    assert (killed.tracker_run_id, extended.tracker_run_id) == ("m1", "m1")
    assert store.runs["m1"].data.tags["codex_ml.changed.training.save_steps"] == "3"
    assert store.runs["m1"].data.tags["codex_ml.changed.training.max_steps"] == "9"


def test_start_resumed_run_unknown_to_the_store_is_made_anew(tmp_path: Path, store: Store) -> None:
    """A store that was deleted meanwhile gets a new run."""
    started(tmp_path, store)
    other = RunInfo("r2", "demo", "d", experiment="trials", resumed=True, tracker_run_ids={"mlflow": "gone"})
    assert started(tmp_path, store, other).tracker_run_id == "m2"


def test_start_damaged_store_fails_at_once(tmp_path: Path, store: Store) -> None:
    """A file that is no SQLite store is an error right away, before MLflow would retry for minutes."""
    (tmp_path / "mlflow.db").write_text("this is no database, " * 100)
    with pytest.raises(sqlite3.Error):
        started(tmp_path, store)
    assert store.uris == []


def test_metrics_without_start_is_an_error(tmp_path: Path, store: Store) -> None:
    """Using the sink before its start is a fault of the caller."""
    with pytest.raises(RuntimeError, match="not started"):
        MlflowSink(tmp_path, load=store.library).metrics(1, {"loss": 1.0}, None, MOMENT)


def test_local_store_uri_strange_directory_is_escaped(tmp_path: Path) -> None:
    """Characters that a store URI would read as an escape or as options are escaped."""
    directory = tmp_path / "a%20b?c#é d"
    assert local_store_uri(directory) == f"sqlite:///{tmp_path}/a%2520b%3Fc#é d/mlflow.db"


@pytest.mark.parametrize("uri", ["http://tracker:5000", "https://x", "databricks", "postgresql://db/x", "file:///x"])
def test_require_local_store_other_kinds_are_refused(uri: str) -> None:
    """Only a local SQLite file is a store; the address of a server is not repeated in the message."""
    with pytest.raises(UserError, match="not a local MLflow store") as refused:
        require_local_store(uri)
    assert refused.value.exit_code == 2
    assert "tracker:5000" not in refused.value.block()


def test_require_local_store_sqlite_is_accepted() -> None:
    """A local SQLite file is what we use."""
    require_local_store("sqlite:////tmp/x.db")


def test_make_sink_does_not_import_mlflow(tmp_path: Path) -> None:
    """Making a sink is cheap: MLflow is imported when the run starts."""
    before = "mlflow" in sys.modules
    MlflowSink(tmp_path)
    assert ("mlflow" in sys.modules) == before

"""Tests of opening a context from the names in a configuration."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from codex_ml.errors import UserError
from codex_ml.monitoring.codex_logging import no_redaction, read_ndjson
from codex_ml.registry import Registry
from codex_ml.tracking.opening import TrackingDependencies, build_sinks, check_sinks, open_experiment
from codex_ml.tracking.sinks import RunInfo

RUN = RunInfo(run_id="r1", name="demo", directory_name="demo")


def nothing(*_arguments: Any) -> None:
    """Do nothing."""


def plugin(directory: Path) -> Any:
    """Return a sink that takes everything and remembers where its store would lie."""
    quiet = dict.fromkeys(("start", "params", "metrics", "event", "artifact", "close"), nothing)
    return SimpleNamespace(name="plugin", tracker_run_id=directory.name, **quiet)


def registry() -> Registry[Any]:
    """Return a registry with the real MLflow entry and one more."""
    sinks: Registry[Any] = Registry("tracking sink")
    sinks.register("plugin", plugin)
    sinks.register("mlflow", "codex_ml.tracking.mlflow_sink:create_mlflow_sink")
    return sinks


def dependencies(installed: bool = True, **environment: str) -> TrackingDependencies:
    """Return collaborators with or without the optional packages."""
    return TrackingDependencies(
        find_spec=lambda name: name if installed else None, registry=registry(), environment=environment
    )


def test_open_experiment_not_installed_sink_warns_and_runs(tmp_path: Path) -> None:
    """MLflow asked for and absent: one warning that says how to get it, and the run continues with NDJSON."""
    directory = tmp_path / "run"
    directory.mkdir()
    warnings: list[str] = []
    with open_experiment(
        RUN,
        directory,
        ["mlflow", "plugin"],
        redact=no_redaction,
        on_warning=warnings.append,
        dependencies=dependencies(installed=False),
    ) as context:
        context.log_metrics(1, {"loss": 1.0})
    status = context.sink_status()
    assert {name: sink["state"] for name, sink in status.items()} == {
        "ndjson": "closed",
        "plugin": "closed",
        "mlflow": "missing",
    }
    assert len(warnings) == 1
    assert "pip install 'codex-ml[tracking]'" in warnings[0]
    assert context.tracker_run_ids() == {"plugin": tmp_path.name}
    assert next(read_ndjson(directory / "metrics.ndjson"))["value"] == 1.0


def test_open_experiment_no_sinks_needs_nothing_else(tmp_path: Path) -> None:
    """The defaults give a run with its own files, rotated at the size asked for."""
    with open_experiment(RUN, tmp_path, redact=no_redaction, on_warning=pytest.fail, max_bytes=100) as context:
        for step in range(3):
            context.log_metrics(step, {"loss": 1.0})
    assert (tmp_path / "metrics.ndjson.2").exists()


def test_build_sinks_name_given_twice_is_made_once(tmp_path: Path) -> None:
    """The same tracker twice would write everything twice."""
    sinks, missing = build_sinks(["plugin", "plugin", "mlflow"], tmp_path, dependencies())
    assert [sink.name for sink in sinks] == ["plugin", "mlflow"]
    assert missing == []


def test_build_sinks_unknown_name_is_a_user_error(tmp_path: Path) -> None:
    """A misspelt sink is an error before the run, with what there is."""
    with pytest.raises(UserError, match="mlfow") as refused:
        build_sinks(["mlfow"], tmp_path, dependencies(installed=False))
    assert "mlflow" in refused.value.fix


def test_check_sinks_good_names_need_nothing_installed() -> None:
    """The check before a run looks at names only; what is not installed costs a warning later."""
    check_sinks(["mlflow", "plugin"], dependencies(installed=False))
    with pytest.raises(UserError, match="mlfow"):
        check_sinks(["mlfow"], dependencies())


def test_build_sinks_server_in_environment_is_refused(tmp_path: Path) -> None:
    """Whoever points MLflow at a server expects the run there; it must not go there, and that is said."""
    with pytest.raises(UserError, match="not a local MLflow store"):
        build_sinks(["mlflow"], tmp_path, dependencies(MLFLOW_TRACKING_URI="http://tracker:5000"))
    sinks, _ = build_sinks(["plugin"], tmp_path, dependencies(MLFLOW_TRACKING_URI="http://tracker:5000"))
    assert [sink.name for sink in sinks] == ["plugin"]


@pytest.mark.parametrize(
    "entry", ["no_such_package.module:create", lambda _directory: 1 / 0], ids=["import", "factory"]
)
def test_open_experiment_sink_that_cannot_be_made_fails_in_its_own_thread(tmp_path: Path, entry: Any) -> None:
    """Neither the check before the run nor the run itself imports or makes a sink: its faults are a warning."""
    sinks: Registry[Any] = Registry("tracking sink")
    sinks.register("broken", entry)
    found = TrackingDependencies(registry=sinks, environment={})
    check_sinks(["broken"], found)
    warnings: list[str] = []
    with open_experiment(
        RUN, tmp_path, ["broken"], redact=no_redaction, on_warning=warnings.append, dependencies=found
    ) as context:
        context.log_metrics(1, {"loss": 1.0})
    status = context.sink_status()["broken"]
    assert status["state"] == "failed"
    assert status["dropped"] > 0
    assert len(warnings) == 1
    assert "broken" in warnings[0]


def test_open_experiment_close_timeout_comes_from_the_dependencies(tmp_path: Path) -> None:
    """A hanging sink is left alone after the time that was given, by the caller or else by the collaborators."""
    never = threading.Event()
    sinks: Registry[Any] = Registry("tracking sink")
    sinks.register("hanging", lambda _directory: never.wait())
    found = TrackingDependencies(registry=sinks, environment={}, close_timeout_seconds=0.01)
    warnings: list[str] = []
    with open_experiment(
        RUN, tmp_path, ["hanging"], redact=no_redaction, on_warning=warnings.append, dependencies=found
    ) as context:
        pass
    assert context.sink_status()["hanging"]["state"] == "blocked"
    never.set()

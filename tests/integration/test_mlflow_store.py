"""The MLflow sink against the real library and a real SQLite store, in one process as a run has it."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import random, sys
from pathlib import Path
from codex_ml.offline import GUARD, go_offline
go_offline(); GUARD.activate()
from codex_ml.errors import InterruptedRun
from codex_ml.monitoring.codex_logging import no_redaction
from codex_ml.tracking.opening import open_experiment
from codex_ml.tracking.sinks import RunInfo

directory = Path(sys.argv[1]) / "20261103T100000Z-demo"
directory.mkdir(parents=True)
(directory / "config.yaml").write_text("a: 1\\n")
random.seed(7); state = random.getstate()

def run(resumed, steps, known=None, stop=False, resumed_step=None, **more):
    info = RunInfo("r1", "demo", directory.name, resumed=resumed, resumed_step=resumed_step,
                   tracker_run_ids=known or {})
    with open_experiment(info, directory, ["mlflow"], redact=no_redaction, on_warning=print,
                         close_timeout_seconds=120) as context:
        context.log_params({"training": {"seed": 0, **more}})
        for step in steps:
            context.log_metrics(step, {"loss": 1 / step}, split="train")
        context.log_artifact(directory / "config.yaml")
        if stop:
            raise InterruptedRun("asked to stop", 130, code="RUN_INTERRUPTED")
    assert context.sink_status()["mlflow"]["state"] == "closed", context.sink_status()
    assert context.sink_status()["mlflow"]["errors"] == 0, context.sink_status()
    return context.tracker_run_ids()

try:
    run(False, [1, 2, 3], stop=True)
except InterruptedRun:
    pass
ids = run(True, [3, 4])
assert random.getstate() == state, "the tracker drew from the random numbers of the run"

from mlflow import MlflowClient
from codex_ml.tracking.mlflow_sink import local_store_uri
client = MlflowClient(tracking_uri=local_store_uri(Path(sys.argv[1])))
found = client.get_run(ids["mlflow"])
assert found.info.status == "FINISHED", found.info.status
assert found.data.params == {"training.seed": "0"}, found.data.params
assert [m.step for m in client.get_metric_history(ids["mlflow"], "train/loss")] == [1, 2, 3, 4]
assert found.data.tags["codex_ml.run_id"] == "r1"
assert found.data.tags["codex_ml.stopped_by"] == "InterruptedRun: asked to stop"
assert [a.path for a in client.list_artifacts(ids["mlflow"])] == ["config.yaml"]
assert len(client.search_runs([found.info.experiment_id])) == 1

forked = run(True, [3, 4, 5], known=ids, resumed_step=2, seed=1)["mlflow"]
assert [m.step for m in client.get_metric_history(forked, "train/loss")] == [3, 4, 5]
assert [m.step for m in client.get_metric_history(ids["mlflow"], "train/loss")] == [1, 2, 3, 4]
assert client.get_run(forked).data.params == {"training.seed": "1"}
assert client.get_run(forked).data.tags["codex_ml.parent_run_id"] == ids["mlflow"]
given_up = client.get_run(ids["mlflow"])
assert (given_up.info.status, given_up.data.tags["codex_ml.given_up_from_step"]) == ("KILLED", "3")
print("as expected")
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="the extra 'tracking' is not installed")
def test_mlflow_store_interrupted_and_resumed_run_is_one_run(tmp_path: Path) -> None:
    """Stopped and resumed: one MLflow run, each step once, FINISHED, not a word; resumed otherwise: another, linked."""
    output = tmp_path / "runs é #1"
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "PYTEST_CURRENT_TEST")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(output)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "as expected\n"
    assert "mlflow" not in done.stderr.lower()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs é #1"]
    assert sorted(path.name for path in output.iterdir()) == ["20261103T100000Z-demo", "mlartifacts", "mlflow.db"]
    connection = sqlite3.connect(output / "mlflow.db")
    tags = connection.execute("select key, value from tags").fetchall()
    connection.close()
    assert not [value for _, value in tags if value.startswith("/") or "file:" in value]

"""Tests of the sink that is always there."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from codex_ml.errors import UserError
from codex_ml.monitoring.codex_logging import ndjson_files, no_redaction, read_ndjson
from codex_ml.registry import SINKS
from codex_ml.tracking.mlflow_sink import MlflowSink
from codex_ml.tracking.sinks import NdjsonSink, RunInfo

MOMENT = datetime(2026, 11, 3, 10, 0, tzinfo=UTC)
RUN = RunInfo(run_id="r1", name="demo", directory_name="20261103T100000Z-demo")


def started(directory: Path, max_bytes: int = 10_000) -> NdjsonSink:
    """Return a sink that has been told its run."""
    sink = NdjsonSink(directory, max_bytes, redact=no_redaction, clock=lambda: MOMENT)
    sink.start(RUN)
    return sink


def test_metrics_two_values_write_a_line_each(tmp_path: Path) -> None:
    """Every value has its own line with all the fields of the file format."""
    sink = started(tmp_path)
    sink.metrics(3, {"loss": 1.5, "tokens": 7}, "train", MOMENT)
    sink.close("FINISHED")
    common = {
        "schema_version": 1,
        "time": "2026-11-03T10:00:00.000000Z",
        "run_id": "r1",
        "step": 3,
        "split": "train",
    }
    assert list(read_ndjson(tmp_path / "metrics.ndjson")) == [
        {**common, "name": "loss", "value": 1.5},
        {**common, "name": "tokens", "value": 7},
    ]


def test_event_and_artifact_are_written_to_events(tmp_path: Path) -> None:
    """Events carry run and kind; an artifact is noted by its name in the run directory."""
    (tmp_path / "config.yaml").write_text("a: 1\n")
    sink = started(tmp_path)
    sink.params({"training.seed": 0})
    sink.artifact(tmp_path / "config.yaml", "config.yaml")
    sink.sync()
    records = list(read_ndjson(tmp_path / "events.ndjson"))
    assert [(record["run_id"], record["kind"]) for record in records] == [("r1", "params"), ("r1", "artifact")]
    assert records[0]["params"] == {"training.seed": 0}
    assert (records[1]["name"], records[1]["bytes"]) == ("config.yaml", 5)
    assert str(tmp_path) not in (tmp_path / "events.ndjson").read_text()


def test_event_field_named_kind_is_refused(tmp_path: Path) -> None:
    """A field cannot hide the event's own kind."""
    with pytest.raises(ValueError, match="kind"):
        started(tmp_path).event("a", {"kind": "b"})


def test_rewind_to_step_cuts_metrics_and_keeps_events(tmp_path: Path) -> None:
    """Metrics of later steps go; what happened stays."""
    sink = started(tmp_path, max_bytes=250)
    for step in range(1, 7):
        sink.metrics(step, {"loss": float(step)}, None, MOMENT)
        sink.event("saved", {"step": step})
    assert len(ndjson_files(tmp_path / "metrics.ndjson")) > 1
    assert sink.rewind_to_step(4) == 2
    sink.metrics(5, {"loss": 5.0}, None, MOMENT)
    assert [record["step"] for record in read_ndjson(tmp_path / "metrics.ndjson")] == [1, 2, 3, 4, 5]
    assert [record["step"] for record in read_ndjson(tmp_path / "events.ndjson")] == [1, 2, 3, 4, 5, 6]


def test_sinks_registry_knows_mlflow_and_suggests_it(tmp_path: Path) -> None:
    """The name in the configuration leads to the sink; a misspelt one is an error that helps."""
    assert isinstance(SINKS.get("mlflow")(tmp_path), MlflowSink)
    with pytest.raises(UserError) as refused:
        SINKS.get("mlfow")
    assert "mlflow" in refused.value.fix

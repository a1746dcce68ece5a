"""Tests of the experiment context: what sinks do never reaches the run, and every run has an end."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codex_ml.errors import DiskSpaceError, InterruptedRun, NonFiniteError, RunDirectoryGoneError
from codex_ml.monitoring.codex_logging import no_redaction, read_ndjson
from codex_ml.monitoring.dependencies import DependencyStatus
from codex_ml.tracking.context import AT_ONCE_SECONDS, ExperimentContext, end_status
from codex_ml.tracking.sinks import NdjsonSink, RunInfo

RUN = RunInfo(run_id="r1", name="demo", directory_name="20261103T100000Z-demo")


class RecordingSink:
    """Keeps everything it is told; ``on_call`` runs first and may raise or block."""

    def __init__(self, name: str = "recording", on_call: Callable[[str], None] = lambda _call: None) -> None:
        self.name = name
        self.tracker_run_id: str | None = f"{name}-id"
        self.told: list[tuple[Any, ...]] = []
        self._on_call = on_call

    def _tell(self, *what: Any) -> None:
        self._on_call(what[0])
        self.told.append(what)

    def start(self, run: RunInfo) -> None:
        """Keep the run's id."""
        self._tell("start", run.run_id)

    def params(self, values: Any) -> None:
        """Keep parameters."""
        self._tell("params", values)

    def metrics(self, step: int, metrics: Any, split: Any, time: Any) -> None:
        """Keep metrics."""
        self._tell("metrics", step, metrics, split, time)

    def event(self, kind: str, fields: Any) -> None:
        """Keep an event."""
        self._tell("event", kind, fields)

    def artifact(self, path: Any, name: str) -> None:
        """Keep the name of an artifact."""
        self._tell("artifact", path, name)

    def close(self, status: Any) -> None:
        """Keep the end."""
        self._tell("close", status)


def open_context(
    directory: Path, *sinks: Any, warnings: list[str] | None = None, redact: Any = no_redaction, **options: Any
) -> ExperimentContext:
    """Return a context over a directory with fakes for trackers."""
    shown = warnings if warnings is not None else []
    run = options.pop("run", RUN)
    local = NdjsonSink(directory, redact=redact)
    return ExperimentContext(run, local, sinks, redact=redact, on_warning=shown.append, **options)


def events(directory: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Return the events written so far."""
    return [record for record in read_ndjson(directory / "events.ndjson") if kind in (None, record["kind"])]


def test_context_normal_exit_reports_everything_and_finishes(tmp_path: Path) -> None:
    """Files and sink get the same reports, and both are told FINISHED."""
    (tmp_path / "config.yaml").write_text("a: 1\n")
    sink = RecordingSink()
    with open_context(tmp_path, sink) as context:
        assert context.run_id == "r1"
        context.log_params({"training": {"seed": 0}})
        context.log_metrics(1, {"loss": 2.5, "tokens": 3}, split="train")
        context.log_event("saved", step=1)
        context.emit({"kind": "safety_finding", "rule_id": "email"})
        context.log_artifact(tmp_path / "config.yaml")
    assert [event["kind"] for event in events(tmp_path)] == [
        *("run_started", "params", "saved", "safety_finding", "artifact", "sink_status", "run_ended")
    ]
    assert events(tmp_path, "run_ended")[0]["status"] == "FINISHED"
    assert [record["value"] for record in read_ndjson(tmp_path / "metrics.ndjson")] == [2.5, 3]
    assert ("params", {"training.seed": 0}) in sink.told
    assert sink.told[3][:4] == ("metrics", 1, {"loss": 2.5, "tokens": 3}, "train")
    assert sink.told[-1] == ("close", "FINISHED")
    assert events(tmp_path, "sink_status")[0]["sinks"]["recording"]["state"] == "closed"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(1), "KILLED"),
        (InterruptedRun("asked to stop", 130, code="TEST_ERROR"), "KILLED"),
        (NonFiniteError("loss is nan", code="TEST_ERROR"), "FAILED"),
        (MemoryError(), "FAILED"),
    ],
)
def test_context_exception_is_recorded_and_passes(tmp_path: Path, error: BaseException, status: str) -> None:
    """Each kind of end has its word, the exception is named, and it is never swallowed."""
    sink = RecordingSink()
    with pytest.raises(type(error)) as raised, open_context(tmp_path, sink):
        raise error
    assert raised.value is error
    assert events(tmp_path, "run_ended")[0]["status"] == status
    assert events(tmp_path, "run_stopped")[0]["error_type"] == type(error).__name__
    assert sink.told[-1] == ("close", status)
    assert end_status(error) == status


def test_context_raising_sink_changes_nothing_and_is_reported_once(tmp_path: Path) -> None:
    """A sink that raises at every call costs one warning; files are complete and the counts are told."""

    def on_call(call: str) -> None:
        if call != "start":
            raise OSError(f"cannot {call}")

    warnings: list[str] = []
    with open_context(tmp_path, RecordingSink(on_call=on_call), warnings=warnings) as context:
        for step in range(20):
            context.log_metrics(step, {"loss": 1.0})
    assert len(list(read_ndjson(tmp_path / "metrics.ndjson"))) == 20
    assert len(warnings) == 1
    assert "recording" in warnings[0]
    status = events(tmp_path, "sink_status")[0]["sinks"]["recording"]
    assert (status["state"], status["errors"], status["last_error"]) == ("failed", 22, "OSError: cannot close")
    assert len(events(tmp_path, "sink_warning")) == 1
    assert events(tmp_path, "run_ended")[0]["status"] == "FINISHED"


def test_context_sink_that_never_returns_delays_neither_log_nor_close(tmp_path: Path) -> None:
    """A sleeping sink fills its queue, loses counted reports, and the run closes in the agreed time."""
    release = threading.Event()
    warnings: list[str] = []
    sleeper = RecordingSink("sleeper", on_call=lambda _call: release.wait(60) and None)
    healthy = RecordingSink("healthy")
    before = time.monotonic()
    with open_context(
        tmp_path, sleeper, healthy, warnings=warnings, queue_limit=10, close_timeout_seconds=0.2
    ) as context:
        for step in range(5):
            context.log_metrics(step, {"loss": 1.0})
        assert context.tracker_run_ids().get("sleeper") is None
    took = time.monotonic() - before
    status = context.sink_status()
    release.set()
    assert took < 50
    assert (status["sleeper"]["state"], status["sleeper"]["dropped"]) == ("blocked", 6)
    assert (status["healthy"]["state"], status["healthy"]["dropped"]) == ("closed", 0)
    assert status["ndjson"]["state"] == "closed"
    assert len(list(read_ndjson(tmp_path / "metrics.ndjson"))) == 5
    assert any("sleeper is blocked" in warning for warning in warnings)


def test_context_full_queue_counts_drops(tmp_path: Path) -> None:
    """What finds no place in the queue is counted, and the user told once."""
    release = threading.Event()
    warnings: list[str] = []
    sink = RecordingSink(on_call=lambda _call: release.wait(60) and None)
    context = open_context(tmp_path, sink, warnings=warnings, queue_limit=3)
    for step in range(10):
        context.log_metrics(step, {"loss": 1.0})
    assert context.sink_status()["recording"]["dropped"] == 8
    release.set()
    context.close()
    assert context.sink_status()["recording"]["dropped"] == 8
    assert len(warnings) == 1


def test_context_missing_sink_is_one_structured_warning(tmp_path: Path) -> None:
    """A tracker that is not installed: what, what is lost, how to install; the run continues."""
    warnings: list[str] = []
    missing = DependencyStatus("mlflow", "missing", "the local store", "pip install 'codex-ml[tracking]'")
    with open_context(tmp_path, warnings=warnings, missing=[missing]) as context:
        context.log_metrics(1, {"loss": 1.0})
        assert context.sink_status()["mlflow"]["state"] == "missing"
        assert context.tracker_run_ids() == {}
    event = events(tmp_path, "sink_missing")
    assert len(event) == 1
    assert (event[0]["dependency"], event[0]["feature_lost"]) == ("mlflow", "the local store")
    assert event[0]["how_to_install"] == "pip install 'codex-ml[tracking]'"
    assert len(warnings) == 1
    assert "codex-ml[tracking]" in warnings[0]
    assert events(tmp_path, "run_ended")[0]["status"] == "FINISHED"


@pytest.mark.safety
def test_context_secret_reaches_no_file_and_no_sink(tmp_path: Path) -> None:
    """Parameters, events, error messages of the run and of sinks pass the filter before anybody gets them."""

    def redact(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: redact(item) for key, item in value.items()}
        if isinstance(value, list):
            return [redact(item) for item in value]
        return value.replace("hunter2", "***") if isinstance(value, str) else value

    def on_call(call: str) -> None:
        if call == "artifact":
            raise OSError("cannot read hunter2")

    (tmp_path / "config.yaml").write_text("a: 1\n")
    warnings: list[str] = []
    sink = RecordingSink(on_call=on_call)

    def run() -> None:
        with open_context(tmp_path, sink, warnings=warnings, redact=redact) as context:
            context.log_params({"run": {"name": "hunter2"}})
            context.log_event("note", texts=["hunter2"], where=Path("hunter2"))
            context.log_artifact(tmp_path / "config.yaml")
            raise ValueError("bad record: hunter2")

    with pytest.raises(ValueError, match="hunter2"):
        run()
    written = "".join(file.read_text() for file in tmp_path.iterdir())
    assert "hunter2" not in written + repr(sink.told) + repr(warnings)
    assert "bad record: ***" in written
    assert "cannot read ***" in written


@pytest.mark.safety
def test_context_broken_filter_does_not_hide_the_runs_error(tmp_path: Path) -> None:
    """A filter that fails at the very end lets nothing pass, and the run's own exception is the one raised."""
    warnings: list[str] = []
    works = [True]

    def redact(value: Any) -> Any:
        if not works[0]:
            raise RuntimeError("filter down")
        return value

    sink = RecordingSink()

    def run() -> None:
        with open_context(tmp_path, sink, warnings=warnings, redact=redact):
            works[0] = False
            raise ValueError("the cause")

    with pytest.raises(ValueError, match="the cause") as first:
        run()
    assert "the cause" not in (tmp_path / "events.ndjson").read_text()
    assert sink.told[-1] == ("close", "FAILED")
    assert len(first.value.__notes__) == 1
    assert "filter" in first.value.__notes__[0]
    assert warnings == []


def test_context_full_disk_is_an_error_of_the_run(tmp_path: Path) -> None:
    """The run's own files are part of the run: when they cannot be written it fails, and trackers are told so."""

    class FullDisk(NdjsonSink):
        def metrics(self, step: int, metrics: Any, split: Any, time: Any) -> None:
            raise DiskSpaceError(f"no room for {step} {metrics} {split} {time}", code="TEST_ERROR")

    sink = RecordingSink()
    local = FullDisk(tmp_path, redact=no_redaction)
    context = ExperimentContext(RUN, local, [sink], redact=no_redaction, on_warning=pytest.fail)
    with pytest.raises(DiskSpaceError), context:
        context.log_metrics(1, {"loss": 1.0})
    assert sink.told[-1] == ("close", "FAILED")


def test_context_end_that_cannot_be_written_is_an_error_of_a_good_run(tmp_path: Path) -> None:
    """A run that went well and cannot say so has not gone well; one that failed keeps its own error."""

    class NoEvents(NdjsonSink):
        def event(self, kind: str, fields: Any) -> None:
            if kind in ("run_ended", "run_stopped"):
                raise DiskSpaceError("no room", code="TEST_ERROR")
            super().event(kind, fields)

    def run(directory: Path, error: BaseException | None) -> None:
        directory.mkdir()
        local = NoEvents(directory, redact=no_redaction)
        with ExperimentContext(RUN, local, redact=no_redaction, on_warning=warnings.append):
            if error is not None:
                raise error

    warnings: list[str] = []
    with pytest.raises(DiskSpaceError):
        run(tmp_path / "good", None)
    assert warnings == []
    with pytest.raises(ValueError, match="the cause") as first:
        run(tmp_path / "bad", ValueError("the cause"))
    assert first.value.__notes__ == ["also: the end of the run could not be logged: no room"]
    with pytest.raises(RunDirectoryGoneError, match="removed") as gone:
        run(tmp_path / "gone", RunDirectoryGoneError("removed", code="TEST_ERROR"))
    assert not hasattr(gone.value, "__notes__")
    assert warnings == []


def test_context_left_at_once_waits_a_second_for_a_tracker_at_most(tmp_path: Path) -> None:
    """A second Ctrl-C: the tracker hangs, and nobody waits the half minute that a run in order would give it."""
    hanging = threading.Event()
    sink = RecordingSink(on_call=lambda call: hanging.wait() and None if call == "close" else None)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), open_context(tmp_path, sink):
        raise KeyboardInterrupt
    assert time.monotonic() - started < AT_ONCE_SECONDS + 25
    hanging.set()


def test_log_metrics_after_close_is_an_error(tmp_path: Path) -> None:
    """A report that comes after the end is a fault of the caller and not lost in silence."""
    context = open_context(tmp_path)
    context.close()
    with pytest.raises(ValueError, match="closed"):
        context.log_metrics(1, {"loss": 1.0})


def test_log_metrics_caller_changes_dictionary_later_sinks_keep_the_values(tmp_path: Path) -> None:
    """Sinks see the values of the moment, whatever the caller does with its dictionary afterwards."""
    gate = threading.Event()
    sink = RecordingSink(on_call=lambda _call: gate.wait(60) and None)
    with open_context(tmp_path, sink) as context:
        metrics = {"loss": 1.0}
        context.log_metrics(1, metrics)
        metrics["loss"] = 99.0
        fields = {"inner": [1]}
        context.log_event("note", **fields)
        fields["inner"].append(2)
        gate.set()
    assert [told[2] for told in sink.told if told[0] == "metrics"] == [{"loss": 1.0}]
    assert ("event", "note", {"inner": [1]}) in sink.told


def test_log_metrics_nan_is_null_in_files_and_nan_for_sinks(tmp_path: Path) -> None:
    """NDJSON names the NaN; a tracker that can hold NaN gets it."""
    sink = RecordingSink()
    with open_context(tmp_path, sink) as context:
        context.log_metrics(1, {"loss": math.nan})
        context.log_event("stopped", loss=math.inf)
    assert next(read_ndjson(tmp_path / "metrics.ndjson"))["non_finite"] == {"value": "nan"}
    assert events(tmp_path, "stopped")[0]["non_finite"] == {"loss": "inf"}
    assert math.isnan(next(told[2]["loss"] for told in sink.told if told[0] == "metrics"))


def test_rewind_to_step_resumed_run_cuts_metrics_and_says_so(tmp_path: Path) -> None:
    """A second process goes on in the same files, from the step of the checkpoint."""
    first = open_context(tmp_path)
    for step in (1, 2, 3):
        first.log_metrics(step, {"loss": float(step)})
    first.close("KILLED")
    resumed = RunInfo("r1", "demo", "d", resumed=True, tracker_run_ids={"recording": "earlier", "other": "o1"})
    sink = RecordingSink()
    sink.tracker_run_id = None
    with open_context(tmp_path, sink, run=resumed) as context:
        assert context.tracker_run_ids() == {"recording": "earlier", "other": "o1"}
        context.rewind_to_step(2)
        context.log_metrics(3, {"loss": 3.0})
    assert [record["step"] for record in read_ndjson(tmp_path / "metrics.ndjson")] == [1, 2, 3]
    assert (events(tmp_path, "rewound")[0]["step"], events(tmp_path, "rewound")[0]["removed_lines"]) == (2, 1)
    assert [event["status"] for event in events(tmp_path, "run_ended")] == ["KILLED", "FINISHED"]


def test_log_params_tracker_that_begins_another_run_is_said_and_remembered(tmp_path: Path) -> None:
    """A tracker sees by the parameters that the resumed run has another future: its new id is what checkpoints hold."""

    class ForkingSink(RecordingSink):
        def params(self, values: Any) -> None:
            super().params(values)
            self.tracker_run_id = "another"

    resumed = RunInfo("r1", "demo", "d", resumed=True, resumed_step=4, tracker_run_ids={"recording": "recording-id"})
    with open_context(tmp_path, ForkingSink(), run=resumed) as context:
        context.log_params({"training": {"max_steps": 30}})
    assert context.tracker_run_ids() == {"recording": "another"}
    (said,) = events(tmp_path, "tracker_run_changed")
    assert (said["sink"], said["before"], said["now"]) == ("recording", "recording-id", "another")


def test_close_twice_writes_one_end(tmp_path: Path) -> None:
    """Closing by hand inside the with block is allowed, and the first word counts."""
    with open_context(tmp_path) as context:
        context.close("FAILED")
        context.close("FINISHED")
    assert [event["status"] for event in events(tmp_path, "run_ended")] == ["FAILED"]


def test_log_params_redact_loses_the_mapping_is_refused(tmp_path: Path) -> None:
    """A filter that returns something else than a mapping is a fault, not a log line."""
    context = open_context(tmp_path)
    context._redact = str
    with pytest.raises(TypeError, match="redact"):
        context.log_params({"a": 1})

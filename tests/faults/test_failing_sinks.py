"""A tracker that raises, hangs, cannot be made or is missing changes nothing of a run but what is said about it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from codex_ml.registry import Registry
from codex_ml.tracking.opening import TrackingDependencies

pytestmark = pytest.mark.slow

CALLS = ("start", "params", "metrics", "event", "artifact", "close")


class UnshowableError(Exception):
    """An exception that cannot even be turned into text."""

    def __str__(self) -> str:
        raise ValueError("no text")


class FaultySink:
    """A sink that does what it is told in the calls it is told of, and nothing in the others."""

    def __init__(self, faulty: tuple[str, ...], fault: Callable[[], None]) -> None:
        self.name = "mlflow"
        self.tracker_run_id = "t1"
        for call in CALLS:
            setattr(self, call, self._method(fault if call in faulty else lambda: None))

    def _method(self, behave: Callable[[], None]) -> Callable[..., None]:
        def method(*_arguments: Any) -> None:
            behave()

        return method


def raising(error: BaseException) -> Callable[[], None]:
    """Return a fault that raises."""

    def fault() -> None:
        raise error

    return fault


def tracking(make_sink: Callable[[Any], Any] | str, *, installed: bool = True) -> TrackingDependencies:
    """Return collaborators in which a sink stands under the name that configurations know."""
    registry: Registry[Any] = Registry("tracking sink")
    registry.register("mlflow", make_sink)
    return TrackingDependencies(
        find_spec=lambda name: name if installed else None, registry=registry, environment={}, close_timeout_seconds=0.5
    )


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """Return an event that is set only when the test is over; who waits for it hangs as long as the run can see."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(scope="module")
def undisturbed(trainer_in, tmp_path_factory) -> Any:
    """Return a run without any tracker."""
    return trainer_in(tmp_path_factory.mktemp("undisturbed"))()


@pytest.mark.parametrize(
    ("faulty", "error", "state"),
    [
        (CALLS, RuntimeError("the tracker is broken"), "failed"),
        (("params", "metrics", "event", "artifact"), RuntimeError("the tracker is broken"), "closed"),
        (("metrics",), SystemExit(3), "closed"),
        (("event",), UnshowableError(), "closed"),
        (("close",), OSError("gone"), "failed"),
    ],
    ids=["every call", "every report", "leaves the process", "no text", "at the end"],
)
def test_sink_that_raises_leaves_the_adapter_as_it_is(train_here, undisturbed, faulty, error, state):
    """The adapter has the bytes of a run without the sink; the run is FINISHED, and says once what the sink did."""
    run = train_here("tracking.sinks=[mlflow]", tracking=tracking(lambda _: FaultySink(faulty, raising(error))))
    assert run.weights() == undisturbed.weights()
    assert run.record()["status"] == "FINISHED"
    (event,) = run.events("sink_status")
    status = event["sinks"]["mlflow"]
    assert status["state"] == state
    assert status["errors"] >= 1
    assert status["last_error"].startswith(type(error).__name__)
    assert (status["dropped"] > 0) == ("start" in faulty)
    assert len([line for line in run.said if "tracking sink mlflow" in line]) == 1


@pytest.mark.parametrize("hangs_in", ["start", "metrics", "close"])
def test_sink_that_never_returns_leaves_the_adapter_as_it_is(train_here, undisturbed, never, hangs_in):
    """The run ends although the sink does not, FINISHED, with the bytes of a run without it, and counts its drops."""
    sink = FaultySink((hangs_in,), lambda: never.wait() and None)
    run = train_here("tracking.sinks=[mlflow]", tracking=tracking(lambda _: sink))
    assert not never.is_set()
    assert run.weights() == undisturbed.weights()
    assert run.record()["status"] == "FINISHED"
    (event,) = run.events("sink_status")
    assert event["sinks"]["mlflow"]["state"] == "blocked"
    assert (event["sinks"]["mlflow"]["dropped"] > 0) == (hangs_in != "close")
    assert len([line for line in run.said if "tracking sink mlflow is blocked" in line]) == 1


@pytest.mark.parametrize(
    "entry", [raising(RuntimeError("no room")), "no_such_package.module:create"], ids=["factory raises", "no module"]
)
def test_sink_that_cannot_be_made_costs_a_warning(train_here, undisturbed, entry):
    """A sink is made and imported in its own thread, so that failing there is no failure of the run either."""
    make = entry if isinstance(entry, str) else lambda _: entry()
    run = train_here("tracking.sinks=[mlflow]", tracking=tracking(make))
    assert run.weights() == undisturbed.weights()
    assert run.record()["status"] == "FINISHED"
    assert run.events("sink_status")[0]["sinks"]["mlflow"]["state"] == "failed"


def test_sink_that_is_not_installed_is_one_structured_warning(train_here, undisturbed):
    """The run says what is missing, what is lost and how to get it, on the screen and in its events, and goes on."""
    run = train_here("tracking.sinks=[mlflow]", tracking=tracking(pytest.fail, installed=False))
    assert run.weights() == undisturbed.weights()
    (event,) = run.events("sink_missing")
    assert event["dependency"] == "mlflow"
    assert event["state"] == "missing"
    assert event["feature_lost"] == "tracking in a local MLflow store"
    assert event["how_to_install"] == "pip install 'codex-ml[tracking]'"
    (warning,) = [line for line in run.said if line.startswith("warning:")]
    assert event["feature_lost"] in warning
    assert event["how_to_install"] in warning


def test_system_metrics_stand_in_the_log_at_log_steps(undisturbed):
    """Memory and CPU load are sampled where a line of the log is due, under a split of their own."""
    lines = [line for line in undisturbed.lines("metrics.ndjson") if line["split"] == "system"]
    assert {line["step"] for line in lines} == {2, 4}
    assert {line["name"] for line in lines} == {"resident_bytes", "available_bytes", "cpu_percent"}


HANGING_PACKAGE = "import time\nwhile True:\n    time.sleep(3600)\n"


@pytest.mark.full("faults")
def test_mlflow_that_never_returns_from_its_import_does_not_keep_the_process(
    command_line, tmp_path, tiny_llama_directory, small_records
):
    """Through the real registry and sink, as a user runs it: the process ends with 0 while its thread hangs."""
    package = tmp_path / "fake" / "mlflow"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(HANGING_PACKAGE, encoding="utf-8")
    answer = command_line.run(
        "train",
        f"model.path={tiny_llama_directory}",
        f"data.path={small_records}",
        "tracking.sinks=[mlflow]",
        "training.max_steps=2",
        directory=tmp_path,
        PYTHONPATH=str(package.parent),
    )
    assert answer.returncode == 0, answer.stderr
    assert "tracking sink mlflow is blocked, the run continues" in answer.stderr
    (record,) = tmp_path.glob("runs/*/run.json")
    assert '"FINISHED"' in record.read_text("utf-8")

"""An MLflow store that is locked, garbage or a directory costs a warning: the adapter is the same, the status told."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from codex_ml.tracking.opening import TrackingDependencies

pytest.importorskip("mlflow", reason="the tracker is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(trainer_in, tmp_path_factory):
    """Return a run without any tracker."""
    return trainer_in(tmp_path_factory.mktemp("undisturbed"))()


def locked(store: Path) -> sqlite3.Connection:
    """Return a connection that holds an exclusive lock on a store."""
    connection = sqlite3.connect(store, isolation_level=None)
    connection.execute("CREATE TABLE taken (id INTEGER)")
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def garbage(store: Path) -> None:
    """Write what is no database."""
    store.write_bytes(b"no SQLite file " * 1000)


def cut(store: Path) -> None:
    """Write a database that lost its end."""
    with sqlite3.connect(store) as connection:
        connection.execute("CREATE TABLE runs (id TEXT)")
        connection.executemany("INSERT INTO runs VALUES (?)", [("x" * 500,)] * 100)
    connection.close()
    store.write_bytes(store.read_bytes()[:5000])


def directory(store: Path) -> None:
    """Put a directory into its place."""
    store.mkdir()


@pytest.mark.parametrize("damage", [locked, garbage, cut, directory])
def test_mlflow_store_that_cannot_be_used_costs_a_warning_and_not_a_byte(
    train_here, undisturbed, tmp_path, damage: Callable[[Path], object]
):
    """The run ends FINISHED with the bytes of a run without tracker; what became of the sink stands in its events."""
    runs = tmp_path / "runs"
    runs.mkdir()
    held = damage(runs / "mlflow.db")
    before = (runs / "mlflow.db").read_bytes() if damage is not directory else b""
    tracking = TrackingDependencies(close_timeout_seconds=60.0)
    run = train_here("tracking.sinks=[mlflow]", tracking=tracking)
    assert run.weights() == undisturbed.weights()
    assert run.record()["status"] == "FINISHED"
    (event,) = run.events("sink_status")
    assert event["sinks"]["mlflow"]["state"] == "failed"
    assert event["sinks"]["mlflow"]["dropped"] > 0
    (warning,) = [line for line in run.said if "tracking sink mlflow" in line]
    assert "the run continues" in warning or "failed" in warning
    if damage is not directory:
        # Somebody may mend it yet: nothing was written into it.
        assert (runs / "mlflow.db").read_bytes() == before
    if isinstance(held, sqlite3.Connection):
        held.close()

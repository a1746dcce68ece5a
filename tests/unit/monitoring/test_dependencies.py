"""Tests of the dependency probe: there, not installed, and no driver are three things."""

from __future__ import annotations

import pytest

from codex_ml.monitoring.dependencies import PACKAGES, probe_dependencies, probe_dependency


def absent(_name: str) -> None:
    """Find no module."""


def present(name: str) -> object:
    """Find every module."""
    return name


def test_probe_dependencies_nothing_installed_all_missing() -> None:
    """Each missing package says what is lost and how to get it; no driver is looked for."""
    statuses = probe_dependencies(absent, driver_present=lambda: pytest.fail("asked for a driver"))
    assert [status.name for status in statuses] == list(PACKAGES)
    assert {status.state for status in statuses} == {"missing"}
    assert all(status.feature_lost and status.how_to_install.startswith("pip install") for status in statuses)


def test_probe_dependencies_all_installed_with_driver_all_available() -> None:
    """With every package and a driver nothing is amiss."""
    assert {status.state for status in probe_dependencies(present, lambda: True)} == {"available"}


def test_probe_dependencies_pynvml_without_driver_is_no_driver() -> None:
    """A package without its driver is not the same as no package, and has another remedy."""
    states = {status.name: status for status in probe_dependencies(present, lambda: False)}
    assert states["pynvml"].state == "no_driver"
    assert "driver" in states["pynvml"].how_to_install
    assert "pip" not in states["pynvml"].how_to_install
    assert states["mlflow"].state == "available"


def test_probe_dependency_missing_mlflow_gives_event_and_line() -> None:
    """The warning exists as structured fields and as one line for a person."""
    status = probe_dependency("mlflow", absent)
    assert status.as_event() == {
        "dependency": "mlflow",
        "state": "missing",
        "feature_lost": "tracking in a local MLflow store",
        "how_to_install": "pip install 'codex-ml[tracking]'",
    }
    assert status.message().startswith("mlflow is not installed; lost: tracking")


def test_probe_dependencies_real_machine_answers() -> None:
    """The real probe runs on this machine, whatever it has, and finds psutil, which the toolkit requires."""
    assert {status.name: status.state for status in probe_dependencies()}["psutil"] == "available"

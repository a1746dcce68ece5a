"""Only the user's command lifts the network guard, with a warning; the config of a run never does."""

from __future__ import annotations

from pathlib import Path

import pytest

from codex_ml.config.compose import Composed, compose
from codex_ml.config.run_file import compose_from_run_file, write_run_config
from codex_ml.config.validate import validate_generate, validate_train
from codex_ml.offline import NetworkGuard
from codex_ml.recipes.network import lift_guard_if_asked, without_recorded_network


@pytest.fixture
def foreign_run(tmp_path: Path, tiny_llama_directory: Path, small_records: Path) -> Path:
    """Return the config.yaml of a run that was trained with the network."""
    overrides = [f"model.path={tiny_llama_directory}", f"data.path={small_records}", "offline=false"]
    config = validate_train(compose("train", "default", None, overrides, tmp_path, {}))
    write_run_config(config, tmp_path / "config.yaml")
    return tmp_path / "config.yaml"


def generate_from(run: Path, *overrides: str, environment: dict[str, str] | None = None) -> Composed:
    """Compose the config of `generate` from a run, as the command does."""
    return without_recorded_network(
        compose_from_run_file("generate", run, overrides, run.parent, environment=environment or {})
    )


def test_without_recorded_network_config_of_a_run_does_not_lift_the_guard(foreign_run, capsys):
    """The recorded value is ignored; a warning and the origin of the value say so."""
    composed = generate_from(foreign_run)
    assert validate_generate(composed).offline
    assert "run does not lift" in composed.origins["offline"]
    assert "offline: false in config.yaml is not taken over" in capsys.readouterr().err.replace(
        f"{foreign_run.parent}/", ""
    )
    guard = NetworkGuard()
    guard.active = True
    lift_guard_if_asked(validate_generate(composed), composed, guard, turn_switches_off=lambda: None)
    assert guard.active
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("overrides", "environment", "origin"),
    [
        (["offline=false"], {}, "command line"),
        ([], {"CODEX_ML_OVERRIDES": '{"offline": false}'}, "CODEX_ML_OVERRIDES"),
    ],
)
def test_lift_guard_if_asked_setting_of_the_user_lifts_the_guard_with_a_warning(
    foreign_run, capsys, overrides, environment, origin
):
    """The setting is on the command line or in the environment of the command."""
    composed = generate_from(foreign_run, *overrides, environment=environment)
    guard = NetworkGuard()
    guard.active = True
    lift_guard_if_asked(validate_generate(composed), composed, guard, turn_switches_off=lambda: None)
    assert not guard.active
    said = capsys.readouterr().err
    assert said == f"warning: offline: false ({origin}): connections to other machines are allowed\n"


def test_without_recorded_network_no_network_overrides_the_setting_of_the_user(foreign_run, capsys):
    """NO_NETWORK=1 takes precedence over every setting."""
    composed = generate_from(foreign_run, "offline=false", environment={"NO_NETWORK": "1"})
    assert validate_generate(composed).offline
    assert capsys.readouterr().err == ""

"""`codex-ml evaluate`: which run is meant, and what it says when a checkpoint brings no config with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from codex_ml.io.atomic import Storage
from codex_ml.runs.checkpoints import checkpoint_name
from codex_ml.runs.layout import RunLayout, create_run
from codex_ml.runs.manifest import write_manifest


def moved_checkpoint(directory: Path) -> Path:
    """Write a small whole checkpoint that is not inside a run directory."""
    checkpoint = directory / "elsewhere" / "adapter"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_text("3")
    write_manifest(checkpoint, {"step": 3, "kind": "adapter"}, Storage())
    return checkpoint


def test_evaluate_moved_checkpoint_without_config_hints_at_config_name(command_line, tmp_path):
    """Whoever moved a checkpoint is told how to name its config; one block, exit 2."""
    checkpoint = moved_checkpoint(tmp_path)
    answer = command_line.run("evaluate", "--checkpoint", str(checkpoint), directory=tmp_path)
    assert answer.returncode == 2
    assert answer.stderr.count("error:") == 1
    assert f"--checkpoint: {checkpoint} is not inside a run directory" in answer.stderr
    assert "--config-dir RUN --config-name config" in answer.stderr
    assert "model.path: no model is given" in answer.stderr


def test_evaluate_other_faults_are_not_blamed_on_the_moved_checkpoint(command_line, tmp_path):
    """A misspelt key has nothing to do with where the checkpoint lies; nor has the base without a model."""
    checkpoint = moved_checkpoint(tmp_path)
    given = [f"model.path={tmp_path}", f"data.test={tmp_path / 'd.jsonl'}", "eval.spilt=test"]
    answer = command_line.run("evaluate", "--checkpoint", str(checkpoint), *given, directory=tmp_path)
    assert (answer.returncode, "is not inside a run directory" in answer.stderr) == (2, False)
    answer = command_line.run("evaluate", "--checkpoint", "base", directory=tmp_path)
    assert (answer.returncode, "is not inside a run directory" in answer.stderr) == (2, False)


def run_with_checkpoint(directory: Path, name: str, hour: int) -> RunLayout:
    """Make a run below ``directory / "runs"`` with a config that names the data of the directory and one checkpoint."""
    layout, _ = create_run(
        directory / "runs", name, datetime(2026, 11, 22, 12, tzinfo=UTC) + timedelta(hours=hour), Storage()
    )
    checkpoint = layout.checkpoints / checkpoint_name(3)
    checkpoint.mkdir()
    (checkpoint / "weights").write_text(name)
    write_manifest(checkpoint, {"step": 3, "kind": "adapter"}, Storage())
    values = f"run: {{name: {name}}}\nmodel: {{path: {directory / 'base'}}}\ndata: {{test: {directory / 'd.jsonl'}}}\n"
    layout.config.write_text(f"# @package _global_\n{values}", "utf-8")
    return layout


@pytest.fixture
def two_runs(tmp_path: Path, tiny_llama_directory: Path) -> tuple[RunLayout, RunLayout]:
    """Return an older run `notes` and a newer run `orders` in one directory."""
    (tmp_path / "d.jsonl").write_text('{"prompt": "Who? ", "completion": "red"}\n', "utf-8")
    (tmp_path / "base").symlink_to(tiny_llama_directory)
    return run_with_checkpoint(tmp_path, "notes", 0), run_with_checkpoint(tmp_path, "orders", 1)


@pytest.mark.parametrize("pointer", ["best", "latest"])
def test_evaluate_run_name_given_selects_the_run_and_the_plan_names_it(command_line, tmp_path, two_runs, pointer):
    """A name on the command line or in the environment is of the run to score, however new another is."""
    notes, orders = two_runs
    asked = ("evaluate", "--checkpoint", pointer, "--dry-run")
    for answer, run in (
        (command_line.run(*asked, directory=tmp_path), orders),
        (command_line.run(*asked, "run.name=notes", directory=tmp_path), notes),
        (command_line.run(*asked, directory=tmp_path, CODEX_ML_OVERRIDES='{"run": {"name": "notes"}}'), notes),
    ):
        assert answer.returncode == 0, answer.stderr
        assert f"# would evaluate on test: {run.directory.name}/step-00000003" in answer.stdout


def test_evaluate_run_name_unknown_is_refused_with_the_names_there(command_line, tmp_path, two_runs):
    """No other run is scored in its place; exit 2."""
    del two_runs
    answer = command_line.run("evaluate", "--checkpoint", "best", "run.name=ntoes", directory=tmp_path)
    assert answer.returncode == 2
    assert "no run named 'ntoes' with a checkpoint" in answer.stderr
    assert "did you mean run.name=notes? the names there are orders, notes" in answer.stderr

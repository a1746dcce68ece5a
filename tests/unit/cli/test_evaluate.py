"""`codex-ml evaluate`: what it says when a checkpoint brings no config with it."""

from __future__ import annotations

from pathlib import Path

from codex_ml.runs.manifest import write_manifest
from codex_ml.storage import Storage


def moved_checkpoint(directory: Path) -> Path:
    """Write a small whole checkpoint that lies in no run."""
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
    assert f"--checkpoint: {checkpoint} lies in no run" in answer.stderr
    assert "--config-dir RUN --config-name config" in answer.stderr
    assert "model.path: no model is given" in answer.stderr


def test_evaluate_other_faults_are_not_blamed_on_the_moved_checkpoint(command_line, tmp_path):
    """A misspelt key has nothing to do with where the checkpoint lies; nor has the base without a model."""
    checkpoint = moved_checkpoint(tmp_path)
    given = [f"model.path={tmp_path}", f"data.test={tmp_path / 'd.jsonl'}", "eval.spilt=test"]
    answer = command_line.run("evaluate", "--checkpoint", str(checkpoint), *given, directory=tmp_path)
    assert (answer.returncode, "lies in no run" in answer.stderr) == (2, False)
    answer = command_line.run("evaluate", "--checkpoint", "base", directory=tmp_path)
    assert (answer.returncode, "lies in no run" in answer.stderr) == (2, False)

"""Several files with weights as a user trains on them: scored, verified, and not resumed under other weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_train_several_files_with_weights_is_verified_and_scored(
    command_line, tmp_path: Path, tiny_llama_directory: Path
) -> None:
    """Two files of one name in two directories; the run names both, and each can be moved."""
    for directory, word in (("notes", "cups"), ("web", "pages")):
        rows = [{"prompt": f"number {index} ", "completion": f"{2 * index} {word}"} for index in range(60)]
        (tmp_path / directory).mkdir()
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / directory / "data.jsonl").write_text(text, encoding="utf-8")
    given = [
        f"model.path={tiny_llama_directory}",
        "data.files={notes: notes/data.jsonl, web: web/data.jsonl}",
        "training.max_steps=2",
        "training.save_steps=1",
    ]
    answer = command_line.run("train", *given, "data.weights={notes: 2, web: 0.5}", directory=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "repetitions (data.weights)" in answer.stdout + answer.stderr
    (run,) = (tmp_path / "runs").glob("*-run")
    shown = str(run.relative_to(tmp_path))
    assert command_line.run("runs", "verify", shown, directory=tmp_path).returncode == 0
    assert command_line.run("evaluate", "--checkpoint", "best", directory=tmp_path).returncode == 0
    other = command_line.run("train", *given, "--resume-from", "latest", "data.weights={notes: 3}", directory=tmp_path)
    assert other.returncode == 2
    assert "data.weights" in other.stderr
    (tmp_path / "notes" / "data.jsonl").rename(tmp_path / "moved.jsonl")
    assert command_line.run("runs", "verify", shown, directory=tmp_path).returncode == 2
    moved = command_line.run("runs", "verify", shown, "--data", "files.notes=moved.jsonl", directory=tmp_path)
    assert moved.returncode == 0, moved.stderr

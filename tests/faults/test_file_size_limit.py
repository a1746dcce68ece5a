"""`ulimit -f`: each command names the file-size limit, and only a training run advises to resume."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from programs import run_program

pytestmark = pytest.mark.slow

LIMIT = "the file-size limit of this process"


def run_limited(directory: Path, kibibytes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command with a limit on the size of each file; Python would truncate its own bytecode files, too."""
    program = [sys.executable, "-B", "-m", "codex_ml.cli.main", *arguments]
    return run_program(["bash", "-c", f'ulimit -f {kibibytes} && exec "$@"', "bash", *program], directory)


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Return a file of about 400 kB."""
    file = tmp_path / "records.jsonl"
    rows = (json.dumps({"prompt": f"Question {number}? ", "completion": "a " * 100}) for number in range(1600))
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "split", "records.jsonl", "--out", "made"],
        ["data", "redact", "--input", "records.jsonl", "--output", "made.jsonl"],
        ["data", "manifest", "records.jsonl"],
        ["data", "prepare", "text", "--source", "records.jsonl", "--out", "made"],
    ],
)
@pytest.mark.usefixtures("records")
def test_file_size_limit_outside_of_training_is_named_for_what_it_is(tmp_path, arguments):
    """Exit code 1 and one error block that mentions neither a full disk nor resuming; no partial output is left."""
    limit = 8 if "manifest" in arguments else 64
    answer = run_limited(tmp_path, limit, *arguments)
    assert answer.returncode == 1, answer.stderr
    assert answer.stderr.count("error:") == 1, answer.stderr
    assert LIMIT in answer.stderr
    assert "fix: raise the limit (ulimit -f)" in answer.stderr
    assert "disk is full" not in answer.stderr
    assert "resume" not in answer.stderr
    # A manifest is written before its offsets; the next call detects the missing offsets and writes both again.
    assert {entry.name for entry in tmp_path.iterdir()} - {"records.jsonl.manifest.json"} == {"records.jsonl"}


def test_file_size_limit_in_training_is_named_and_the_run_can_be_resumed(tmp_path, tiny_llama_directory, small_records):
    """The checkpoint exceeds the limit: the error names the limit and the option that resumes the run."""
    arguments = [f"model.path={tiny_llama_directory}", f"data.path={small_records}", "training.max_steps=2"]
    answer = run_limited(tmp_path, 16, "train", *arguments)
    assert answer.returncode == 1, answer.stderr
    assert LIMIT in answer.stderr
    assert "raise the limit (ulimit -f)" in answer.stderr
    assert "--resume-from latest" in answer.stderr

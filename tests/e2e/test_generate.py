"""`codex-ml generate` as a user runs it, without a network: the texts of evaluate, files, conversations, bad usage."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(isolated_command_line, tmp_path_factory, tiny_llama_directory, small_records):
    """Return (working directory, run directory) after a short training and an evaluation of its best checkpoint."""
    directory = tmp_path_factory.mktemp("user")
    for arguments in (
        (
            "train",
            f"model.path={tiny_llama_directory}",
            f"data.path={small_records}",
            "training.max_steps=4",
            "training.learning_rate=1e-2",
        ),
        ("evaluate", "eval.max_new_tokens=8", "eval.metrics=[f1]"),
    ):
        answer = isolated_command_line.run(*arguments, directory=directory)
        assert answer.returncode == 0, answer.stderr
    (run,) = (path for path in (directory / "runs").iterdir() if (path / "run.json").exists())
    return directory, run


def predictions(run: Path) -> dict[str, str]:
    """Return what the evaluation of a run had the model say, by record."""
    (file,) = (run / "eval").glob("step-*/predictions.ndjson")
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return {line["record_id"]: line["prediction"] for line in lines}


def test_generate_texts_are_those_of_evaluate(isolated_command_line, trained, small_records, tmp_path):
    """A file and a single prompt: same checkpoint, same prompt, same text. A second time the output is not lost."""
    directory, run = trained
    output = tmp_path / "answers.jsonl"
    command = ("generate", "--input", str(small_records), "--output", str(output), "--max-new-tokens", "8")
    answer = isolated_command_line.run(*command, directory=directory)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.rstrip().split("\n")[-1] == f"outputs: {output}"
    answers = {row["record_id"]: row for row in map(json.loads, output.read_text("utf-8").splitlines())}
    expected = predictions(run)
    assert len(answers) == 60
    assert expected
    assert {name: answers[name]["text"] for name in expected} == expected
    report = json.loads((tmp_path / "answers.jsonl.report.json").read_text("utf-8"))
    assert report["model"]["checkpoint"].startswith(run.name)
    before = output.read_bytes()
    again = isolated_command_line.run(*command, directory=directory)
    assert (again.returncode, output.read_bytes()) == (2, before)
    assert "exists" in again.stderr
    one = isolated_command_line.run(
        "generate", "--prompt", "What is 0 plus 1? ", "--max-new-tokens=8", directory=directory
    )
    assert one.returncode == 0, one.stderr
    assert one.stdout == answers["records.jsonl:1"]["text"] + "\n"


def test_generate_conversation_from_standard_input(isolated_command_line, trained):
    """Two turns, two answers, end of input; nothing of it stays on the disk."""
    directory, _ = trained
    files = sorted(directory.rglob("*"))
    answer = subprocess.run(
        isolated_command_line.command("generate", "--chat", "--max-new-tokens", "4", "--temperature", "0.8"),
        cwd=directory,
        input="Who?\nAnd then?\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("\n") >= 2
    assert sorted(directory.rglob("*")) == files


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "nothing is given to be answered"),
        (("--prompt", "a", "--input", "x"), "not clear what is to be answered"),
        (("--input", "x"), "--input needs --output"),
        (("--prompt", "a", "--system", "b"), "--system has no effect without --chat"),
        (("--prompt", "a", "--overwrite"), "--overwrite has no effect"),
        (("--prompt", "a", "--model", ".", "--checkpoint", "best"), "both say what answers"),
        (("--prompt", "a", "--temperature", "-1"), "generation.temperature"),
        (("--prompt", "a", "training.epochs=3"), "training.epochs: has no effect on generate"),
        (("--prompt", "a", "data.train=x.jsonl"), "data.train: has no effect on generate"),
        (("--prompt", "a", "generation.temprature=1"), "generation.temprature"),
    ],
)
def test_generate_unclear_wishes_are_refused(command_line, trained, arguments, words):
    """One block, exit code 2, no traceback."""
    directory, _ = trained
    answer = command_line.run("generate", *arguments, directory=directory)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr

"""Bad input on the command line: one error block, the right exit code, no traceback, nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def _broken_line(directory: Path) -> Path:
    file = directory / "broken.jsonl"
    rows = [json.dumps({"prompt": f"p{n}", "completion": f"c{n}"}) for n in range(1, 10)]
    rows[6] = '{"prompt": "p7", "completion": '
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return file


def _empty_completion(directory: Path) -> Path:
    file = directory / "hollow.jsonl"
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": ""}, {"prompt": "d", "completion": "e"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def _empty_file(directory: Path) -> Path:
    file = directory / "empty.jsonl"
    file.touch()
    return file


def _assert_refused(answer, directory: Path, code: int, *words: str) -> None:
    assert answer.returncode == code, answer.stderr
    assert answer.stderr.count("error:") == 1
    assert "Traceback" not in answer.stderr
    for word in words:
        assert word in answer.stderr
    assert answer.stdout == ""
    assert not (directory / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["training.lerning_rate=1"], ["training.lerning_rate", "learning_rate"]),
        (["adapter.rank=4", "lr=1"], ["adapter.rank", "adapter.r", "lr", "training.learning_rate"]),
        (["model.path=nowhere/at/all"], ["model.path", "nowhere"]),
        (["data.path=nowhere.jsonl"], ["data.path", "nowhere.jsonl"]),
        (["training.max_steps=0"], ["training.max_steps"]),
        (["--resume-from", "nowhere/run"], ["run.resume_from", "nowhere/run"]),
        (["--config-name", "examples/minimall"], ["examples/minimal"]),
        (["+model._target_=os.system"], ["_target_"]),
    ],
)
def test_train_config_problem_exits_2(command_line, tmp_path, tiny_llama_directory, small_records, arguments, words):
    """A fault in the configuration is named with its dotted key and what to do."""
    given = [f"model.path={tiny_llama_directory}", f"data.path={small_records}", *arguments]
    answer = command_line.run("train", *given, directory=tmp_path)
    _assert_refused(answer, tmp_path, 2, *words)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make_file", "words"),
    [
        (_broken_line, ["broken.jsonl:7"]),
        (_empty_completion, ["hollow.jsonl:2", "completion"]),
        (_empty_file, ["empty.jsonl"]),
    ],
)
def test_train_broken_data_names_file_and_line(command_line, tmp_path, tiny_llama_directory, make_file, words):
    """A fault in the data is named with file and line, and no run directory is made."""
    file = make_file(tmp_path)
    answer = command_line.run("train", f"model.path={tiny_llama_directory}", f"data.path={file}", directory=tmp_path)
    _assert_refused(answer, tmp_path, 2, *words)


@pytest.mark.slow
def test_train_diverging_run_stops_before_the_step(command_line, tmp_path, tiny_llama_directory, small_records):
    """A learning rate of a million ends in exit 1, a FAILED run, and only whole checkpoints."""
    answer = command_line.run(
        "train",
        f"model.path={tiny_llama_directory}",
        f"data.path={small_records}",
        "training.max_steps=30",
        "training.learning_rate=1e6",
        "training.save_steps=1",
        directory=tmp_path,
    )
    assert answer.returncode == 1, answer.stderr
    assert answer.stderr.count("error:") == 1
    assert "not finite" in answer.stderr or "exactly zero" in answer.stderr
    assert "records.jsonl:" in answer.stderr
    assert "Traceback" not in answer.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "run.json").read_text())["status"] == "FAILED"
    for entry in (run / "checkpoints").iterdir():
        assert not entry.name.startswith(".staging")
        assert entry.is_file() or (entry / "manifest.json").is_file()

"""The door of the toolkit: what its help says, and what it must not import."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "peft", "mlflow", "sacrebleu")


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["evaluate", "--help"], ["validate", "--help"]])
def test_help_exits_0_without_heavy_imports(arguments, tmp_path):
    """Help of every command answers without importing what takes seconds."""
    program = (
        "import sys\n"
        "from codex_ml.cli.main import app\n"
        "code = 0\n"
        f"try:\n    app({arguments!r}, prog_name='codex-ml')\n"
        "except SystemExit as stop:\n    code = stop.code or 0\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not heavy, heavy\n"
        "sys.exit(code)\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "Usage" in answer.stdout


@pytest.mark.parametrize("command", [["train"], ["evaluate", "--checkpoint", "base"]])
def test_absent_model_is_refused_without_heavy_imports(command, tmp_path, small_records):
    """A model that is not in the cache is named before seconds are spent on imports."""
    arguments = [*command, "model.name=no/such", f"data.path={small_records}"]
    program = (
        "import sys\n"
        "from codex_ml.cli.main import app\n"
        f"try:\n    app({arguments!r}, prog_name='codex-ml')\n"
        "except SystemExit as stop:\n    code = stop.code or 0\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not heavy, heavy\n"
        "sys.exit(code)\n"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path)}
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert answer.returncode == 2, answer.stderr
    assert "model.name: no/such is not in the Hugging Face cache" in answer.stderr


def test_train_help_names_lora_resume_and_examples(command_line, tmp_path):
    """The help covers adapter settings, resume, dry run and usage examples."""
    answer = command_line.run("train", "--help", directory=tmp_path)
    for word in ("adapter.r", "--resume-from", "--dry-run", "--config-name", "KEY=VALUE", "examples/minimal"):
        assert word in answer.stdout, word


def test_unknown_option_exits_2(command_line, tmp_path):
    """A misspelt option is refused, not taken for an override."""
    answer = command_line.run("train", "--resum-from", "latest", directory=tmp_path)
    assert answer.returncode == 2
    assert "--resum" in answer.stderr


def test_name_that_is_not_utf_8_exits_2_and_says_which(command_line, tmp_path):
    """What no record of a run could name is refused before anything is done with it."""
    name = os.fsdecode(b"caf\xe9.jsonl")
    (tmp_path / name).write_text('{"text": "a"}\n', encoding="utf-8")
    answer = command_line.run("data", "split", name, "--out", "parts", directory=tmp_path)
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: argument 3 is not UTF-8: caf\\udce9.jsonl\n")
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_working_directory_that_is_not_utf_8_exits_2(command_line, tmp_path):
    """So is the place that relative paths resolve against."""
    directory = tmp_path / os.fsdecode(b"d\xe9")
    directory.mkdir()
    answer = command_line.run("runs", "list", directory=directory)
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: the working directory is not UTF-8:")


def test_working_directory_that_is_gone_leaves_the_help(tmp_path):
    """A directory that was removed is no reason for a traceback."""
    command = f'mkdir gone && cd gone && rmdir ../gone && "{sys.executable}" -m codex_ml.cli.main'
    answer = subprocess.run(
        ["sh", "-c", f"{command} --help && {command} runs list"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert "Usage" in answer.stdout
    assert "Traceback" not in answer.stderr

"""Names that neither a shell nor Hydra's grammar takes bare, on every command, through plain path options."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

# Everything at once: what works with all of it works with each.
AWKWARD = "-a b'c\"d=e,f(g)[h]{i} $j #k ${run.name} \u00e9\u4e2d~%!*?;&|<>\\\nx"
SINGLE = [
    "a b",
    "a'b",
    'a"b',
    "a=b",
    "a,b",
    "a (1)",
    "donn\u00e9es",
    "-a",
    "--data-path=x",
    "a[0]{b}",
    "$a",
    "${a}",
    "#a",
    "~a",
    "null",
    "1e3",
    "a\\b",
    "a\nb",
    "\u65e5\u672c",
]


def _records(file: Path) -> Path:
    rows = [{"prompt": f"number {index} ", "completion": f"is {2 * index}"} for index in range(40)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def _assert_done(answer) -> str:
    assert answer.returncode == 0, answer.stderr
    assert "Traceback" not in answer.stderr
    return answer.stdout


@pytest.mark.parametrize("name", SINGLE)
def test_data_split_and_validate_awkward_name_works(command_line, tmp_path: Path, name: str) -> None:
    """One awkward thing at a time, for the file, the output directory and the configuration."""
    source = _records(tmp_path / f"{name}.jsonl")
    _assert_done(command_line.run("data", "split", "--out", f"{name} out", "--", source.name, directory=tmp_path))
    parts = (tmp_path / f"{name} out").glob("*.jsonl")
    assert sorted(line for part in parts for line in part.read_bytes().splitlines()) == sorted(
        source.read_bytes().splitlines()
    )
    paths = ["--data-path", source.name, "--model-path", name, "--output-dir", name]
    _assert_done(command_line.run("validate", "--config-name", "default", *paths, directory=tmp_path))


@pytest.mark.slow
def test_every_command_awkward_names_everywhere_works(command_line, tmp_path: Path, tiny_llama_directory: Path) -> None:
    """Working directory, model, data, runs and configs: trained, resumed, scored, shown and verified."""
    here = tmp_path / f"w{AWKWARD}"
    here.mkdir()
    model = here / AWKWARD
    shutil.copytree(tiny_llama_directory, model)
    source = _records(here / f"{AWKWARD}.jsonl")
    paths = ["--model-path", AWKWARD, "--data-path", source.name, "--output-dir", f"{AWKWARD} runs"]
    short = ["training.max_steps=2", "training.save_steps=1", "training.eval_steps=1"]
    _assert_done(command_line.run("train", "--dry-run", *paths, *short, directory=here))
    assert not (here / f"{AWKWARD} runs").exists()
    _assert_done(command_line.run("train", *paths, *short, directory=here))
    (run,) = (path for path in (here / f"{AWKWARD} runs").iterdir() if (path / "run.json").is_file())
    given = ["--output-dir", f"{AWKWARD} runs"]
    assert "finished" in _assert_done(
        command_line.run("train", "--resume-from", "latest", *paths, *short, directory=here)
    )
    _assert_done(command_line.run("evaluate", "--checkpoint", "best", *given, "eval.max_new_tokens=2", directory=here))
    assert "FINISHED" in _assert_done(command_line.run("runs", "list", *given, directory=here))
    relative = f"{AWKWARD} runs/{run.name}"
    _assert_done(command_line.run("runs", "show", "--", relative, directory=here))
    _assert_done(command_line.run("runs", "verify", "--", relative, directory=here))
    _assert_done(command_line.run("configs", "copy", "examples/minimal", "--", f"{AWKWARD} configs", directory=here))
    several = ["--data-file", f"a={AWKWARD}.jsonl", "--model-path", AWKWARD]
    _assert_done(command_line.run("train", "--dry-run", *several, directory=here))
    configs = ["--config-dir", f"{AWKWARD} configs", "--config-name", "minimal"]
    _assert_done(command_line.run("validate", *configs, directory=here))


def test_train_awkward_override_is_refused_with_the_plain_option(command_line, tmp_path: Path) -> None:
    """A name that the grammar cannot take bare comes back with two ways to write it."""
    answer = command_line.run("train", "model.path=m", "data.path=a (1).jsonl", directory=tmp_path)
    assert answer.returncode == 2
    assert "--data-path 'a (1).jsonl'" in answer.stderr

"""The Python API trains, evaluates and generates, with records from files and from memory."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from codex_ml.api import Run, evaluate, generate, load_config, train
from codex_ml.errors import CodexError, ConfigError, NetworkBlockedError
from codex_ml.offline import GUARD, OFFLINE_SWITCHES
from codex_ml.training.hooks import HookResult

ADAPTER = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def settings(tiny_llama_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Return the settings of a two-step run."""
    return {
        "model.path": tiny_llama_directory,
        "run.output_dir": tmp_path_factory.mktemp("api") / "runs",
        "training.max_steps": 2,
        "training.warmup_steps": 0,
        "training.eval_steps": 1,
        "training.save_steps": 1,
        "eval.metrics": ["loss", "exact_match"],
        "eval.max_new_tokens": 4,
    }


@pytest.fixture(scope="module")
def rows(small_records: Path) -> list[dict[str, Any]]:
    """Return the records as dicts."""
    return [json.loads(line) for line in small_records.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def run(settings: dict[str, object], small_records: Path) -> Run:
    """Return a run that was trained on a file."""
    return train(load_config(overrides={**settings, "data.path": small_records}))


@pytest.fixture(scope="module")
def memory_run(settings: dict[str, object], rows: list[dict[str, Any]]) -> Run:
    """Return a run that was trained on records in memory."""
    datasets = pytest.importorskip("datasets")
    config = load_config(overrides={**settings, "run.name": "memory"})
    return train(config, train_records=rows[:40], validation_records=datasets.Dataset.from_list(rows[40:50]))


class Recorder:
    """A callback that looks at the process during a step."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.steps: list[int] = []
        self.umask = -1
        self.block = ""

    def before_step(self, step: int) -> None:  # noqa: ARG002 - interface
        """Record umask and guard."""
        self.umask = os.umask(0o077)
        with pytest.raises(NetworkBlockedError) as blocked:
            socket.create_connection(("192.0.2.1", 80), timeout=1)
        self.block = blocked.value.what
        if self.error is not None:
            raise self.error

    def after_step(self, step: int, metrics: Mapping[str, float]) -> HookResult | None:  # noqa: ARG002 - interface
        """Record the step."""
        self.steps.append(step)
        return None


def test_train_adapter_equals_the_one_of_the_command_line(run, settings, small_records, command_line, tmp_path):
    """Both give the same bytes for the same settings."""
    overrides = [
        f"{key}={json.dumps(value) if isinstance(value, list) else value}"
        for key, value in {**settings, "run.output_dir": tmp_path / "runs", "data.path": small_records}.items()
    ]
    done = command_line.run("train", *[text.replace('"', "") for text in overrides], directory=tmp_path)
    assert done.returncode == 0, done.stderr
    (adapter,) = (tmp_path / "runs").glob(f"*/checkpoints/step-00000002/{ADAPTER}")
    assert (run.directory / "checkpoints/step-00000002" / ADAPTER).read_bytes() == adapter.read_bytes()


def test_train_result_has_directory_checkpoint_and_metrics(run):
    """The result names the best checkpoint and the last value of each metric."""
    assert run.best_checkpoint.parent == run.directory / "checkpoints"
    assert {"loss", "validation_loss"} <= set(run.metrics)
    assert run.directory.stat().st_mode & 0o077 == 0


def test_evaluate_and_generate_return_data(run):
    """Scores are numbers by name; an answer is text with its finish reason."""
    scores = evaluate(run, split="test")
    assert set(scores.metrics) == {"loss", "exact_match"}
    assert scores.predictions
    (answer,) = generate(run, ["What is 1 plus 2? "], overrides={"generation.max_new_tokens": 3})
    assert answer.finish_reason in {"stop", "length"}


def test_train_records_in_memory_leave_no_file_and_verify_says_so(memory_run, command_line, tmp_path):
    """Provenance has their digest; verify and reproduce report that they are not on disk."""
    assert list((memory_run.directory.parent / ".memory-records").iterdir()) == []
    splits = json.loads((memory_run.directory / "provenance.json").read_text("utf-8"))["data"]["splits"]
    assert splits["train"]["source"]["digest"]
    for command, options in (("verify", ()), ("reproduce", ("--into", "again"))):
        done = command_line.run("runs", command, str(memory_run.directory), *options, directory=tmp_path)
        assert "passed in memory and are not on disk" in done.stdout + done.stderr, done.stdout + done.stderr


def test_train_records_in_memory_can_resume(memory_run, settings, rows):
    """Equal records have an equal path and digest, so that the resume check accepts them."""
    config = load_config(overrides={**settings, "run.name": "memory", "training.max_steps": 3})
    with pytest.raises(CodexError):
        train(config, train_records=rows[:39], validation_records=rows[40:50], resume_from=memory_run.directory)
    again = load_config(overrides={**settings, "run.name": "memory"})
    same = train(again, train_records=rows[:40], validation_records=rows[40:50], resume_from=memory_run.directory)
    assert same.directory == memory_run.directory


def test_evaluate_takes_records_in_memory(memory_run, rows):
    """Records replace the split of the run; without them, the missing split is reported."""
    assert "loss" in evaluate(memory_run, records=rows[50:]).metrics
    with pytest.raises(CodexError):
        evaluate(memory_run, split="valid")


def test_train_output_goes_to_logging(settings, rows, caplog, capfd):
    """Neither standard output nor the error stream gets a line; the logger gets the progress."""
    with caplog.at_level("INFO", logger="codex_ml"):
        train(load_config(overrides={**settings, "run.name": "log", "training.eval_steps": None}), train_records=rows)
    assert tuple(capfd.readouterr()) == ("", "")
    assert any(message.startswith("step 2/2") for message in caplog.messages)


@pytest.mark.parametrize("error", [None, KeyError("callback")])
def test_train_guard_and_umask_are_active_and_restored(settings, rows, error):
    """During a step both are active; afterwards the previous state is back, also after an exception."""
    before = dict(os.environ), GUARD.active, os.umask(0o022)
    recorder = Recorder(error)
    config = load_config(overrides={**settings, "run.name": "guard", "training.eval_steps": None})
    try:
        if error is None:
            train(config, train_records=rows, callbacks=[recorder])
            assert recorder.steps == [1, 2]
        else:
            with pytest.raises(KeyError):
                train(config, train_records=rows, callbacks=[recorder])
    finally:
        after = os.umask(before[2])
    assert recorder.umask == 0o077
    assert "192.0.2.1" in recorder.block
    assert (after, GUARD.active) == (0o022, before[1])
    assert {name: value for name, value in os.environ.items() if name in before[0]} == before[0]


def test_load_config_unknown_key_is_an_error(small_records, settings):
    """Problems of a configuration are raised, not printed."""
    with pytest.raises(ConfigError):
        load_config(overrides={**settings, "data.path": small_records, "training.max_stepz": 1})


def test_python_api_tutorial_runs_as_printed(tiny_llama_directory, repository_root, tmp_path):
    """The code blocks of the page run one after the other in a new process."""
    page = (repository_root / "docs" / "tutorials" / "python-api.md").read_text("utf-8")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "base").symlink_to(tiny_llama_directory)
    script = "\n".join(re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "training.max_stepz" in done.stdout


def test_evaluate_works_with_libraries_that_were_imported_before(run, tmp_path):
    """Hub libraries that were imported online are offline during a call and online afterwards."""
    script = f"""
import datasets.config, huggingface_hub, transformers
from huggingface_hub import constants
from codex_ml.api import evaluate
assert not constants.HF_HUB_OFFLINE
assert evaluate({str(run.directory)!r}).metrics
assert not constants.HF_HUB_OFFLINE and not datasets.config.HF_HUB_OFFLINE
"""
    online = {name: value for name, value in os.environ.items() if name not in OFFLINE_SWITCHES}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=online, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

"""Stop signals whose exception is lost, and real signals during the start of training: the command still ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from programs import run_program

from codex_ml.cli.boundary import run_command
from codex_ml.io.stopping import STOP

pytestmark = pytest.mark.slow

INTERRUPTED = Path(__file__).with_name("interrupted_import.py")
# The start of a training on a slow machine; `make test` tries every 40th offset.
OFFSETS = [number * 0.05 for number in range(200)]
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


def lose(number: signal.Signals) -> None:
    """Send a signal to this process and suppress the exception of its handler, as a library or a destructor can."""
    with contextlib.suppress(BaseException):
        os.kill(os.getpid(), number)
        for _ in range(100):
            pass


def run_interrupted(module: str, *arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line that gets SIGTERM in the import of a module, and aborts if the handler raises there."""
    return run_program([sys.executable, str(INTERRUPTED), module, *arguments], directory)


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("codex_ml.recipes.data.validate", ["data", "validate", "records.jsonl"]),
        ("codex_ml.recipes.data.stats", ["data", "stats", "records.jsonl"]),
        ("codex_ml.recipes.data.redact", ["data", "redact", "--input", "records.jsonl", "--output", "made.jsonl"]),
        ("codex_ml.data.splits.command", ["data", "split", "records.jsonl", "--out", "made"]),
        ("codex_ml.data.inspect.offsets", ["data", "manifest", "records.jsonl", "--output", "made.json"]),
    ],
)
def test_stop_signal_in_an_import_ends_a_data_command_before_it_reads(tmp_path, small_records, module, arguments):
    """The handler raises after the imports, not in them: exit code 143 and no output file."""
    (tmp_path / "records.jsonl").write_bytes(small_records.read_bytes())
    ended = run_interrupted(module, *arguments, directory=tmp_path)
    assert (ended.returncode, ended.stdout) == (143, ""), ended.stderr
    assert ended.stderr == "error: stopped by SIGTERM; nothing half-written is left\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["records.jsonl"]


@pytest.mark.parametrize("command", ["train", "evaluate", "generate", "serve"])
def test_stop_signal_in_an_import_ends_a_command_with_a_model_before_it_loads(
    tmp_path, tiny_llama_directory, small_records, command
):
    """The imports take seconds, so most early signals arrive there: exit code 143 and no run directory."""
    arguments = {
        "train": [f"data.path={small_records}", "training.max_steps=1000000"],
        "evaluate": ["--checkpoint", "base", f"data.test={small_records}", "data.path=null", "eval.metrics=[loss]"],
        "generate": ["--checkpoint", "base", "--prompt", "What is 1 plus 2?"],
        "serve": ["serve.port=0"],
    }
    ended = run_interrupted(
        "peft", command, f"model.path={tiny_llama_directory}", *arguments[command], directory=tmp_path
    )
    assert (ended.returncode, ended.stdout) == (143, ""), ended.stderr
    assert ended.stderr == "error: stopped by SIGTERM; checkpoints that were written are whole\n"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def end_of(capsys) -> Callable[[Callable[[], object]], tuple[int, str]]:
    """Return a function that runs the body of a command in this process and returns exit code and error output."""

    def end(job: Callable[[], object]) -> tuple[int, str]:
        def body() -> int:
            job()
            return 0

        with pytest.raises(typer.Exit) as left:
            run_command(body)
        return left.value.exit_code, capsys.readouterr().err

    return end


def losing_at(beginning: str, number: signal.Signals, said: list[str]) -> Callable[[str], None]:
    """Return a function that records the lines of a job and loses a signal at the first line with this beginning."""

    def emit(line: str) -> None:
        if line.startswith(beginning) and not any(earlier.startswith(beginning) for earlier in said):
            lose(number)
        said.append(line)

    return emit


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stop_signal_lost_before_the_run_exists_ends_training_at_the_next_stage(train_here, end_of, number):
    """The signal arrives while the plan is printed: no kernel is tried and no run directory is created."""
    said: list[str] = []
    tried: list[object] = []

    def find_nondeterministic_ops(*arguments: object, **_options: object) -> object:
        tried.append(arguments)
        raise AssertionError("the stage after the signal has begun")

    code, shown = end_of(
        lambda: train_here(emit=losing_at("dtype", number, said), find_nondeterministic_ops=find_nondeterministic_ops)
    )
    assert (code, tried) == (CODES[number], []), shown
    assert shown.endswith(f"error: stopped by {number.name}; checkpoints that were written are whole\n")
    assert any(line.startswith("dtype") for line in said)
    assert list(train_here.working_directory.glob("runs/*-run")) == []
    assert STOP.signal is None


@pytest.mark.parametrize(
    ("offset_seconds", "number"),
    [
        pytest.param(
            offset, list(CODES)[place % len(CODES)], marks=() if place % 40 == 7 else pytest.mark.full("kills")
        )
        for place, offset in enumerate(OFFSETS)
    ],
    ids=lambda value: f"{value:.2f}" if isinstance(value, float) else value.name,
)
def test_stop_signal_during_the_start_ends_training_with_its_code(
    command_line, tmp_path, tiny_llama_directory, small_records, offset_seconds, number
):
    """The signal arrives while Python, libraries, data or the model load, or in the first steps; the code is right.

    Before the command has its handlers, the signal ends the process itself; a shell shows the same code for that.
    """
    arguments = [f"model.path={tiny_llama_directory}", f"data.path={small_records}", "training.max_steps=1000000"]
    process = command_line.start("train", *arguments, "training.logging_steps=1000000", directory=tmp_path)
    time.sleep(offset_seconds)
    process.send_signal(number)
    try:
        _, said = process.communicate(timeout=180)
    finally:
        process.kill()
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    assert code == CODES[number], said
    if process.returncode >= 0:
        assert "Traceback" not in said
        assert sum(line.startswith("error:") for line in said.splitlines()) == 1, said
    for run in tmp_path.glob("runs/*-run"):
        # The first steps may have been reached.
        assert json.loads((run / "run.json").read_text("utf-8"))["status"] == "KILLED"


def test_stop_signal_lost_in_a_destructor_is_no_traceback_and_ends_the_command(end_of):
    """Python can only print an exception of a destructor; the stop is recorded, so it is not printed."""

    class SignalledOnDeletion:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(100):
                pass

    def job() -> None:
        item = SignalledOnDeletion()
        del item
        STOP.check()
        raise AssertionError("the stage after the signal has begun")

    code, shown = end_of(job)
    assert (code, shown) == (143, "error: stopped by SIGTERM; checkpoints that were written are whole\n")

"""Kill the process at any instant, run the same command with --resume-from latest: the same bytes at the end."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

STEPS = 20


def _arguments(model: Path, data: Path, name: str) -> list[str]:
    return [
        "train",
        f"model.path={model}",
        f"data.path={data}",
        f"run.name={name}",
        f"training.max_steps={STEPS}",
        "training.micro_batch_size=4",
        "training.gradient_accumulation_steps=2",
        "training.learning_rate=1e-2",
        "training.logging_steps=1",
        "training.save_steps=5",
        "training.eval_steps=5",
        "adapter.dropout=0.1",
    ]


def _run_directory(directory: Path, name: str) -> Path:
    (run,) = (directory / "runs").glob(f"*-{name}")
    return run


def _kill_after_checkpoint(process: subprocess.Popen[str], directory: Path, name: str, step: int) -> None:
    """Read progress until a step is done, wait for its checkpoint, then send SIGKILL: a later step is under way."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"step {step}/"):
            break
    latest = _run_directory(directory, name) / "checkpoints" / "latest"
    deadline = time.monotonic() + 240
    while f"step-{step:08d}" not in (latest.read_text() if latest.exists() else "") and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=180)


@pytest.mark.slow
def test_resume_after_sigkill_ends_in_the_same_bytes(command_line, tmp_path, tiny_llama_directory, small_records):
    """SIGKILL during step 11 of 20, then resume: adapter, optimizer state and metrics equal those of a straight run."""
    straight = command_line.run(*_arguments(tiny_llama_directory, small_records, "straight"), directory=tmp_path)
    assert straight.returncode == 0, straight.stderr
    arguments = _arguments(tiny_llama_directory, small_records, "killed")
    process = command_line.start(*arguments, directory=tmp_path)
    _kill_after_checkpoint(process, tmp_path, "killed", 10)
    assert process.returncode == -signal.SIGKILL
    killed = _run_directory(tmp_path, "killed")
    assert json.loads((killed / "run.json").read_text())["status"] == "RUNNING"
    resumed = command_line.run(*arguments, "--resume-from", "latest", directory=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "step-00000010" in resumed.stderr
    assert "died unexpectedly: marked KILLED" in resumed.stderr
    events = [json.loads(line) for line in (killed / "events.ndjson").read_text("utf-8").split("\n") if line]
    assert [event["closed_as"] for event in events if event["kind"] == "previous_process_died"] == ["KILLED"]

    whole = _run_directory(tmp_path, "straight")
    final = f"checkpoints/step-{STEPS:08d}"
    for name in ("adapter_model.safetensors", "training_state.safetensors", "adapter_config.json"):
        assert (whole / final / name).read_bytes() == (killed / final / name).read_bytes(), name
    assert _losses(whole) == _losses(killed)
    assert json.loads((killed / "run.json").read_text())["status"] == "FINISHED"

    again = command_line.run(*arguments, "--resume-from", "latest", directory=tmp_path)
    assert again.returncode == 0
    assert "finished" in again.stdout


@pytest.mark.slow
def test_sigterm_writes_a_checkpoint_and_exits_143(command_line, tmp_path, tiny_llama_directory, small_records):
    """SIGTERM ends the step, writes a checkpoint and closes the run as KILLED."""
    arguments = _arguments(tiny_llama_directory, small_records, "asked")
    process = command_line.start(*arguments, "training.max_steps=100000", directory=tmp_path)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 7/"):
            process.send_signal(signal.SIGTERM)
            break
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 143, stderr
    run = _run_directory(tmp_path, "asked")
    assert json.loads((run / "run.json").read_text())["status"] == "KILLED"
    latest = (run / "checkpoints" / "latest").read_text().strip()
    assert int(latest.removeprefix("step-")) >= 7
    assert (run / "checkpoints" / latest / "manifest.json").is_file()


def _losses(run: Path) -> list[tuple[int, str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.ndjson").read_text("utf-8").split("\n") if line]
    return [(line["step"], line["split"], line["value"]) for line in lines if line["name"] == "loss"]

"""The demo of the README as a whole process: killed five times on its way, it ends in the bytes of one that was not."""

from __future__ import annotations

import random
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from codex_ml.monitoring.codex_logging import read_ndjson
from codex_ml.runs.checkpoints import newest_whole
from codex_ml.runs.layout import RunLayout, find_runs

pytestmark = [pytest.mark.slow, pytest.mark.full("demo"), pytest.mark.timeout(1500)]

COMMAND = ("train", "--config-name=examples/minimal")
STEPS = 175
FINAL_FILES = ("adapter_model.safetensors", "training_state.safetensors", "trainer_state.json")
# Measured while a step is made; all else in a log is a function of the step.
TIMED = ("supervised_tokens_per_second", "memory_bytes")
# The demo says every tenth step, and saves every fiftieth. One kill in each of these ranges of steps: before the first
# checkpoint, between others, and shortly before the end.
RANGES = ((10, 40), (50, 70), (80, 110), (120, 140), (150, 170))


def kill_after(process: subprocess.Popen[str], step: int, chance: random.Random) -> None:
    """Read what a run says until it has made a step, let a moment pass, and kill it."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith(f"step {step}/"):
            break
    else:
        pytest.fail(f"it never made step {step}: {''.join(said[-20:])}")
    try:
        # A step takes about a tenth of a second: the kill falls anywhere within a step, a validation or a checkpoint.
        process.wait(timeout=chance.uniform(0, 0.4))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    process.communicate(timeout=180)
    assert process.returncode == -signal.SIGKILL


def finished(process: subprocess.Popen[str]) -> str:
    """Wait for a run to end well, and return what it said."""
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return said


def outcome(directory: Path) -> dict[str, Any]:
    """Return all of the one finished run below a directory that must not depend on what happened on the way."""
    ((layout, record),) = find_runs(directory / "runs")
    newest, passed_over = newest_whole(layout.checkpoints)
    assert newest == layout.checkpoints / f"step-{STEPS:08d}"
    assert passed_over == []
    assert record.status == "FINISHED"
    return {name: (newest / name).read_bytes() for name in FINAL_FILES} | {"metrics": metrics_of(layout)}


def metrics_of(layout: RunLayout) -> list[tuple[int, str, str, float | None]]:
    """Return every line of the metrics; of what is timed that it is there."""
    lines = read_ndjson(layout.metrics)
    return [(line["step"], line["split"], line["name"], None if is_timed(line) else line["value"]) for line in lines]


def is_timed(line: dict[str, Any]) -> bool:
    """Tell whether the clock decides the value of a line."""
    return line["split"] == "system" or line["name"] in TIMED


def test_kill_of_the_demo_five_times_ends_in_the_same_bytes(command_line, tmp_path):
    """SIGKILL at five random points, each followed by the same command with ``--resume-from latest``."""
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    straight.mkdir()
    killed.mkdir()
    # It takes the second processor meanwhile.
    reference = command_line.start(*COMMAND, directory=straight)
    chance = random.Random(6)
    for first, last in RANGES:
        process = command_line.start(*COMMAND, "--resume-from", "latest", directory=killed)
        kill_after(process, chance.randrange(first, last + 1, 10), chance)
    assert "died unexpectedly: marked KILLED" in finished(
        command_line.start(*COMMAND, "--resume-from", "latest", directory=killed)
    )
    finished(reference)
    assert outcome(killed) == outcome(straight)

"""A disk that fills up under a run: it stops with one block, names the last good checkpoint, and goes on from there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codex_ml.io.atomic import Storage
from codex_ml.runs.digest_cache import DigestCache
from codex_ml.runs.manifest import verify_checkpoint

pytestmark = pytest.mark.slow

STEPS = 30


def settings(model: Path, data: Path, output_dir: Path, *more: str) -> list[str]:
    """Return the command line of a run on the small disk."""
    return [
        "train",
        f"model.path={model}",
        f"data.path={data}",
        f"run.output_dir={output_dir}",
        f"training.max_steps={STEPS}",
        "training.micro_batch_size=4",
        "training.learning_rate=1e-2",
        *more,
    ]


@pytest.fixture(scope="module")
def undisturbed(command_line, tiny_llama_directory, small_records, tmp_path_factory) -> bytes:
    """Return the adapter of the same run on a disk with room."""
    directory = tmp_path_factory.mktemp("room")
    arguments = settings(tiny_llama_directory, small_records, directory / "runs", "training.save_steps=15")
    answer = command_line.run(*arguments, directory=directory)
    assert answer.returncode == 0, answer.stderr
    return final_adapter(directory / "runs")


def final_adapter(runs: Path) -> bytes:
    """Return the bytes of the adapter after the last step."""
    (file,) = runs.glob(f"*/checkpoints/step-{STEPS:08d}/adapter_model.safetensors")
    return file.read_bytes()


def lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    """Yield what a process says on its error stream."""
    assert process.stderr is not None
    yield from process.stderr


def run_on(disk: Any, command_line: Any, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command that sees the small disk."""
    command = [*disk.prefix, *command_line.command(*arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, cwd=disk.inside.parent)


def fill_when_saved(disk: Any, command_line: Any, arguments: list[str], step: int) -> tuple[int, str]:
    """Start a run, fill its disk once a checkpoint is there, and return the exit code and what was said."""
    process = subprocess.Popen(
        [*disk.prefix, *command_line.command(*arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=disk.inside.parent,
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        pointers = list((disk.dependencies / "runs").glob("*/checkpoints/latest"))
        if pointers and int(pointers[0].read_text("utf-8").strip().removeprefix("step-")) >= step:
            disk.fill()
            break
        time.sleep(0.001)
    _, said = process.communicate(timeout=120)
    return process.returncode, said


def assert_stopped_in_order(run: Path, code: int, said: str) -> int:
    """Check the end of a run whose disk is full and return the step of its last good checkpoint."""
    assert code == 1, said
    assert said.count("error:") == 1, said
    assert "Traceback" not in said
    found = re.search(r"kept: the last good checkpoint is step (\d+) \(step-\d{8}, verified\)", said)
    assert found is not None, said
    step = int(found[1])
    verify_checkpoint(run / "checkpoints" / f"step-{step:08d}")
    assert [entry.name for entry in (run / "checkpoints").iterdir() if entry.name.startswith(".")] == []
    assert list(run.glob(".*.partial")) == []
    return step


def resume_ends_in_the_same_bytes(disk, command_line, arguments, undisturbed, step) -> None:
    """Free the disk, run the same command with --resume-from latest, and compare."""
    disk.free()
    resumed = run_on(disk, command_line, [*arguments, "--resume-from", "latest"])
    assert resumed.returncode == 0, resumed.stderr
    assert f"step-{step:08d}" in resumed.stderr
    assert final_adapter(disk.dependencies / "runs") == undisturbed


def test_disk_full_in_a_checkpoint_stops_and_resumes_to_the_same_bytes(
    small_disk, command_line, undisturbed, tiny_llama_directory, small_records
):
    """The checkpoint that does not fit leaves no torso; the one before is whole, named, and where it goes on from."""
    more = ["training.save_steps=5", "training.logging_steps=1000", "training.keep_last=1"]
    arguments = settings(tiny_llama_directory, small_records, small_disk.inside / "runs", *more)
    code, said = fill_when_saved(small_disk, command_line, arguments, step=5)
    (run,) = (small_disk.dependencies / "runs").glob("*-run")
    step = assert_stopped_in_order(run, code, said)
    assert "checkpoint" in said
    resume_ends_in_the_same_bytes(small_disk, command_line, arguments, undisturbed, step)


def test_disk_full_in_the_log_stops_and_resumes_to_the_same_lines(
    small_disk, command_line, undisturbed, tiny_llama_directory, small_records
):
    """The log is the record of the run: no line goes missing, so it stops; afterwards every step is there once."""
    more = ["training.save_steps=8", "training.logging_steps=1", "training.keep_last=1"]
    arguments = settings(tiny_llama_directory, small_records, small_disk.inside / "runs", *more)
    code, said = fill_when_saved(small_disk, command_line, arguments, step=8)
    (run,) = (small_disk.dependencies / "runs").glob("*-run")
    step = assert_stopped_in_order(run, code, said)
    assert "metrics.ndjson cannot grow any further" in said
    content = (run / "metrics.ndjson").read_bytes()
    assert content.endswith(b"\n")
    resume_ends_in_the_same_bytes(small_disk, command_line, arguments, undisturbed, step)
    lines = [json.loads(line) for line in (run / "metrics.ndjson").read_bytes().splitlines()]
    assert [line["step"] for line in lines if line["name"] == "loss"] == list(range(1, STEPS + 1))


def test_disk_full_before_the_run_begins_leaves_no_directory(
    small_disk, command_line, tiny_llama_directory, small_records
):
    """There is no room for the checkpoints to come: refused with both figures, and nothing is made."""
    small_disk.fill()
    arguments = settings(tiny_llama_directory, small_records, small_disk.inside / "runs")
    answer = run_on(small_disk, command_line, arguments)
    assert answer.returncode == 1, answer.stderr
    assert answer.stderr.count("error:") == 1
    assert "needed for checkpoints" in answer.stderr
    assert "0 B free" in answer.stderr
    assert not (small_disk.dependencies / "runs").exists()


def test_disk_full_in_the_digest_cache_costs_time_only(small_disk):
    """What cannot be remembered is read again; neither half a cache nor an error is left."""
    weights = small_disk.dependencies / "weights.safetensors"
    weights.write_bytes(bytes(1000))
    os.utime(weights, (0, 0))
    cache_file = small_disk.dependencies / ".digests.json"
    cache = DigestCache(cache_file, clock=lambda: time.time() + 60, smallest_bytes=0)
    digest = cache(weights)
    small_disk.fill()
    cache.save(Storage())
    assert not cache_file.exists()
    assert list(small_disk.dependencies.glob("*.partial")) + list(small_disk.dependencies.glob(".*.partial")) == []
    small_disk.free()
    cache.save(Storage())
    assert digest in cache_file.read_text("utf-8")


def test_disk_full_in_the_tracker_store_costs_a_warning(
    small_disk, command_line, undisturbed, tmp_path, tiny_llama_directory, small_records
):
    """The MLflow store lies on a full disk, the run does not: the adapter is the same, and the status is reported."""
    small_disk.fill()
    runs = tmp_path / "runs"
    runs.mkdir()
    for name in ("mlflow.db", "mlartifacts"):
        (runs / name).symlink_to(small_disk.inside / name)
    arguments = settings(tiny_llama_directory, small_records, runs, "tracking.sinks=[mlflow]", "training.save_steps=15")
    answer = run_on(small_disk, command_line, arguments)
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr.count("warning: tracking sink mlflow") == 1
    assert final_adapter(runs) == undisturbed
    (events,) = runs.glob("*/events.ndjson")
    (status,) = [event for line in events.open() if (event := json.loads(line))["kind"] == "sink_status"]
    assert status["sinks"]["mlflow"]["state"] == "failed"
    assert "full" in status["sinks"]["mlflow"]["last_error"]


def test_output_directory_read_only_is_refused_and_a_finished_run_there_is_left_alone(
    small_disk, command_line, tiny_llama_directory, small_records
):
    """Mounted for reading only: exit 2 before anything is loaded into it, for a new run and for a resume."""
    arguments = settings(tiny_llama_directory, small_records, small_disk.inside / "runs", "training.max_steps=1")
    assert run_on(small_disk, command_line, arguments).returncode == 0
    (run,) = (small_disk.dependencies / "runs").glob("*-run")
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    small_disk.set_read_only()
    for more in ([], ["--resume-from", "latest", "training.max_steps=2"]):
        answer = run_on(small_disk, command_line, [*arguments, *more])
        assert answer.returncode == 2, answer.stderr
        assert answer.stderr.count("error:") == 1
        assert "nothing can be written in" in answer.stderr
        assert "Traceback" not in answer.stderr
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
    listed = run_on(small_disk, command_line, ["runs", "list", "--output-dir", str(small_disk.inside / "runs")])
    assert listed.returncode == 0, listed.stderr
    assert "FINISHED" in listed.stdout

"""Memory that is not enough, for real: a limit set on the process at work, and a kill that nobody can catch."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import threading
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def start(command_line, directory: Path, model: Path, data: Path, *more: str) -> subprocess.Popen[str]:
    """Start a training that would take for ever, with an allocator that asks the kernel for every larger tensor."""
    arguments = [f"model.path={model}", f"data.path={data}", "training.max_steps=1000000", "training.logging_steps=1"]
    return subprocess.Popen(
        ["env", "MALLOC_MMAP_THRESHOLD_=65536", *command_line.command("train", *arguments, *more)],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_step(process: subprocess.Popen[str], step: int) -> None:
    """Read what a process says until a step is done."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"step {step}/"):
            return
    raise AssertionError("the process ended before the step")


def virtual_bytes(process: subprocess.Popen[str]) -> int:
    """Return the size of the address space of a process."""
    lines = Path(f"/proc/{process.pid}/status").read_text("utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith("VmSize:")]
    return int(line.split()[1]) * 1024


def largest_virtual_bytes(process: subprocess.Popen[str], until_step: int) -> int:
    """Return the largest address space that a process has until a step is done."""
    sizes = [virtual_bytes(process)]
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.002):
            sizes.append(virtual_bytes(process))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        wait_for_step(process, until_step)
    finally:
        done.set()
        watcher.join()
    return max(sizes)


def test_allocation_that_fails_in_a_step_names_the_plan_and_the_last_good_checkpoint(
    command_line, tmp_path, tiny_llama_directory
):
    """The limit falls on the running process: exit 1, one block with figures and settings, the checkpoint whole."""
    # A step of some 200 MB, far more than the limit takes away: freed again, there is room to say what happened.
    rows = [
        {"prompt": f"{number}: ", "completion": " ".join(map(str, range(number, number + 90)))} for number in range(256)
    ]
    data = tmp_path / "long.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    process = start(
        command_line, tmp_path, tiny_llama_directory, data, "training.micro_batch_size=128", "training.save_steps=2"
    )
    try:
        wait_for_step(process, 3)
        # Not what it holds at some instant: between two steps that is less than a process needs to end in words.
        limit = largest_virtual_bytes(process, until_step=6) - (64 << 20)
        resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1, said
    assert said.count("error:") == 1, said
    assert "Traceback" not in said
    assert "error: out of memory on cpu in step" in said
    assert "the plan estimated" in said
    assert "training.micro_batch_size=64 training.gradient_accumulation_steps=2" in said
    assert "kept: the last good checkpoint is step" in said
    (run,) = (tmp_path / "runs").glob("*-run")
    assert json.loads((run / "run.json").read_text("utf-8"))["status"] == "FAILED"


@pytest.mark.full("faults")
def test_run_killed_by_the_kernel_is_named_afterwards_with_its_last_memory(
    command_line, tmp_path, tiny_llama_directory, small_records
):
    """SIGKILL leaves no word; the next look names the last resident size, and the kernel where memory was scarce."""
    process = start(command_line, tmp_path, tiny_llama_directory, small_records)
    wait_for_step(process, 2)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=180)
    (run,) = (tmp_path / "runs").glob("*-run")
    with (run / "metrics.ndjson").open("a", encoding="utf-8") as metrics:
        # What the machine would have shown, had it been full: all that was left is 1 MiB.
        metrics.write(json.dumps({"step": 3, "split": "system", "name": "available_bytes", "value": 1 << 20}) + "\n")
    answer = command_line.run("runs", "list", directory=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "died unexpectedly: marked KILLED" in answer.stderr
    assert "it held 0." in answer.stderr
    assert "the kernel's out-of-memory killer has probably ended it" in answer.stderr
    events = [json.loads(line) for line in (run / "events.ndjson").read_text("utf-8").split("\n") if line]
    (event,) = [event for event in events if event["kind"] == "previous_process_died"]
    assert event["last_memory"]["resident_bytes"] > 100 << 20
    assert event["last_memory"]["available_bytes"] == 1 << 20

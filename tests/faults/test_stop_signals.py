"""SIGINT, SIGTERM and SIGHUP at any instant: the step ends, a checkpoint is whole, nothing is left half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import LlamaModel

from codex_ml.errors import InterruptedRun, StopSignal
from codex_ml.io.atomic import Storage
from codex_ml.runs.manifest import verify_checkpoint

pytestmark = pytest.mark.slow

SETTINGS = (
    "training.save_steps=2",
    "training.eval_steps=1",
    "training.keep_best=0",
    "training.logging_steps=1",
    "adapter.dropout=0.1",
    "eval.batch_size=1",
)


class SignallingStorage(Storage):
    """Sends real signals to this process when an operation touches a file of a name, the n-th time it does."""

    def __init__(self, name: str, *numbers: signal.Signals, occurrence: int = 1) -> None:
        self._name = name
        self._numbers = list(numbers)
        self._left = occurrence

    def replace(self, source: Path, target: Path) -> None:
        """Rename, after the signals have been sent."""
        if target.name == self._name:
            self._send()
        super().replace(source, target)

    def write_pieces(self, path: Path, pieces: Iterable[bytes | memoryview]) -> None:
        """Write, after the signals have been sent."""
        if path.name == self._name:
            self._send()
        super().write_pieces(path, pieces)

    def _send(self) -> None:
        self._left -= 1
        while self._left == 0 and self._numbers:
            os.kill(os.getpid(), self._numbers.pop(0))


@pytest.fixture(scope="module")
def undisturbed(trainer_in, tmp_path_factory):
    """Return a run that nobody stopped."""
    return trainer_in(tmp_path_factory.mktemp("undisturbed"))(*SETTINGS)


def losses(run) -> list[tuple[int, str, str, float]]:
    """Return every loss that was logged, in order."""
    return [
        (line["step"], line["split"], line["name"], line["value"])
        for line in run.lines("metrics.ndjson")
        if line["name"] in ("loss", "token_accuracy")
    ]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("instant", ["manifest.json", "step-00000002", "latest"])
def test_stop_signal_while_saving_finishes_the_save_and_resumes_to_the_same_bytes(
    train_here, undisturbed, number, code, instant
):
    """The signal comes in the middle of a checkpoint: it becomes whole, and the run ends KILLED with the right code."""
    with pytest.raises(InterruptedRun) as stopped:
        train_here(*SETTINGS, storage=SignallingStorage(instant, number))
    assert stopped.value.exit_code == code
    run = train_here.only_run()
    assert run.record()["status"] == "KILLED"
    assert run.checkpoints() == ["best", "latest", "step-00000002"]
    verify_checkpoint(run.directory / "checkpoints" / "step-00000002")
    resumed = train_here(*SETTINGS, "run.resume_from=latest")
    assert resumed.weights() == undisturbed.weights()
    assert losses(resumed) == losses(undisturbed)


@pytest.mark.parametrize(("instant", "occurrence"), [("manifest.json", 2), ("step-00000004", 1)])
def test_second_signal_while_saving_leaves_at_once_and_no_torso(train_here, undisturbed, instant, occurrence):
    """SIGINT twice: no waiting for the save; what it had staged is no checkpoint, and is removed on the way out."""
    storage = SignallingStorage(instant, signal.SIGINT, signal.SIGINT, occurrence=occurrence)
    with pytest.raises(StopSignal) as stopped:
        train_here(*SETTINGS, storage=storage)
    assert stopped.value.exit_code == 130
    run = train_here.only_run()
    assert list((run.directory / "checkpoints").glob(".*")) == []
    whole = [name for name in run.checkpoints() if name.startswith("step-")]
    assert whole == ["step-00000002"]
    verify_checkpoint(run.directory / "checkpoints" / whole[0])
    resumed = train_here(*SETTINGS, "run.resume_from=latest")
    assert [name for name in resumed.checkpoints() if name.startswith(".")] == []
    assert list(run.directory.glob(".*")) == []
    assert resumed.weights() == undisturbed.weights()


@contextmanager
def signal_in_validation(which: int, number: signal.Signals) -> Iterator[None]:
    """Send a signal to this process in the second forward pass of a validation, counted from 1."""
    # The first forward pass in evaluation mode is the trial of the loaded model.
    validations, passes = -1, 0

    def count(module: nn.Module, _arguments: object) -> None:
        nonlocal validations, passes
        # The decoder, whichever way it is called: not every pass goes through the adapter's own forward.
        if not isinstance(module, LlamaModel):
            return
        passes = 0 if module.training else passes + 1
        validations += passes == 1
        if (validations, passes) == (which, 2):
            os.kill(os.getpid(), number)

    handle = register_module_forward_pre_hook(count)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize(("step", "number"), [(2, signal.SIGTERM), (3, signal.SIGTERM), (4, signal.SIGINT)])
def test_stop_signal_during_a_validation_gives_it_up_and_a_resume_makes_it(train_here, undisturbed, step, number):
    """Nobody waits for a long validation: the step is kept, the validation owed, and the end is the same."""
    with signal_in_validation(step, number), pytest.raises(InterruptedRun, match=f"after step {step};"):
        train_here(*SETTINGS)
    run = train_here.only_run()
    assert run.record()["status"] == "KILLED"
    state = json.loads((run.directory / f"checkpoints/step-{step:08d}/trainer_state.json").read_text("utf-8"))
    assert state["trainer"]["owed_metrics"]["loss"] > 0
    assert [line for line in run.lines("metrics.ndjson") if line["step"] == step] == []
    # As if a first resume had logged the validation, and been killed before it could save.
    with (run.directory / "metrics.ndjson").open("a", encoding="utf-8") as metrics:
        metrics.write(json.dumps({"step": step, "split": "valid", "name": "loss", "value": 0.0}) + "\n")
    resumed = train_here(*SETTINGS, "run.resume_from=latest")
    assert resumed.weights() == undisturbed.weights()
    assert losses(resumed) == losses(undisturbed)
    assert [line for line in resumed.said if "is finished" in line] == []
    for file in run.directory.glob("checkpoints/step-*/trainer_state.json"):
        assert json.loads(file.read_text("utf-8"))["trainer"]["owed_metrics"] is None, file


@pytest.mark.full("faults")
def test_two_processes_in_one_run_second_is_refused_and_the_first_stops_within_its_bound(
    command_line, tmp_path, tiny_llama_directory, small_records
):
    """The second is told who is at work (exit 2); the first notices nothing, and ends 130 within seconds of SIGINT."""
    arguments = [f"model.path={tiny_llama_directory}", f"data.path={small_records}", "training.max_steps=1000000"]
    process = command_line.start("train", *arguments, "training.save_steps=20", directory=tmp_path)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 20/"):
            break
    second = command_line.run("train", *arguments, "--resume-from", "latest", directory=tmp_path)
    assert second.returncode == 2, second.stderr
    assert second.stderr.count("error:") == 1
    assert f"process {process.pid}, since 20" in second.stderr
    assert process.poll() is None
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert time.monotonic() - sent < 110
    assert process.returncode == 130, said
    (run,) = (tmp_path / "runs").glob("*-run")
    assert json.loads((run / "run.json").read_text("utf-8"))["status"] == "KILLED"
    latest = (run / "checkpoints" / "latest").read_text("utf-8").strip()
    verify_checkpoint(run / "checkpoints" / latest)
    assert f"after step {int(latest.removeprefix('step-'))};" in said


def test_terminal_that_hangs_up_ends_the_run_with_a_checkpoint_and_129(
    command_line, tmp_path, tiny_llama_directory, small_records
):
    """A closed ssh session: SIGHUP from the system and a terminal that takes no line; still KILLED, still whole."""
    ours, theirs = os.openpty()
    arguments = [f"model.path={tiny_llama_directory}", f"data.path={small_records}", "training.max_steps=1000000"]
    process = subprocess.Popen(
        command_line.command("train", *arguments),
        cwd=tmp_path,
        preexec_fn=lambda: os.login_tty(theirs),
    )
    os.close(theirs)
    said = b""
    while b"step 10/" not in said:
        said += os.read(ours, 4096)
    os.close(ours)
    assert process.wait(timeout=180) == 129
    (run,) = (tmp_path / "runs").glob("*-run")
    assert json.loads((run / "run.json").read_text("utf-8"))["status"] == "KILLED"
    latest = (run / "checkpoints" / "latest").read_text("utf-8").strip()
    verify_checkpoint(run / "checkpoints" / latest)

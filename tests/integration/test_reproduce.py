"""`runs reproduce`: a run repeated from what it wrote down ends in the same bytes, whatever its history."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from codex_ml.config.compose import compose
from codex_ml.config.validate import validate_train
from codex_ml.errors import InterruptedRun, UserError
from codex_ml.io.atomic import Storage
from codex_ml.recipes.reproduce import ReproduceDependencies, Reproduction, reproduce, require_identical
from codex_ml.recipes.train.job import TrainDependencies, train
from codex_ml.recipes.verify.run import verify_run
from codex_ml.runs.layout import RunLayout, read_record
from codex_ml.runs.manifest import read_manifest, write_manifest
from codex_ml.runs.run_manifest import write_run_manifest

pytestmark = pytest.mark.slow


def be_quiet(line: str) -> None:
    """Print nothing."""


@dataclass(frozen=True)
class Workspace:
    """A directory with a base model, data, and the run that is made in it."""

    directory: Path

    def train(self, *overrides: str, stop_at: Callable[[int], bool] | None = None) -> RunLayout:
        """Train 6 steps unless told otherwise; a stop that was asked for is no error."""
        values = [
            f"model.path={self.directory / 'base'}",
            f"data.path={self.directory / 'records.jsonl'}",
            "training.max_steps=6",
            "training.logging_steps=2",
            "training.eval_steps=3",
            "training.learning_rate=1e-2",
            "adapter.dropout=0.1",
            *overrides,
        ]
        composed = compose("train", "default", None, values, working_directory=self.directory, environment={})
        try:
            train(validate_train(composed), TrainDependencies(emit=be_quiet), stop_at)
        except InterruptedRun:
            assert stop_at is not None
        return self.run

    @property
    def run(self) -> RunLayout:
        """The only run."""
        (directory,) = (self.directory / "runs").iterdir()
        return RunLayout(directory)

    def reproduce(self, **dependencies: object) -> Reproduction:
        """Repeat the run; the code may change while tests run, so it is excused."""
        verified = verify_run(self.run, allowed=["code", "versions", "platform"])
        assert verified.verification.passed, verified.verification.lines()
        dependencies = ReproduceDependencies(train=TrainDependencies(emit=be_quiet), **dependencies)  # type: ignore[arg-type]
        return reproduce(verified, self.directory / "again", dependencies)


@pytest.fixture
def workspace(tiny_llama_directory, small_records, tmp_path) -> Workspace:
    """Return a workspace without a run."""
    shutil.copytree(tiny_llama_directory, tmp_path / "base")
    shutil.copy(small_records, tmp_path / "records.jsonl")
    return Workspace(tmp_path)


def test_reproduce_straight_run_is_identical_and_leaves_a_verifiable_report(workspace) -> None:
    """Weights, optimizer and every metric are the same; the report is part of the new run and names no directory."""
    run = workspace.train()
    result = workspace.reproduce()
    require_identical(result)
    assert result.state is not None
    assert result.state.identical
    assert result.metrics.compared > 10
    text = (result.layout.directory / "reproduction.json").read_text("utf-8")
    report = json.loads(text)
    assert (report["identical"], report["of"]["run_id"], report["last_step"]) == (True, read_record(run).run_id, 6)
    assert str(workspace.directory) not in text
    checked = verify_run(result.layout, allowed=["code"]).verification
    assert checked.passed
    assert {check.key: check.state for check in checked.checks}["run_manifest.json.files.reproduction.json"] == "agrees"
    assert result.lines()[-1] == f"outputs: {result.layout.directory}"


def test_reproduce_resumed_run_is_repeated_without_the_interruption(workspace) -> None:
    """A run that was stopped and resumed is the same as one that was not, so one process repeats it."""
    workspace.train("training.save_steps=2", stop_at=lambda step: step >= 3)
    workspace.train("training.save_steps=2", "run.resume_from=latest")
    result = workspace.reproduce()
    assert [(stage.total_steps, stage.last_step) for stage in result.stages] == [(6, 6)]
    assert any("2 processes worked" in note for note in result.notes)
    require_identical(result)


class InterruptingStorage(Storage):
    """A storage that sends SIGINT to this process while the first checkpoint is written."""

    def write_pieces(self, path: Path, pieces: Iterable[bytes | memoryview]) -> None:
        """Write, and interrupt."""
        super().write_pieces(path, pieces)
        if path.name == "manifest.json":
            os.kill(os.getpid(), signal.SIGINT)


def test_reproduce_interrupted_says_to_repeat_it_and_not_to_resume(workspace) -> None:
    """A resume of the repetition would be compared with nothing; the unfinished run is named."""
    workspace.train("training.save_steps=2")
    verified = verify_run(workspace.run, allowed=["code"])
    dependencies = ReproduceDependencies(train=TrainDependencies(emit=be_quiet, storage=InterruptingStorage()))
    with pytest.raises(InterruptedRun) as stopped:
        reproduce(verified, workspace.directory / "again", dependencies)
    (unfinished,) = (path for path in (workspace.directory / "again").iterdir() if path.is_dir())
    assert stopped.value.exit_code == 130
    assert f"codex-ml runs rm {unfinished}" in stopped.value.what
    assert "--resume-from" not in stopped.value.what


def test_reproduce_extended_run_is_repeated_in_its_stages(workspace) -> None:
    """The learning rate of the first steps came from the first plan; a straight run of the last plan would differ."""
    workspace.train("training.max_steps=4")
    workspace.train("training.max_steps=7", "run.resume_from=latest")
    result = workspace.reproduce()
    assert [(stage.total_steps, stage.last_step) for stage in result.stages] == [(4, 4), (7, 7)]
    assert any("length of the run was changed" in note for note in result.notes)
    require_identical(result)


def test_reproduce_run_resumed_with_other_intervals_is_repeated_in_its_stages(workspace) -> None:
    """Which steps have a line in the metrics follows the settings that the process at work had."""
    workspace.train(stop_at=lambda step: step >= 3)
    workspace.train("training.logging_steps=1", "training.eval_steps=2", "run.resume_from=latest")
    result = workspace.reproduce()
    assert [(stage.total_steps, stage.last_step) for stage in result.stages] == [(6, 3), (6, 6)]
    assert any("training.logging_steps, training.eval_steps were changed" in note for note in result.notes)
    require_identical(result)


def test_reproduce_interrupted_run_is_compared_to_its_last_checkpoint(workspace) -> None:
    """What was reached can be compared; that the end was not is said."""
    workspace.train(stop_at=lambda step: step >= 4)
    result = workspace.reproduce()
    assert result.last_step == 4
    assert any("KILLED and did not reach its end" in note and "step 4 of 6" in note for note in result.notes)
    require_identical(result)


def test_reproduce_run_stopped_early_stops_at_the_same_step(workspace) -> None:
    """Early stopping is a function of the data and the seed like everything else."""
    settings = ("training.eval_steps=1", "training.early_stopping_patience=1", "training.early_stopping_min_delta=100")
    workspace.train(*settings)
    result = workspace.reproduce()
    assert result.last_step < 6
    assert any("stopped early" in note for note in result.notes)
    require_identical(result)
    assert read_record(result.layout).status == "FINISHED"


def test_verify_killed_run_passes_without_a_manifest_and_a_resumed_one_has_none_meanwhile(workspace) -> None:
    """A process that dies cannot write a manifest, and the one of an earlier end must not speak for the run."""
    workspace.train("training.save_steps=2", stop_at=lambda step: step >= 2)
    run = workspace.run
    assert (run.directory / "run_manifest.json").is_file()
    killed = workspace.directory / "killed" / run.directory.name

    def snapshot(step: int) -> bool:
        # What a process that is killed after step 5 leaves behind; the last checkpoint is that of step 4.
        if step == 5:
            shutil.copytree(run.directory, killed)
        return False

    workspace.train("training.save_steps=2", "run.resume_from=latest", stop_at=snapshot)
    dead = verify_run(RunLayout(killed), allowed=["code"]).verification
    assert dead.passed, dead.lines()
    notes = {check.key: check.note for check in dead.checks}
    assert "died before it could write one" in notes["run_manifest.json"]
    assert "it died" in notes["status"]
    assert verify_run(run, allowed=["code"]).verification.passed


def test_reproduce_other_weights_are_named_with_their_difference(workspace) -> None:
    """An adapter that was exchanged together with every manifest passes its verification, and is found here."""
    run = workspace.train()
    checkpoint = run.checkpoints / "step-00000006"
    weights = load_file(checkpoint / "adapter_model.safetensors")
    name = sorted(weights)[0]
    weights[name] = weights[name] + torch.tensor(0.125)
    save_file(weights, checkpoint / "adapter_model.safetensors")
    made_again = ("files", "manifest_version", "manifest_digest")
    details = {key: value for key, value in read_manifest(checkpoint).items() if key not in made_again}
    (checkpoint / "manifest.json").unlink()
    write_manifest(checkpoint, details, Storage())
    write_run_manifest(run, read_record(run), Storage())
    result = workspace.reproduce()
    (adapter,) = result.weights
    assert [tensor.name for tensor in adapter.tensors] == [name]
    assert adapter.tensors[0].largest_absolute_difference == pytest.approx(0.125, rel=1e-5)
    assert result.metrics.identical
    with pytest.raises(UserError, match="not reproduced bit for bit") as caught:
        require_identical(result)
    assert caught.value.exit_code == 2


def test_reproduce_threads_are_applied_or_the_difference_is_said(workspace) -> None:
    """The recorded counts are asked for; one that cannot be set is reported."""
    workspace.train()
    asked: list[int] = []

    def refuse(count: int) -> None:
        raise RuntimeError(f"cannot set {count} threads after parallel work has started")

    recorded = json.loads(workspace.run.provenance.read_text())["threads"]
    result = workspace.reproduce(set_threads=asked.append, set_interop_threads=refuse)
    assert asked == [recorded["torch"]]
    assert any("threads.torch_interop" in note and "could not be set" in note for note in result.notes)
    require_identical(result)


def test_reproduce_beside_or_inside_the_run_is_refused(workspace) -> None:
    """The repetition would become what latest means, or a part of the run."""
    run = workspace.train("training.max_steps=1", "training.eval_steps=null")
    verified = verify_run(run, allowed=["code"])
    for place in (run.directory.parent, run.directory, run.directory / "again"):
        with pytest.raises(UserError, match="the run itself lies there"):
            reproduce(verified, place)
    shutil.rmtree(run.checkpoints / "step-00000001")
    with pytest.raises(UserError, match="no whole checkpoint"):
        reproduce(verified, workspace.directory / "again")
    assert not (workspace.directory / "again").exists()


def test_reproduce_command_line_identical_then_refused_for_other_data(workspace, command_line) -> None:
    """Exit 0 when identical; 2 before anything is made when the data are others."""
    run = workspace.train("training.max_steps=2", "training.eval_steps=null")
    arguments = ("runs", "reproduce", run.directory.name)
    done = command_line.run(*arguments, "--into", "again", directory=workspace.directory)
    assert done.returncode == 0, done.stderr
    assert f"identical to {run.directory.name} at step 2" in done.stdout
    with (workspace.directory / "records.jsonl").open("a") as handle:
        handle.write('{"prompt": "one ", "completion": "more"}\n')
    refused = command_line.run(*arguments, "--into", "other", directory=workspace.directory)
    assert refused.returncode == 2
    assert "data.splits.train.source.digest" in refused.stderr
    assert not (workspace.directory / "other").exists()

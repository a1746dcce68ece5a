"""Power loss at every instant of a run: nothing that was reported is lost, and a resume goes on from what is there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from power_loss import Story, build, losses, sweep
from recording_storage import IGNORED, RecordingStorage

from codex_ml.monitoring.codex_logging import read_ndjson

pytestmark = pytest.mark.slow

STEPS = 10
# How many of the disks are resumed for real.
RESUMED = 9
OPTIONS = (
    f"training.max_steps={STEPS}",
    "training.micro_batch_size=4",
    "training.logging_steps=1",
    "training.save_steps=2",
    "training.eval_steps=2",
    "training.keep_last=2",
    "adapter.dropout=0.1",
    # A directory in each checkpoint.
    "training.ema_decay=0.9",
    # A rotation every few steps.
    "logging.max_bytes=4000",
)
# Measured while a step is made; all else in a log is a function of the step.
TIMED = ("supervised_tokens_per_second", "memory_bytes")


def outcome(run: Path) -> dict[str, Any]:
    """Return all of a finished run that must not depend on what happened on the way."""
    final = run / "checkpoints" / f"step-{STEPS:08d}"
    names = ("adapter_model.safetensors", "training_state.safetensors", "trainer_state.json")
    metrics = [
        (record["step"], record["split"], record["name"], record["value"])
        for record in read_ndjson(run / "metrics.ndjson")
        if record["split"] != "system" and record["name"] not in TIMED
    ]
    status = json.loads((run / "run.json").read_text("utf-8"))["status"]
    return {name: (final / name).read_bytes() for name in names} | {"metrics": metrics, "status": status}


@dataclass(frozen=True)
class Recorded:
    """A process at work below a root, and the story of it."""

    root: Path
    story: Story
    outcome: dict[str, Any]


def record(trainer: Any, root: Path, *overrides: str) -> Recorded:
    """Train with a recording storage, with the runs below a root."""
    storage = RecordingStorage(root)
    run = trainer(*OPTIONS, output_below(root), *overrides, storage=storage)
    return Recorded(root, Story(storage, run.directory), outcome(run.directory))


def output_below(root: Path) -> str:
    """Return the option that puts the runs two new directories deep."""
    return f"run.output_dir={root}/hospital/runs"


def resume(trainer: Any, root: Path) -> dict[str, Any]:
    """Go on, as a user would who gives the same command again, and return what became of the run."""
    return outcome(trainer(*OPTIONS, output_below(root), "run.resume_from=latest").directory)


@pytest.fixture(scope="module")
def trainer(trainer_in, tmp_path_factory) -> Any:
    """Return what trains in a directory of its own."""
    return trainer_in(tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def recorded(trainer, tmp_path_factory) -> Recorded:
    """Return a run that was recorded from the first directory to the last line."""
    return record(trainer, tmp_path_factory.mktemp("recorded"))


def test_power_loss_at_any_instant_loses_nothing_that_was_reported(recorded, tmp_path):
    """Every prefix, every model: checkpoints whole or absent, the reported ones there, logs up to the newest there."""
    story = recorded.story
    assert sorted(story.saved_at) == [2, 4, 6, 8, 10]
    assert sorted(story.released_at) == [2, 4, 6]
    assert sum(operation.target.endswith("metrics.ndjson.1") for operation in story.log) == 1
    count, faults = sweep(story, tmp_path)
    print(f"{len(story.log)} operations, {count} disks")
    assert not faults, "\n".join([f"{len(faults)} faults", *faults[:20]])


def test_power_loss_at_the_end_leaves_every_file(recorded, tmp_path):
    """When the run has ended, all of it is on the disk, names included; nothing went past the storage."""
    ends = [loss for loss in losses(recorded.story) if loss.instant == len(recorded.story.log)]
    files = [entry for entry in recorded.root.rglob("*") if entry.is_file() and entry.name not in IGNORED]
    assert len(files) > 30
    for number, loss in enumerate(ends):
        build(loss.tree, tmp_path / str(number))
        for file in files:
            there = tmp_path / str(number) / file.relative_to(recorded.root)
            assert there.read_bytes() == file.read_bytes(), (file, loss.model)


@pytest.mark.full("power")
def test_power_loss_and_resume_ends_in_the_same_bytes(recorded, trainer, tmp_path):
    """From disks of every model, spread over the run: adapter, optimizer, generators and metrics of a straight run."""
    every = list(losses(recorded.story))
    chosen = [every[len(every) * part // RESUMED + part % 3] for part in range(RESUMED)]
    assert len({loss.model for loss in chosen}) > 3
    for number, loss in enumerate(chosen):
        root = tmp_path / str(number)
        build(loss.tree, root)
        assert resume(trainer, root) == recorded.outcome, f"instant {loss.instant}, {loss.model}"


@pytest.mark.full("power")
def test_power_loss_during_a_resume_loses_nothing_either(recorded, trainer, tmp_path):
    """The power fails in the middle of a run, and again at every instant of the resume."""
    after = recorded.story.saved_at[6] + 30
    loss = next(loss for loss in losses(recorded.story) if loss.instant >= after and loss.model[1] == "torn")
    build(loss.tree, tmp_path / "resumed")
    resumed = record(trainer, tmp_path / "resumed", "run.resume_from=latest")
    assert resumed.outcome == recorded.outcome
    count, faults = sweep(resumed.story, tmp_path / "disks")
    print(f"{len(resumed.story.log) - resumed.story.began_at} operations, {count} disks")
    assert not faults, "\n".join([f"{len(faults)} faults", *faults[:20]])

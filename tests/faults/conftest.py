"""Training in this process with collaborators of the test's choice, for faults that need no process of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from codex_ml.tracking.opening import TrackingDependencies

STEPS = 4


@dataclass(frozen=True)
class TrainedRun:
    """What a run left behind and what it said."""

    directory: Path
    said: list[str]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of a kind."""
        return [event for event in self.lines("events.ndjson") if event["kind"] == kind]

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Return the records of an NDJSON file."""
        return [json.loads(line) for line in (self.directory / name).read_text("utf-8").split("\n") if line]

    def record(self) -> dict[str, Any]:
        """Return run.json."""
        return json.loads((self.directory / "run.json").read_text("utf-8"))

    def weights(self) -> bytes:
        """Return the bytes of the final adapter."""
        return (self.directory / f"checkpoints/step-{STEPS:08d}/adapter_model.safetensors").read_bytes()


@dataclass(frozen=True)
class TrainHere:
    """Trains a tiny adapter for a few steps in this process."""

    model: Path
    data: Path
    working_directory: Path
    said: list[str] = field(default_factory=list)

    def __call__(self, *overrides: str, tracking: TrackingDependencies | None = None) -> TrainedRun:
        """Train, and return what came of it; the run directory must be the only one of its name."""
        from codex_ml.config.compose import compose
        from codex_ml.config.validate import validate_train
        from codex_ml.recipes.train import TrainCollaborators, train

        said: list[str] = []
        values = [
            f"model.path={self.model}",
            f"data.path={self.data}",
            f"training.max_steps={STEPS}",
            "training.logging_steps=2",
            "training.learning_rate=1e-2",
            *overrides,
        ]
        composed = compose("train", "default", None, values, working_directory=self.working_directory, environment={})
        outside = TrainCollaborators(say=said.append)
        if tracking is not None:
            outside = TrainCollaborators(say=said.append, tracking=tracking)
        outcome = train(validate_train(composed), outside)
        assert outcome.directory is not None
        return TrainedRun(outcome.directory, [*said, *outcome.lines])


@pytest.fixture(scope="session")
def trainer_in(tiny_llama_directory: Path, small_records: Path) -> Callable[[Path], TrainHere]:
    """Return what makes a `TrainHere` for a working directory."""
    return lambda directory: TrainHere(tiny_llama_directory, small_records, directory)


@pytest.fixture
def train_here(trainer_in: Callable[[Path], TrainHere], tmp_path: Path) -> TrainHere:
    """Return what trains in the directory of the test."""
    return trainer_in(tmp_path)

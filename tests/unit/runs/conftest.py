"""What the tests of runs share: a run directory with checkpoints, as training leaves it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from codex_ml.io.atomic import Storage
from codex_ml.runs.checkpoints import checkpoint_name
from codex_ml.runs.layout import RunLayout, RunRecord, close_record, create_run
from codex_ml.runs.manifest import write_manifest

STARTED = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., tuple[RunLayout, RunRecord]]:
    """Return a function that makes a run below ``tmp_path / "runs"``; ended unless asked otherwise."""

    def make(name: str = "a", started: datetime = STARTED, status: Any = "FINISHED") -> tuple[RunLayout, RunRecord]:
        layout, record = create_run(tmp_path / "runs", name, started, Storage())
        if status != "RUNNING":
            record = close_record(layout, record, status, started, Storage())
        return layout, record

    return make


@pytest.fixture
def add_checkpoint() -> Callable[..., Path]:
    """Return a function that adds a checkpoint with its trainer state and manifest to a run."""

    def add(layout: RunLayout, step: int, best_metric: float | None = None) -> Path:
        directory = layout.checkpoints / checkpoint_name(step)
        directory.mkdir()
        (directory / "adapter_model.safetensors").write_bytes(b"weights of step %d" % step)
        state = {"trainer": {"step": step, "best_metric": best_metric}}
        (directory / "trainer_state.json").write_text(json.dumps(state))
        write_manifest(directory, {"step": step, "kind": "adapter"}, Storage())
        return directory

    return add

"""A run directory held against itself: what lies aside, and what `best` names before any validation."""

from __future__ import annotations

import shutil

import pytest

from codex_ml.io.atomic import Storage
from codex_ml.runs.checkpoints import write_pointer
from codex_ml.runs.directory_checks import check_checkpoints
from codex_ml.runs.layout import RunLayout, RunRecord
from codex_ml.runs.verification import Check, allow

Run = tuple[RunLayout, RunRecord]
PLACE = "abandoned-20261122T120000Z/step-00000004"


@pytest.fixture
def run(make_run, add_checkpoint) -> Run:
    """Return a run with a checkpoint, and a damaged one of a later step set aside."""
    layout, record = make_run()
    add_checkpoint(layout, 2)
    later = add_checkpoint(layout, 4)
    aside = layout.checkpoints / PLACE
    aside.parent.mkdir()
    shutil.move(later, aside)
    (aside / "adapter_model.safetensors").write_bytes(b"other")
    for pointer in ("latest", "best"):
        write_pointer(layout.checkpoints, pointer, 2, Storage())
    return layout, record


def _checks(run: Run, damaged_before: dict[str, str]) -> dict[str, Check]:
    return {check.key: check for check in check_checkpoints(*run, {}, damaged_before)}


def test_check_checkpoints_damaged_before_set_aside_is_noted(run) -> None:
    """What the run said then is no later change: it is shown, with what is wrong now where that is something else."""
    check = _checks(run, {PLACE: "its weights differ"})[f"checkpoints/{PLACE}"]
    assert (check.state, check.fails) == ("noted", False)
    assert check.note.startswith("was already damaged when it was set aside: its weights differ; now: ")
    assert f"checkpoints/{PLACE}/manifest.json.run_id" not in _checks(run, {PLACE: "its weights differ"})


def test_check_checkpoints_damaged_aside_without_event_differs_until_allowed(run) -> None:
    """Nobody said that it was damaged then; its key excuses it with what stands below it."""
    checks = _checks(run, {"abandoned-other/step-00000004": "its weights differ"})
    key = f"checkpoints/{PLACE}"
    assert checks[key].state == "differs"
    assert not any(check.fails for check in allow(checks.values(), [key]) if check.key.startswith(key))


def test_check_checkpoints_best_before_validation_is_called_the_newest(run) -> None:
    """A pointer that could not choose is not passed off as one that did."""
    assert "none validated yet" in _checks(run, {})["checkpoints/best"].note

"""Which checkpoints a run itself found damaged before it set them aside, by its events."""

from __future__ import annotations

import json
from pathlib import Path

from codex_ml.recipes.verify.run import damaged_when_set_aside
from codex_ml.runs.checkpoints import GIVEN_UP
from codex_ml.runs.layout import RunLayout

Event = dict[str, object]
STARTED: Event = {"kind": "run_started"}


def _events(directory: Path, *events: Event) -> RunLayout:
    layout = RunLayout(directory)
    layout.events.write_text("".join(json.dumps(event) + "\n" for event in events))
    return layout


def _aside(*places: str) -> Event:
    return {"kind": "checkpoints_set_aside", "checkpoints": list(places)}


def _passed_over(name: str, reason: str) -> Event:
    return {"kind": "checkpoint_passed_over", "checkpoint": name, "reason": reason}


def test_damaged_when_set_aside_is_the_one_that_the_same_process_moved(tmp_path: Path) -> None:
    """A step may lie aside twice; only the one of the process that found it damaged was damaged then."""
    layout = _events(
        tmp_path,
        *(STARTED, _aside("abandoned-A/step-00000004")),
        *(STARTED, _aside("abandoned-B/step-00000004", "abandoned-B/step-00000006")),
        _passed_over("step-00000004", "weights differ"),
        *(STARTED, _passed_over("step-00000006", "another process")),
    )
    assert damaged_when_set_aside(layout) == {"abandoned-B/step-00000004": "weights differ"}


def test_damaged_when_set_aside_said_in_the_other_order_is_the_same(tmp_path: Path) -> None:
    """What was passed over may be said before what was moved."""
    layout = _events(tmp_path, STARTED, _passed_over("step-00000004", "torn"), _aside("abandoned-A/step-00000004"))
    assert damaged_when_set_aside(layout) == {"abandoned-A/step-00000004": "torn"}


def test_damaged_when_set_aside_given_up_was_never_read(tmp_path: Path) -> None:
    """A checkpoint that was passed over because its future was given up may be whole: that excuses nothing."""
    layout = _events(
        tmp_path, STARTED, _aside("abandoned-A/step-00000004"), _passed_over("step-00000004", f"{GIVEN_UP} 2")
    )
    assert damaged_when_set_aside(layout) == {}


def test_damaged_when_set_aside_no_events_none(tmp_path: Path) -> None:
    """Without a log nothing is excused."""
    assert damaged_when_set_aside(RunLayout(tmp_path)) == {}

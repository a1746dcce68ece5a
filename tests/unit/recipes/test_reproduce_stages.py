"""The stages of a run out of its events: plans, resumes, and what a resume gave up."""

from __future__ import annotations

from typing import Any

import pytest

from codex_ml.recipes.reproduce import Stage, stages_of


def processes(*begun: tuple[int, int]) -> list[dict[str, Any]]:
    """Return the events of processes that went on from a step under a plan: (step, planned)."""
    return [
        event
        for step, planned in begun
        for event in ({"kind": "run_started"}, {"kind": "plan", "steps": planned}, {"kind": "rewound", "step": step})
    ]


@pytest.mark.parametrize(
    ("begun", "last_step", "total", "expected"),
    [
        ([(0, 8)], 8, 8, [Stage(8, 8)]),
        ([(0, 8)], 5, 8, [Stage(8, 5)]),
        ([(0, 8), (3, 8), (6, 8)], 8, 8, [Stage(8, 8)]),
        ([(0, 4), (4, 8)], 8, 8, [Stage(4, 4), Stage(8, 8)]),
        ([(0, 8), (3, 6)], 6, 6, [Stage(8, 3), Stage(6, 6)]),
        ([(0, 4), (4, 8), (2, 8)], 8, 8, [Stage(4, 2), Stage(8, 8)]),
        ([(0, 4), (4, 8), (0, 8)], 8, 8, [Stage(8, 8)]),
        ([(0, 4), (4, 8)], 4, 4, [Stage(4, 4)]),
        ([(0, 4), (2, 8), (4, 4)], 6, 4, [Stage(4, 2), Stage(8, 4), Stage(4, 6)]),
    ],
)
def test_stages_of_processes_are_those_still_part_of_the_run(begun, last_step, total, expected) -> None:
    """Equal plans are one stage, other plans another, and what was given up is none."""
    assert stages_of(processes(*begun), last_step, total) == expected


@pytest.mark.parametrize(
    "events",
    [[], [{"kind": "plan", "steps": "8"}], processes((2, 8)), processes((0, 6)), [{"kind": "rewound", "step": 0}]],
)
def test_stages_of_lost_events_are_one_stage_as_the_checkpoint_says(events) -> None:
    """Where the events do not lead to the checkpoint, it is its own word."""
    assert stages_of(events, 8, 8) == [Stage(8, 8)]


def test_stages_of_other_intervals_begin_a_stage_with_their_settings() -> None:
    """A resume may change which steps are logged; the events keep what each process had."""
    events = [
        event
        for step, logging_steps in ((0, 2), (3, 2), (5, 1))
        for event in (
            {"kind": "params", "params": {"training.logging_steps": logging_steps, "training.eval_steps": None}},
            *processes((step, 8)),
        )
    ]
    before, after = ({"logging_steps": each, "eval_steps": None} for each in (2, 1))
    assert stages_of(events, 8, 8) == [Stage(8, 5, before), Stage(8, 8, after)]

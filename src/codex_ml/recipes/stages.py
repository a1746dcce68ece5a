"""What a run did, in stages: how many steps were planned, and up to which step that plan was followed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stage:
    """A part of a run under one plan; the learning rate depends on the steps that are planned.

    Attributes
    ----------
    total_steps : int
        Steps that were planned.
    last_step : int
        The last step that was made under this plan and is still part of the run.
    """

    total_steps: int
    last_step: int


def stages_of(events: Iterable[Mapping[str, Any]], last_step: int, total_steps: int) -> list[Stage]:
    """Return the stages that lead to a checkpoint.

    Each process of a run writes its plan, then the step from which it goes on (``rewound``). Processes of one plan are
    one stage: a resumed run is the same as one that was never interrupted. What a resume gave up is no part of it.

    Parameters
    ----------
    events : iterable of mapping
        The run's ``events.ndjson``, oldest first.
    last_step : int
        Step of the checkpoint.
    total_steps : int
        What the checkpoint itself says was planned; the events may have been lost.
    """
    begun: list[tuple[int, int]] = []  # (first step not made yet, steps planned)
    planned: int | None = None
    for event in events:
        kind, steps, step = event.get("kind"), event.get("steps"), event.get("step")
        if kind == "plan" and isinstance(steps, int):
            planned = steps
        elif kind == "rewound" and isinstance(step, int) and planned is not None:
            begun = [*(item for item in begun if item[0] < step), (step, planned)]
            planned = None
    begun = [item for item in begun if item[0] < last_step]
    if not begun or begun[0][0] != 0 or begun[-1][1] != total_steps:
        return [Stage(total_steps, last_step)]
    ends = [*(start for start, _ in begun[1:]), last_step]
    stages: list[Stage] = []
    for (_, total), end in zip(begun, ends, strict=True):
        if stages and stages[-1].total_steps == total:
            stages.pop()
        stages.append(Stage(total, end))
    return stages

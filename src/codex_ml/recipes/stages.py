"""What a run did, in stages: how many steps were planned, and up to which step that plan was followed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# What a resume may change that shows in metrics, or in where a run ends; the events keep it for every process.
REPLAYED = ("logging_steps", "eval_steps", "early_stopping_patience", "early_stopping_min_delta")

_ABSENT = object()


@dataclass(frozen=True)
class Stage:
    """A part of a run under one plan; the learning rate depends on the steps that are planned.

    Attributes
    ----------
    total_steps : int
        Steps that were planned.
    last_step : int
        The last step that was made under this plan and is still part of the run.
    settings : mapping
        Values of `REPLAYED` as the process had them; empty where the events do not say.
    """

    total_steps: int
    last_step: int
    settings: Mapping[str, Any] = field(default_factory=dict)


def stages_of(events: Iterable[Mapping[str, Any]], last_step: int, total_steps: int) -> list[Stage]:
    """Return the stages that lead to a checkpoint.

    Each process of a run writes its settings and its plan, then the step from which it goes on (``rewound``). Processes
    of one plan and one such set of settings are one stage: a resumed run is the same as one that was never interrupted.
    What a resume gave up is no part of it.

    Parameters
    ----------
    events : iterable of mapping
        The run's ``events.ndjson``, oldest first.
    last_step : int
        Step of the checkpoint.
    total_steps : int
        What the checkpoint itself says was planned; the events may have been lost.
    """
    begun: list[tuple[int, int, dict[str, Any]]] = []  # (first step not made yet, steps planned, settings)
    planned: int | None = None
    settings: dict[str, Any] = {}
    for event in events:
        kind, steps, step = event.get("kind"), event.get("steps"), event.get("step")
        params = event.get("params")
        if kind == "params" and isinstance(params, dict):
            named = {name: params.get(f"training.{name}", _ABSENT) for name in REPLAYED}
            settings = {name: value for name, value in named.items() if value is not _ABSENT}
        elif kind == "plan" and isinstance(steps, int):
            planned = steps
        elif kind == "rewound" and isinstance(step, int) and planned is not None:
            begun = [*(item for item in begun if item[0] < step), (step, planned, settings)]
            planned, settings = None, {}
    begun = [item for item in begun if item[0] < last_step]
    if not begun or begun[0][0] != 0 or begun[-1][1] != total_steps:
        return [Stage(total_steps, last_step)]
    ends = [*(start for start, _, _ in begun[1:]), last_step]
    stages: list[Stage] = []
    for (_, total, process_settings), end in zip(begun, ends, strict=True):
        if stages and (stages[-1].total_steps, stages[-1].settings) == (total, process_settings):
            stages.pop()
        stages.append(Stage(total, end, process_settings))
    return stages

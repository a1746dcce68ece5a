"""The learning rate as a pure function of the optimizer step: warm-up, then constant, linear or cosine."""

from __future__ import annotations

import math
from collections.abc import Callable

from codex_ml.registry import Registry

# From progress in [0, 1) after the warm-up to a factor in (0, 1].
Decay = Callable[[float], float]


def _constant(_: float) -> float:
    return 1.0


def _linear(progress: float) -> float:
    return 1.0 - progress


def _cosine(progress: float) -> float:
    """Half a cosine without restarts (Loshchilov and Hutter 2017, arXiv:1608.03983, one cycle)."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


SCHEDULES: Registry[Decay] = Registry("schedule", group="codex_ml.schedules")
SCHEDULES.register("constant", _constant)
SCHEDULES.register("linear", _linear)
SCHEDULES.register("cosine", _cosine)


def learning_rate_at(step: int, total_steps: int, warmup_steps: int, peak: float, schedule: str) -> float:
    """Return the learning rate of one optimizer step.

    Being a function of the step alone it needs no state: a resumed run continues the curve by construction. Steps are
    real optimizer steps, whatever the accumulation or the number of processes.

    Parameters
    ----------
    step : int
        Optimizer step, counted from 0.
    total_steps : int
        Steps of the whole run.
    warmup_steps : int
        Steps that rise linearly to the peak, the last of which uses the peak itself.
    peak : float
        Highest learning rate.
    schedule : str
        Name in `SCHEDULES`.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * SCHEDULES.get(schedule)(min(progress, 1.0))

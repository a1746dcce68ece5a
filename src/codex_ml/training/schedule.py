"""The learning rate as a pure function of the optimizer step: warm-up, then constant, linear or cosine."""

from __future__ import annotations

import math

from codex_ml.components import SCHEDULES


def constant(_: float) -> float:
    """Return 1: the peak until the end."""
    return 1.0


def linear(progress: float) -> float:
    """Return a straight line from 1 to 0."""
    return 1.0 - progress


def cosine(progress: float) -> float:
    """Return half a cosine without restarts (Loshchilov and Hutter 2017, arXiv:1608.03983, one cycle)."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


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
        Name in `codex_ml.components.SCHEDULES`.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * float(SCHEDULES.get(schedule)(min(progress, 1.0)))

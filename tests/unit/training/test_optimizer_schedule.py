"""The learning rate is the formula, step by step."""

from __future__ import annotations

import itertools
import math

import pytest

from codex_ml.errors import UserError
from codex_ml.registry import SCHEDULES
from codex_ml.training.optimizer import learning_rate_at

PEAK, TOTAL, WARMUP = 0.5, 20, 4


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_learning_rate_at_warmup_rises_linearly_to_the_peak(schedule: str) -> None:
    """The last warm-up step uses the peak itself, and no step uses zero."""
    rates = [learning_rate_at(step, TOTAL, WARMUP, PEAK, schedule) for step in range(WARMUP)]
    assert rates == [0.125, 0.25, 0.375, 0.5]


@pytest.mark.parametrize("warmup", [0, WARMUP])
def test_learning_rate_at_after_warmup_follows_each_formula(warmup: int) -> None:
    """Constant, linear to zero and half a cosine over the steps after the warm-up."""
    for step in range(warmup, TOTAL):
        progress = (step - warmup) / (TOTAL - warmup)
        assert learning_rate_at(step, TOTAL, warmup, PEAK, "constant") == PEAK
        assert learning_rate_at(step, TOTAL, warmup, PEAK, "linear") == pytest.approx(PEAK * (1 - progress))
        cosine = PEAK * (1 + math.cos(math.pi * progress)) / 2
        assert learning_rate_at(step, TOTAL, warmup, PEAK, "cosine") == pytest.approx(cosine)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_learning_rate_at_decay_falls_and_the_last_step_still_learns(schedule: str) -> None:
    """Every step of a run has a rate above zero; beyond its end there is none."""
    rates = [learning_rate_at(step, TOTAL, 0, PEAK, schedule) for step in range(TOTAL + 3)]
    assert rates[0] == PEAK
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[:TOTAL]))
    assert rates[TOTAL - 1] > 0
    assert rates[TOTAL:] == pytest.approx([0.0] * 3)


def test_learning_rate_at_warmup_longer_than_run_only_rises() -> None:
    """A run that ends in its warm-up never reaches the peak."""
    rates = [learning_rate_at(step, 3, 10, 1.0, "cosine") for step in range(3)]
    assert rates == pytest.approx([0.1, 0.2, 0.3])


def test_schedules_unknown_name_lists_the_known() -> None:
    """The registry names what there is."""
    assert SCHEDULES.names() == ["constant", "cosine", "linear"]
    with pytest.raises(UserError, match="unknown schedule"):
        learning_rate_at(0, 1, 0, 1.0, "step")

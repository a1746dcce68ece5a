"""The verdict on a tokenizer step, on a clock that only the step moves."""

from __future__ import annotations

import pytest

from codex_ml.models.tokenizer_probe import Probe, judge


class _Step:
    """Takes a given time for a text."""

    def __init__(self, seconds_per_character: float, exponent: int) -> None:
        self._seconds, self._exponent, self.now = seconds_per_character, exponent, 0.0

    def __call__(self, text: str) -> None:
        self.now += self._seconds * len(text) ** self._exponent

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds_per_character", "exponent", "fault"),
    [
        pytest.param(1e-6, 1, None, id="linear"),
        pytest.param(1e-9, 2, "square", id="quadratic"),
        pytest.param(1e-7, 2, "more than 0.25 seconds", id="slow"),
        # 20 ms for 32,000 characters: a step of a regular expression takes at least 25 times as long.
        pytest.param(2e-11, 2, None, id="too fast to tell"),
    ],
)
def test_judge_by_the_growth_of_the_time(seconds_per_character: float, exponent: int, fault: str | None) -> None:
    """Only times that can be compared count."""
    step = _Step(seconds_per_character, exponent)
    verdict = judge(step, [Probe("", "a", "!", 8_000)], step.clock)
    assert verdict is None if fault is None else verdict is not None and fault in verdict


def test_judge_noise_of_short_times_is_no_fault() -> None:
    """A text four times as long takes twenty times as long, all below a millisecond (page faults)."""
    step = _Step(0, 1)

    def transform(text: str) -> None:
        step.now += 0.0009 if len(text) > 4_000 else 0.00004

    assert judge(transform, [Probe("", "a", "!", 8_000)], step.clock) is None

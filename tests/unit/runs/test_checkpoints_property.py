"""Names and order of checkpoints for any steps."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from codex_ml.runs.checkpoints import checkpoint_name, list_checkpoints, step_of
from tiers import examples


@examples(200)
@given(st.integers(min_value=0, max_value=10**12))
def test_step_of_any_step_round_trips(step: int) -> None:
    """The name gives the step back."""
    assert step_of(Path(checkpoint_name(step))) == step


@examples(30)
@given(st.lists(st.integers(min_value=0, max_value=10**10), unique=True, max_size=8))
def test_list_checkpoints_any_steps_are_sorted(steps: list[int]) -> None:
    """Whatever the order of making, the order of listing is by number."""
    with tempfile.TemporaryDirectory() as directory:
        for step in steps:
            (Path(directory) / checkpoint_name(step)).mkdir()
        assert [step for step, _ in list_checkpoints(Path(directory))] == sorted(steps)

"""The counters of a run: what is best, what counts against patience, and their JSON."""

from __future__ import annotations

import json

import pytest

from codex_ml.errors import CheckpointError
from codex_ml.training.checkpoint.state import TrainerState


def test_to_json_round_trip_through_text_is_equal() -> None:
    """Every field survives, floats bit for bit."""
    state = TrainerState(
        step=7,
        trained_tokens=10**12,
        masked_tokens=3,
        padding_tokens=4,
        interval_loss_sum=0.1 + 0.2,
        interval_tokens=9,
        best_metric=1 / 3,
        best_step=5,
        evaluations_without_improvement=2,
        patience_metric=0.5,
        validation_losses={5: 1 / 3, 7: 2 / 3},
        stop_reason="asked",
    )
    assert TrainerState.from_json(json.loads(json.dumps(state.to_json()))) == state
    assert TrainerState.from_json(TrainerState().to_json()) == TrainerState()


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_from_json_other_fields_are_refused_and_named(change: str) -> None:
    """A state of another version is not guessed at."""
    values = TrainerState().to_json()
    if change == "missing":
        del values["masked_tokens"]
    else:
        values["sampler_epoch"] = 1
    with pytest.raises(CheckpointError, match="other fields") as caught:
        TrainerState.from_json(values)
    assert ("masked_tokens" if change == "missing" else "sampler_epoch") in caught.value.why


def test_note_validation_lower_loss_is_best_and_resets_patience() -> None:
    """The lowest loss is the best; equal is not better."""
    state = TrainerState()
    outcomes = []
    for step, loss in ((1, 2.0), (2, 3.0), (3, 2.0), (4, 1.0)):
        state.step = step
        outcomes.append((state.note_validation(loss, 0.0), state.evaluations_without_improvement))
    assert outcomes == [(True, 0), (False, 1), (False, 2), (True, 0)]
    assert (state.best_metric, state.best_step) == (1.0, 4)
    assert state.validation_losses == {1: 2.0, 2: 3.0, 3: 2.0, 4: 1.0}


def test_note_validation_fall_below_min_delta_is_best_but_costs_patience() -> None:
    """A checkpoint a little better is kept as the best, yet does not prolong training."""
    state = TrainerState()
    assert state.note_validation(1.0, 0.1)
    assert state.note_validation(0.95, 0.1)
    assert (state.best_metric, state.evaluations_without_improvement) == (0.95, 1)


def test_note_validation_small_falls_that_add_up_to_min_delta_reset_patience() -> None:
    """Measured from the loss that last reset patience: steady progress is progress, as Keras and Lightning count it."""
    state = TrainerState()
    counts = []
    for step, loss in enumerate((1.00, 0.95, 0.90, 0.85, 0.80), start=1):
        state.step = step
        assert state.note_validation(loss, 0.08)
        counts.append(state.evaluations_without_improvement)
    assert counts == [0, 1, 0, 1, 0]
    assert (state.best_metric, state.patience_metric) == (0.80, 0.80)

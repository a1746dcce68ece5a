"""How a step is cut into passes where the config leaves that to the memory at hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.config.compose import compose
from codex_ml.config.schema.root import TrainConfig
from codex_ml.config.validate import validate_train
from codex_ml.recipes.train.plan import largest_that_fits, restore_micro_batch_size, with_micro_batch_size


def config(*overrides: str) -> TrainConfig:
    """Return a config whose paths nobody looks at."""
    return validate_train(compose("train", overrides=["model.path=base", "data.path=data.jsonl", *overrides]))


@given(
    records=st.integers(1, 96), bytes_a_record=st.integers(1, 50), fixed=st.integers(0, 500), room=st.integers(0, 4000)
)
def test_largest_that_fits_is_the_largest_divisor_in_the_room(
    records: int, bytes_a_record: int, fixed: int, room: int
) -> None:
    """Of all cuts of a step into equal passes; one record where nothing fits."""

    def plan_with(size: int) -> Any:
        return SimpleNamespace(total_bytes=fixed + bytes_a_record * size)

    fitting = [n for n in range(1, records + 1) if records % n == 0 and fixed + bytes_a_record * n <= room]
    size, plan = largest_that_fits(records, room, plan_with)
    assert size == max(fitting, default=1)
    assert plan.total_bytes == fixed + bytes_a_record * size


def test_cut_into_keeps_the_records_of_a_step() -> None:
    """Eight for each accumulated micro-batch, as without auto."""
    asked = config("training.micro_batch_size=auto", "training.gradient_accumulation_steps=3")
    assert asked.training.records_per_step == 24
    cut = with_micro_batch_size(asked, 4).training
    assert (cut.micro_batch_size, cut.gradient_accumulation_steps, cut.records_per_step) == (4, 6, 24)


@pytest.mark.parametrize(
    ("saved", "expected"),
    [((2, 4), 2), ((8, 1), 8), ((4, 4), "auto"), ((None, None), "auto"), (("auto", 1), "auto")],
    ids=["smaller", "whole", "another step", "nothing there", "no number"],
)
def test_cut_as_before_takes_what_the_run_had_chosen(saved: tuple[Any, Any], expected: Any) -> None:
    """Of the same step only: another one is another run, and is told so later."""
    fingerprint = {"training.micro_batch_size": saved[0], "training.gradient_accumulation_steps": saved[1]}
    loaded: Any = SimpleNamespace(values={"fingerprint": fingerprint})
    assert (
        restore_micro_batch_size(config("training.micro_batch_size=auto"), loaded).training.micro_batch_size == expected
    )


def test_cut_as_before_leaves_a_number_alone() -> None:
    """Whoever names a number gets it, and is told if the run had another."""
    loaded: Any = SimpleNamespace(
        values={"fingerprint": {"training.micro_batch_size": 2, "training.gradient_accumulation_steps": 4}}
    )
    assert restore_micro_batch_size(config("training.micro_batch_size=8"), loaded).training.micro_batch_size == 8
    assert restore_micro_batch_size(config("training.micro_batch_size=auto"), None).training.micro_batch_size == "auto"

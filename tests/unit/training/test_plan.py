"""The plan counts steps and bytes as the run will need them, and stops a run that the disk cannot hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from codex_ml.config.schema.training import TrainingSection
from codex_ml.data.batches import BatchLayout, window_of_step
from codex_ml.data.tokenization.tokenizer import TokenizedRecord
from codex_ml.errors import DiskSpaceError
from codex_ml.training.plan import ModelSize, check_disk, count_steps, format_bytes, make_plan

SIZE = ModelSize(
    parameters=1_000,
    trainable=100,
    weight_bytes=4_000,
    adapter_bytes=400,
    layers=2,
    hidden_size=8,
    vocabulary_size=32,
    tokenizer_bytes=1_000,
)


def settings(**values: object) -> TrainingSection:
    """Return a training section."""
    return TrainingSection.model_validate(values)


def record(length: int, supervised: int) -> TokenizedRecord:
    """Return a record of so many tokens, the last so many supervised."""
    mask = tuple(position >= length - supervised for position in range(length))
    return TokenizedRecord("a:1", tuple(range(length)), mask, length - supervised, "", None)


@pytest.mark.parametrize(
    ("values", "records", "expected"),
    [
        ({"micro_batch_size": 8}, 16, (2, 6)),
        ({"micro_batch_size": 8}, 17, (3, 9)),
        ({"micro_batch_size": 8, "epochs": 1}, 3, (1, 1)),
        ({"micro_batch_size": 2, "gradient_accumulation_steps": 4, "epochs": 5}, 17, (3, 15)),
        ({"micro_batch_size": 8, "max_steps": 4}, 17, (3, 4)),
    ],
)
def test_count_steps_last_window_counts_too(values: dict[str, int], records: int, expected: tuple[int, int]) -> None:
    """A smaller last window is a step; without a length there are three epochs."""
    assert count_steps(settings(**values), records) == expected


def test_make_plan_counts_tokens_as_the_loss_does() -> None:
    """The first position is never predicted, so it is not counted as supervised."""
    plan = make_plan(settings(micro_batch_size=2, epochs=1), [record(4, 2), record(3, 3), record(5, 1)], SIZE)
    assert (plan.records, plan.steps_per_epoch, plan.total_steps) == (3, 2, 2)
    assert (plan.tokens_per_epoch, plan.supervised_tokens_per_epoch) == (12, 2 + 2 + 1)


def test_make_plan_memory_and_disk_follow_what_is_trained() -> None:
    """Gradients and two moments of what is trained; the longest micro-batch; one checkpoint more than is kept."""
    plan = make_plan(settings(micro_batch_size=2, keep_last=3, keep_best=2), [record(4, 2), record(5, 1)], SIZE)
    assert plan.memory_bytes == {
        "weights": 4_000,
        "adapter": 400,
        "gradients": 400,
        "optimizer": 800,
        "activations": 68 * 8 * 2 * 10,
        "logits": 2 * 32 * 10 * 4,
    }
    assert plan.checkpoint_bytes > 1_200
    assert plan.disk_bytes == 6 * plan.checkpoint_bytes


@pytest.mark.parametrize(
    ("values", "layout", "positions"),
    [
        ({"micro_batch_size": 3}, "padded", 3 * 9),
        ({"micro_batch_size": 3}, "ragged", 9 + 5 + 4),
        ({"micro_batch_size": 1}, "ragged", 9),
        ({"micro_batch_size": 3, "tokens_per_micro_batch": 12}, "padded", 10),
        ({"micro_batch_size": 3, "tokens_per_micro_batch": 4}, "ragged", 9),
        ({"micro_batch_size": 1, "gradient_accumulation_steps": 3, "tokens_per_micro_batch": 90}, "ragged", 18),
    ],
)
def test_make_plan_activations_are_those_of_the_largest_pass(
    values: dict[str, int], layout: BatchLayout, positions: int
) -> None:
    """By records or by tokens, with padding or without; a record longer than the budget is computed alone."""
    records = [record(4, 2), record(9, 1), record(5, 1)]
    plan = make_plan(settings(**values), records, replace(SIZE, layout=layout))
    assert plan.largest_pass_positions == positions
    assert plan.memory_bytes["activations"] == 68 * 8 * 2 * positions


def test_make_plan_largest_pass_is_that_of_the_runs_own_order() -> None:
    """Two long records that never meet are not planned for; a run too long to look through is planned for the worst."""
    records = [record(4, 2), record(9, 1), record(8, 1), record(5, 1)]
    size = replace(SIZE, layout="ragged")
    chosen = {}
    for seed in range(8):
        windows = [window_of_step(seed, step, 4, 2) for step in range(2)]
        expected = max(sum(len(records[index].input_ids) for index in window) for window in windows)
        plan = make_plan(settings(micro_batch_size=2, max_steps=2), records, size, seed)
        assert plan.largest_pass_positions == expected
        chosen[seed] = expected
    assert set(chosen.values()) == {13, 14, 17}
    assert make_plan(settings(micro_batch_size=2, max_steps=10**6), records, size).largest_pass_positions == 17


def test_make_plan_logits_of_one_chunk_where_they_are_made_in_chunks() -> None:
    """Their gradient takes their place; a pass smaller than a chunk has its own positions only."""
    records = [record(4, 2), record(9, 1)]
    chunked = replace(SIZE, layout="ragged", logit_rows=6)
    assert make_plan(settings(micro_batch_size=2), records, chunked).memory_bytes["logits"] == 32 * 6 * 4
    large = replace(chunked, logit_rows=100)
    assert make_plan(settings(micro_batch_size=2), records, large).memory_bytes["logits"] == 32 * 13 * 4


def test_make_plan_gradient_checkpointing_keeps_inputs_and_one_layer() -> None:
    """Of eight layers one is whole and of each the input is kept; the plan says what that saves, and only then."""
    size = replace(SIZE, layers=8)
    values, records = {"micro_batch_size": 2, "max_steps": 3}, [record(4, 2), record(5, 1)]
    whole = make_plan(settings(**values), records, size)
    saving = make_plan(settings(**values, gradient_checkpointing=True), records, size)
    assert whole.memory_bytes["activations"] == 68 * 8 * 8 * 10
    assert saving.memory_bytes["activations"] == 68 * 8 * 10 + 8 * 8 * 10 * 4
    assert whole.checkpointing_saves_bytes == saving.checkpointing_saves_bytes == 68 * 8 * 7 * 10 - 8 * 8 * 10 * 4
    (line,) = (line for line in saving.lines() if line.startswith("gradient checkpointing: "))
    assert format_bytes(saving.checkpointing_saves_bytes) in line
    assert saving.lines()[2].startswith("memory of tensors")
    assert not any("checkpointing" in line for line in whole.lines())


def test_plan_lines_hold_every_number_for_people() -> None:
    """A dry run prints steps, tokens, memory as an estimate, and disk."""
    lines = make_plan(settings(max_steps=3, micro_batch_size=2), [record(4, 2), record(5, 1)], SIZE).lines()
    assert lines[0] == "steps: 3 (3.00 epochs of 1 steps over 2 records)"
    assert lines[1] == "tokens an epoch: 9, of them supervised 3"
    assert lines[2].startswith("memory of tensors (estimate, by a formula, not counted): ")
    assert lines[3].startswith("disk: ")


def test_check_disk_too_small_stops_with_both_numbers(tmp_path: Path) -> None:
    """The run stops before its first step, and says what it needs and what is there."""
    plan = make_plan(settings(), [record(4, 2)], SIZE)
    check_disk(plan, tmp_path, lambda _: plan.disk_bytes)
    with pytest.raises(DiskSpaceError) as caught:
        check_disk(plan, tmp_path, lambda _: 2**20)
    assert "1.0 MiB free" in caught.value.what
    assert format_bytes(plan.disk_bytes) in caught.value.what


def test_check_disk_checkpoints_that_are_there_need_no_room_again(tmp_path: Path) -> None:
    """A resume is asked for what is missing; the next checkpoint is whole before an old one goes."""
    plan = make_plan(settings(), [record(4, 2)], SIZE)
    one = plan.checkpoint_bytes
    all_of_them = plan.disk_bytes // one
    check_disk(plan, tmp_path, lambda _: plan.disk_bytes - one, already_there=1)
    check_disk(plan, tmp_path, lambda _: one, already_there=all_of_them + 5)
    with pytest.raises(DiskSpaceError, match="in addition to the 1 that exist"):
        check_disk(plan, tmp_path, lambda _: plan.disk_bytes - one - 1, already_there=1)
    with pytest.raises(DiskSpaceError):
        check_disk(plan, tmp_path, lambda _: one - 1, already_there=all_of_them)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 2**20, "5.0 MiB"), (2**30, "1.0 GiB"), (2**42, "4.0 TiB")],
)
def test_format_bytes_binary_units(count: int, text: str) -> None:
    """Bytes in binary units."""
    assert format_bytes(count) == text

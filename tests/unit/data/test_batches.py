"""The order of data, and padded batches."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from codex_ml.data.batches import (
    collate,
    concatenate,
    make_batch,
    micro_batches,
    micro_batches_by_tokens,
    permutation,
    steps_per_epoch,
    window_of_step,
)


@dataclass(frozen=True)
class _Record:
    input_ids: tuple[int, ...]
    supervised: tuple[bool, ...]


def test_permutation_known_arguments_give_the_order_they_always_gave() -> None:
    """Golden values: a change here makes every resumed run see other data."""
    assert permutation(0, 0, 10) == [7, 8, 1, 5, 3, 9, 2, 4, 0, 6]
    assert permutation(0, 1, 10) == [4, 2, 0, 5, 8, 7, 3, 9, 6, 1]


def test_permutation_every_epoch_has_its_own_order_of_all_records() -> None:
    """Each epoch takes every record once, in an order that depends on seed and epoch."""
    orders = [permutation(seed, epoch, 50) for seed in (0, 1, 2**63) for epoch in (0, 1, 2)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 9


def test_window_of_step_covers_each_epoch_with_a_smaller_last_window() -> None:
    """Ten records in windows of four take three steps an epoch, in the order of the epoch's permutation."""
    assert steps_per_epoch(10, 4) == 3
    for epoch in range(3):
        windows = [window_of_step(5, epoch * 3 + step, 10, 4) for step in range(3)]
        assert [len(window) for window in windows] == [4, 4, 2]
        assert [index for window in windows for index in window] == permutation(5, epoch, 10)


def test_window_of_step_is_the_same_whatever_was_asked_before() -> None:
    """There is no state: steps asked backwards, or alone, give what they give forwards."""
    forwards = [window_of_step(3, step, 17, 5) for step in range(40)]
    assert [window_of_step(3, step, 17, 5) for step in reversed(range(40))] == forwards[::-1]


def test_window_of_step_window_larger_than_the_data_takes_all() -> None:
    """A window never repeats a record to fill itself."""
    assert sorted(window_of_step(0, 4, 3, 8)) == [0, 1, 2]


@pytest.mark.parametrize(("count", "window_size"), [(0, 4), (4, 0)])
def test_steps_per_epoch_nothing_to_divide_is_an_error(count: int, window_size: int) -> None:
    """No records, or windows of none, are a fault of the caller."""
    with pytest.raises(ValueError, match="at least 1"):
        steps_per_epoch(count, window_size)


def test_micro_batches_cut_a_window_in_order() -> None:
    """Nothing is dropped and nothing repeated at the end."""
    assert micro_batches([5, 3, 8, 1, 9], 2) == [[5, 3], [8, 1], [9]]
    with pytest.raises(ValueError, match="micro_batch_size"):
        micro_batches([1], 0)


def test_collate_pads_right_and_masks_by_position() -> None:
    """A supervised token with the pad's id keeps its label; padding has none."""
    import torch

    pad = 2
    batch = collate([_Record((1, 5, 2), (False, True, True)), _Record((4,), (False,))], pad)
    assert batch.input_ids.tolist() == [[1, 5, 2], [4, 2, 2]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.labels.tolist() == [[-100, 5, 2], [-100, -100, -100]]
    assert batch.predicting.tolist() == [0, 1]
    assert {batch.input_ids.dtype, batch.attention_mask.dtype, batch.labels.dtype} == {torch.int64}
    assert batch.to("cpu").labels.tolist() == batch.labels.tolist()


def test_concatenate_begins_positions_anew_and_predicts_nothing_across_a_border() -> None:
    """The first token of a record has no label, even where it is supervised; every other keeps its own."""
    import torch

    records = [_Record((1, 5, 2), (False, True, True)), _Record((4, 7), (True, True)), _Record((9,), (True,))]
    batch = concatenate(records)
    assert batch.input_ids.tolist() == [[1, 5, 2, 4, 7, 9]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 0]]
    assert batch.labels.tolist() == [[-100, 5, 2, -100, 7, -100]]
    assert batch.predicting.tolist() == [0, 1, 3]
    assert batch.record_lengths == (3, 2, 1)
    assert (batch.tokens, batch.padding) == (6, 0)
    assert {batch.input_ids.dtype, batch.position_ids.dtype, batch.labels.dtype} == {torch.int64}
    assert batch.to("cpu").position_ids.tolist() == batch.position_ids.tolist()


def test_make_batch_counts_padding_where_there_is_some() -> None:
    """Padded: rows of the longest; ragged: none."""
    records = [_Record((1, 5, 2), (False, True, True)), _Record((4,), (False,))]
    padded, ragged = make_batch(records, 0, "padded"), make_batch(records, 0, "ragged")
    assert (padded.tokens, padded.padding) == (4, 2)
    assert (ragged.tokens, ragged.padding) == (4, 0)


@pytest.mark.parametrize(
    ("padded", "expected"),
    [(False, [[3, 1], [4], [5, 9], [2]]), (True, [[3, 1], [4], [5], [9], [2]])],
)
def test_micro_batches_by_tokens_cuts_where_the_next_record_has_no_room(
    padded: bool, expected: list[list[int]]
) -> None:
    """Records of 4, 4, 20, 3, 5 and 6 tokens in passes of 8 positions; the longest stands alone."""
    assert micro_batches_by_tokens([3, 1, 4, 5, 9, 2], [4, 4, 20, 3, 5, 6], 8, padded=padded) == expected
    with pytest.raises(ValueError, match="micro_batch_tokens"):
        micro_batches_by_tokens([1], [1], 0, padded=padded)

"""Properties of the order of data and of batches."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from codex_ml.data.batches import (
    collate,
    concatenate,
    micro_batches,
    micro_batches_by_tokens,
    steps_per_epoch,
    window_of_step,
)
from tiers import examples


@dataclass(frozen=True)
class _Record:
    input_ids: tuple[int, ...]
    supervised: tuple[bool, ...]


records = st.lists(
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=8).map(
        lambda pairs: _Record(tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs))
    ),
    min_size=1,
    max_size=6,
)


@examples(60)
@given(st.integers(0, 2**63), st.integers(0, 3), st.integers(1, 80), st.integers(1, 90), st.integers(1, 9))
def test_window_of_step_an_epoch_takes_every_record_once(
    seed: int, epoch: int, count: int, window: int, micro: int
) -> None:
    """Windows and micro-batches of one epoch hold each record exactly once."""
    steps = steps_per_epoch(count, window)
    seen = [
        index
        for step in range(steps)
        for part in micro_batches(window_of_step(seed, epoch * steps + step, count, window), micro)
        for index in part
    ]
    assert sorted(seen) == list(range(count))


@examples(60)
@given(records, st.integers(0, 9))
def test_collate_keeps_every_token_and_label(records: list[_Record], pad: int) -> None:
    """What the mask says is what the labels say, whichever id pads."""
    batch = collate(records, pad)
    for row, record in enumerate(records):
        length = len(record.input_ids)
        assert batch.attention_mask[row].sum() == length
        assert tuple(batch.input_ids[row, :length].tolist()) == record.input_ids
        wanted = [
            token if learned else -100 for token, learned in zip(record.input_ids, record.supervised, strict=True)
        ]
        assert batch.labels[row].tolist() == wanted + [-100] * (batch.labels.shape[1] - length)


@examples(60)
@given(records)
def test_concatenate_holds_what_collate_holds(records: list[_Record]) -> None:
    """Cut at its lengths, a row gives the tokens of each record, and the labels that a padded batch predicts."""
    row, padded = concatenate(records), collate(records, 0)
    start = 0
    for index, length in enumerate(row.record_lengths):
        end = start + length
        assert row.input_ids[0, start:end].tolist() == padded.input_ids[index, :length].tolist()
        assert row.position_ids[0, start:end].tolist() == list(range(length))
        assert row.labels[0, start + 1 : end].tolist() == padded.labels[index, 1:length].tolist()
        assert row.labels[0, start] == -100
        start = end
    assert start == row.tokens == padded.tokens


@examples(80)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.integers(1, 60), st.booleans())
def test_micro_batches_by_tokens_hold_every_record_in_order_within_the_budget(
    lengths: list[int], budget: int, padded: bool
) -> None:
    """No pass is larger than asked but for a record that is, and none could have taken the record after it."""

    def positions(part: list[int]) -> int:
        sizes = [lengths[index] for index in part]
        return len(sizes) * max(sizes) if padded else sum(sizes)

    parts = micro_batches_by_tokens(range(len(lengths)), lengths, budget, padded=padded)
    assert [index for part in parts for index in part] == list(range(len(lengths)))
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        assert len(part) == 1 or positions(part) <= budget
        assert following is None or positions([*part, following[0]]) > budget

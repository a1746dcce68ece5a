"""Properties of the order of data and of batches."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.data.batches import collate, micro_batches, steps_per_epoch, window_of_step


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


@settings(deadline=None, max_examples=60, derandomize=True)
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


@settings(deadline=None, max_examples=60, derandomize=True)
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

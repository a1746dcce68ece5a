"""Counts and ranks of hashes, in memory and on disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.data.splits.hash import HashCounts
from tiers import examples

hashes = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**56 - 1, 2**56, 2**63, 2**64 - 1])


@examples(60)
@given(st.lists(hashes, max_size=40), st.integers(1, 50))
def test_hash_counts_any_stream_equals_set_and_sort(values: list[int], most_in_memory: int) -> None:
    """Total, distinct count and every rank are those of the plain list, wherever the hashes lie."""
    with tempfile.TemporaryDirectory() as directory:
        counts = HashCounts(Path(directory) / "hashes", most_in_memory)
        for start in range(0, len(values), 7):
            counts.add(values[start : start + 7])
        assert counts.total == len(values)
        assert counts.distinct() == len(set(values))
        assert [counts.at_rank(rank) for rank in range(len(values))] == sorted(values)


def test_hash_counts_beyond_the_bound_memory_is_emptied(tmp_path: Path) -> None:
    """What was put on disk is held in memory no more; below the bound nothing is written."""
    counts = HashCounts(tmp_path / "hashes", most_in_memory=10)
    counts.add(value << 57 for value in range(9))
    assert not (tmp_path / "hashes").exists()
    counts.add([9 << 57])
    assert sum(file.stat().st_size for file in (tmp_path / "hashes").iterdir()) == 80
    assert not any(counts._buckets)
    with pytest.raises(IndexError):
        counts.at_rank(10)

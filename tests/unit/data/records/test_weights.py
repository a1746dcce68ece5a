"""How often a record stands in an epoch."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.data.records.weights import repeat_count
from codex_ml.data.splits.hash import SplitHasher


@pytest.mark.parametrize(("weight", "counts"), [(1.0, {1}), (2.0, {2}), (0.5, {0, 1}), (2.25, {2, 3}), (0.001, {0, 1})])
def test_copies_of_whole_part_for_all_and_the_rest_for_its_share(weight: float, counts: set[int]) -> None:
    """On average as often as was asked."""
    found = Counter(repeat_count(f"record {number}".encode(), weight) for number in range(20_000))
    assert set(found) <= counts
    assert sum(copies * count for copies, count in found.items()) / 20_000 == pytest.approx(weight, abs=0.02)


@given(st.binary(), st.floats(min_value=0.01, max_value=50.0))
def test_copies_of_larger_weight_never_gives_fewer(raw: bytes, weight: float) -> None:
    """The same record under a larger weight stands there at least as often."""
    assert repeat_count(raw, weight) <= repeat_count(raw, weight + 0.25) <= repeat_count(raw, weight) + 1


def test_copies_of_is_independent_of_the_split() -> None:
    """Which records are left out says nothing about which are in train."""
    hasher = SplitHasher(0)
    raws = [f"record {number}".encode() for number in range(20_000)]
    inside = [raw for raw in raws if hasher(raw) < 1 << 63]
    assert sum(repeat_count(raw, 0.5) for raw in inside) / len(inside) == pytest.approx(0.5, abs=0.02)

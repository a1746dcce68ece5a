"""Distributions of lengths: figures that are lengths of records, bins that hold every record once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.data.inspect.statistics import describe_lengths, picture


@given(st.lists(st.one_of(st.integers(0, 300), st.integers(0, 2**40)), min_size=1, max_size=200))
def test_describe_lengths_any_lengths_add_up(lengths: list[int]) -> None:
    """Bins touch, hold each record once, and are few; percentiles are lengths that occur, in ascending order."""
    found = describe_lengths(np.array(lengths, dtype=np.int64))
    assert (found["total"], found["min"], found["max"]) == (sum(lengths), min(lengths), max(lengths))
    percentiles = list(found["percentiles"].values())
    assert percentiles == sorted(percentiles)
    assert set(percentiles) <= set(lengths)
    bins = found["histogram"]
    assert 1 <= len(bins) <= 13
    assert all(before["to"] + 1 == after["from"] for before, after in pairwise(bins))
    for item in bins:
        assert item["records"] == sum(item["from"] <= length <= item["to"] for length in lengths)


def test_describe_lengths_median_and_mean_are_exact() -> None:
    """The median of four is the second, as it is the length of a record."""
    found = describe_lengths(np.array([1, 2, 4, 100]))
    assert (found["percentiles"]["50"], found["mean"]) == (2, 26.75)


def test_picture_one_outlier_leaves_the_picture_readable() -> None:
    """What is much longer shares the last bin; a bin with two records has a bar, an empty one has none."""
    lengths = np.array([10] * 50 + [55] * 200 + [70] + [100_000])
    lines = list(picture(describe_lengths(lengths)["histogram"], "#"))
    assert [line.split() for line in (lines[0], lines[1], lines[-1])] == [
        ["10", "-", "14", "#" * 10, "50"],
        ["15", "-", "19", "0"],
        ["60", "-", "100,000", "#", "2"],
    ]
    assert lines[-2].split() == ["55", "-", "59", "#" * 40, "200"]

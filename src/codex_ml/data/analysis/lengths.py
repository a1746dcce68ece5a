"""How the lengths of records are distributed: figures for a machine, and a picture for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PERCENTILES = (5, 25, 50, 75, 95, 99)
_MOST_BINS = 12
_BAR_CELLS = 40
_STEPS = (1, 2, 5)


def describe_lengths(lengths: NDArray[np.int64]) -> dict[str, Any]:
    """Return the figures of a distribution.

    Parameters
    ----------
    lengths : array of int
        One for each record, [records]; at least one.

    Returns
    -------
    dict
        ``total``, ``mean``, ``min``, ``max``, ``percentiles`` (by name; each is the length of a record), and
        ``histogram``: bins of equal width with ``from``, ``to`` (inclusive) and ``records``; the few longest share one
        bin at the end, so that they leave the picture readable.
    """
    percentiles = np.percentile(lengths, _PERCENTILES, method="inverted_cdf")
    return {
        "total": int(lengths.sum()),
        "mean": round(float(lengths.mean()), 2),
        "min": int(lengths.min()),
        "max": int(lengths.max()),
        "percentiles": {str(name): int(value) for name, value in zip(_PERCENTILES, percentiles.tolist(), strict=True)},
        "histogram": _histogram(lengths, int(percentiles[-1])),
    }


def picture(histogram: Sequence[Mapping[str, int]], bar: str = "█") -> Iterator[str]:
    """Yield a line for each bin: its borders, a bar, and how many records it holds; a bin that holds one has a bar."""
    width = max(len(f"{item['to']:,}") for item in histogram)
    most = max(item["records"] for item in histogram)
    for item in histogram:
        cells = -(-item["records"] * _BAR_CELLS // most)
        yield f"{item['from']:>{width},} - {item['to']:>{width},}  {bar * cells:<{_BAR_CELLS}}  {item['records']:,}"


def _histogram(lengths: NDArray[np.int64], most_common_end: int) -> list[dict[str, int]]:
    shortest, longest = int(lengths.min()), int(lengths.max())
    width = _round_width(most_common_end - shortest + 1)
    first = shortest // width
    bin_count = most_common_end // width - first + 1
    # What is longer than 99 of 100 shares one bin at the end, however long it is.
    has_longer = longest // width - first >= bin_count
    counts = np.bincount(np.minimum(lengths // width - first, bin_count), minlength=bin_count + has_longer).tolist()
    starts = [(first + index) * width for index in range(len(counts))]
    ends = [start + width - 1 for start in starts]
    if has_longer:
        ends[-1] = longest
    return [
        {"from": start, "to": end, "records": count} for start, end, count in zip(starts, ends, counts, strict=True)
    ]


def _round_width(span: int) -> int:
    """Return the least of 1, 2, 5, 10, 20, 50 … of which so many cover a span that the picture stays small."""
    scale = 1
    while True:
        for step in _STEPS:
            if span <= step * scale * (_MOST_BINS - 1):
                return step * scale
        scale *= 10

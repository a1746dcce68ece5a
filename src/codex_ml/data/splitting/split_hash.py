"""Where a key belongs: a keyed hash against thresholds, in whole numbers, the same on every machine."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from fractions import Fraction

from codex_ml.errors import DataError

_HASH_BYTES = 8
HASH_RANGE = 1 << (8 * _HASH_BYTES)
_SUM_TOLERANCE = Fraction(1, 10**6)
_FIX_RATIOS = "write shares that sum to 1: --ratios 0.8,0.1,0.1 on the command line, data.split.ratios=[0.8,0.1,0.1]"


class SplitHasher:
    """Gives each key a whole number from 0 to 2**64 - 1 under a seed; two keys that share one are one group."""

    def __init__(self, seed: int) -> None:
        hash_key = hashlib.blake2b(f"codex-ml split {seed}".encode(), digest_size=32).digest()
        self._fresh = hashlib.blake2b(digest_size=_HASH_BYTES, key=hash_key)

    def __call__(self, key: bytes) -> int:
        """Return the hash of a key."""
        hasher = self._fresh.copy()
        hasher.update(key)
        return int.from_bytes(hasher.digest(), "big")


def shares_of(ratios: Sequence[float], split_count: int) -> list[Fraction]:
    """Return the shares as they were meant: 0.1 is one tenth, and tenths sum to exactly 1.

    Raises
    ------
    DataError
        Unless there are as many shares as splits, none is below 0, and they sum to 1 (within one millionth).
    """
    shown = ", ".join(repr(ratio) for ratio in ratios)
    if len(ratios) != split_count:
        raise DataError(
            f"ratios: {len(ratios)} shares instead of {split_count}, one for each split",
            why=f"given: {shown}",
            fix=f"{_FIX_RATIOS}; --names names as many splits as there are shares",
        )
    try:
        shares = [Fraction(str(ratio)) for ratio in ratios]
    except ValueError as error:
        raise DataError(f"ratios: not all are numbers: {shown}", fix=_FIX_RATIOS) from error
    if any(share < 0 for share in shares):
        raise DataError(f"ratios: a share is below 0: {shown}", fix=_FIX_RATIOS)
    if abs(sum(shares, Fraction(0)) - 1) > _SUM_TOLERANCE:
        raise DataError(f"ratios: the shares sum to {float(sum(shares)):g}, not to 1: {shown}", fix=_FIX_RATIOS)
    return shares


def thresholds_by_value(shares: Sequence[Fraction]) -> list[int]:
    """Return the hash below which each split ends; they depend on nothing else, so no record can move another."""
    return _borders(shares, HASH_RANGE)


def thresholds_by_rank(shares: Sequence[Fraction], count: int, hash_at: Callable[[int], int]) -> list[int]:
    """Return the hash below which each split ends, so that sizes are exact but for the group at each border.

    Parameters
    ----------
    shares : sequence of Fraction
        From `shares_of`.
    count : int
        How many records there are.
    hash_at : callable
        Rank (0-based) -> hash of the record of that rank in ascending order, duplicates counted.
    """
    # The group that reaches over a border began before it, and stays whole before it.
    return [
        HASH_RANGE if border >= count else hash_at(border - 1) + 1 if border else 0
        for border in _borders(shares, count)
    ]


def split_of(hash_value: int, thresholds: Sequence[int]) -> int:
    """Return the split (0-based) that a hash falls into."""
    return bisect_right(thresholds, hash_value)


def _borders(shares: Sequence[Fraction], total: int) -> list[int]:
    """Return the upper border of each share on a scale from 0 to ``total``, rounded half up."""
    last = max(index for index, share in enumerate(shares) if share > 0)
    borders: list[int] = []
    cumulative = Fraction(0)
    for index, share in enumerate(shares):
        cumulative += share
        borders.append(total if index >= last else min(total, int(cumulative * total + Fraction(1, 2))))
    return borders

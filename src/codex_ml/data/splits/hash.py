"""Split membership by a keyed hash, and how often a hash occurs."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path

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
            code="DATA_SPLIT_RATIO_COUNT",
        )
    try:
        shares = [Fraction(str(ratio)) for ratio in ratios]
    except ValueError as error:
        raise DataError(
            f"ratios: not all are numbers: {shown}", fix=_FIX_RATIOS, code="DATA_SPLIT_BAD_RATIOS"
        ) from error
    if any(share < 0 for share in shares):
        raise DataError(f"ratios: a share is below 0: {shown}", fix=_FIX_RATIOS, code="DATA_SPLIT_BAD_RATIOS")
    if abs(sum(shares, Fraction(0)) - 1) > _SUM_TOLERANCE:
        raise DataError(
            f"ratios: the shares sum to {float(sum(shares)):g}, not to 1: {shown}",
            fix=_FIX_RATIOS,
            code="DATA_SPLIT_BAD_RATIOS",
        )
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


_BUCKETS = 256
_BUCKET_SHIFT = 56


class HashCounts:
    """A multiset of 64-bit hashes, divided by their first byte, that is put on disk when it grows.

    Memory: 8 bytes for each hash that is not on disk yet, and a 256th part of all hashes when a question is answered.

    Parameters
    ----------
    directory : Path
        Directory for hashes beyond the memory limit; created when needed. The caller removes it.
    most_in_memory : int
        From how many on they are put on disk, after each call of `add`.
    """

    def __init__(self, directory: Path, most_in_memory: int = 1 << 18) -> None:
        self._directory = directory
        self._most_in_memory = most_in_memory
        self._buckets = [array("Q") for _ in range(_BUCKETS)]
        self._sizes = [0] * _BUCKETS

    def add(self, hashes: Iterable[int]) -> None:
        """Count hashes, each from 0 to 2**64 - 1."""
        buckets = self._buckets
        for hash_value in hashes:
            buckets[hash_value >> _BUCKET_SHIFT].append(hash_value)
        if sum(map(len, buckets)) >= self._most_in_memory:
            self._put_on_disk()

    @property
    def total(self) -> int:
        """How many were counted."""
        return sum(self._sizes) + sum(map(len, self._buckets))

    def distinct(self) -> int:
        """Return how many different hashes were counted."""
        return sum(len(set(self._bucket(index))) for index in range(_BUCKETS))

    def at_rank(self, rank: int) -> int:
        """Return the hash at a rank (0-based) of the sorted hashes, duplicates included."""
        for index, in_memory in enumerate(self._buckets):
            size = self._sizes[index] + len(in_memory)
            if rank < size:
                return sorted(self._bucket(index))[rank]
            rank -= size
        raise IndexError(f"rank beyond {self.total} hashes")

    def _bucket(self, index: int) -> array[int]:
        hashes = array("Q")
        if self._sizes[index]:
            with self._file(index).open("rb") as handle:
                hashes.fromfile(handle, self._sizes[index])
        hashes.extend(self._buckets[index])
        return hashes

    def _put_on_disk(self) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        for index, hashes in enumerate(self._buckets):
            if hashes:
                with self._file(index).open("ab") as handle:
                    hashes.tofile(handle)
                self._sizes[index] += len(hashes)
                self._buckets[index] = array("Q")

    def _file(self, index: int) -> Path:
        return self._directory / f"{index:02x}"

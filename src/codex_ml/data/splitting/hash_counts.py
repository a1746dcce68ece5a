"""How many hashes of a stream are distinct, and which has a given rank, in memory that hardly grows with the stream."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from pathlib import Path

_BUCKETS = 256
_BUCKET_SHIFT = 56


class HashCounts:
    """A multiset of 64-bit hashes, divided by their first byte, that is put on disk when it grows.

    Memory: 8 bytes for each hash that is not on disk yet, and a 256th part of all hashes when a question is answered.

    Parameters
    ----------
    directory : Path
        Where to put the hashes that are too many; made when it is needed. Whoever names it removes it.
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
        """Return the hash that stands at a rank (0-based) when all are sorted, equal ones one after the other."""
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

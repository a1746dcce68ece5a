"""Deterministic splits: a keyed hash of the bytes of a record decides its split, independent of all other records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codex_ml.data.splits.command import SplitOptions, split_file
from codex_ml.data.splits.hash import SplitHasher, shares_of, split_of, thresholds_by_rank, thresholds_by_value
from codex_ml.io.atomic import Storage

SPLIT_NAMES = ("train", "valid", "test")


@dataclass(frozen=True)
class SplitPaths:
    """The three files of a split."""

    train: Path
    val: Path
    test: Path


def assign_split(key: bytes, seed: int, ratios: Sequence[float]) -> int:
    """Return the split (0-based) of a record: its keyed hash against fixed thresholds, in whole numbers.

    The answer depends on nothing but the arguments, so that shuffling and appending move no record and equal keys stay
    together, on every machine.

    Parameters
    ----------
    key : bytes
        What decides, from `record_key` or `group_key`.
    seed : int
        Key of the hash; another seed gives another division.
    ratios : sequence of float
        Share of each split; they sum to 1.

    Raises
    ------
    DataError
        If the ratios are not three shares that sum to 1.
    """
    return assign_splits([key], seed, ratios)[0]


def assign_splits(keys: Sequence[bytes], seed: int, ratios: Sequence[float], exact_sizes: bool = False) -> list[int]:
    """Return the split of each record of a whole file.

    With ``exact_sizes`` the records are cut by the rank of their hash instead of its value: sizes are then off by at
    most the group at the border, groups and duplicates still stay together, but an added record can move others.

    Raises
    ------
    DataError
        As `assign_split`.
    """
    shares = shares_of(ratios, len(SPLIT_NAMES))
    hashes = list(map(SplitHasher(seed), keys))
    if exact_sizes:
        thresholds = thresholds_by_rank(shares, len(hashes), sorted(hashes).__getitem__)
    else:
        thresholds = thresholds_by_value(shares)
    return [split_of(hash_value, thresholds) for hash_value in hashes]


def split_jsonl(
    path: Path,
    out_dir: Path,
    ratios: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    group_by: str | None = None,
    exact_sizes: bool = False,
    storage: Storage | None = None,
) -> SplitPaths:
    """Divide a JSON Lines file into ``train.jsonl``, ``valid.jsonl`` and ``test.jsonl`` in a directory of their own.

    ``split.json`` next to them records their source and options. See `split_file` for what is
    promised, for other splits than these three, and for a report.

    Raises
    ------
    DataError, DiskSpaceError
        As `split_file`.
    """
    options = SplitOptions(ratios, SPLIT_NAMES, seed, group_by, exact_sizes)
    return SplitPaths(*split_file(path, out_dir, options, storage).paths)

"""Deterministic splits: a keyed hash of each record's own bytes says where it goes, whatever stands around it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from codex_ml.data.jsonl import JsonlFile
from codex_ml.data.problems import Problems, shown_name
from codex_ml.errors import DataError
from codex_ml.storage import Storage

SPLIT_NAMES = ("train", "valid", "test")

_HASH_BYTES = 8
_HASH_RANGE = 1 << (8 * _HASH_BYTES)
_SUM_TOLERANCE = Fraction(1, 10**6)


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
        What decides, from `split_key`.
    seed : int
        Key of the hash; another seed gives another division.
    ratios : sequence of float
        Share of each split; they sum to 1.

    Raises
    ------
    DataError
        If the ratios are not three shares that sum to 1.
    """
    return _assign_hash(_keyed_hash(key, seed), _thresholds(ratios, _HASH_RANGE))


def assign_splits(keys: Sequence[bytes], seed: int, ratios: Sequence[float], exact_sizes: bool = False) -> list[int]:
    """Return the split of each record of a whole file.

    With ``exact_sizes`` the records are cut by the rank of their hash instead of its value: sizes are then off by at
    most the group at the border, groups and duplicates still stay together, but an added record can move others.

    Raises
    ------
    DataError
        As `assign_split`.
    """
    if not exact_sizes:
        thresholds = _thresholds(ratios, _HASH_RANGE)
        return [_assign_hash(_keyed_hash(key, seed), thresholds) for key in keys]
    group_sizes: dict[bytes, int] = {}
    for key in keys:
        group_sizes[key] = group_sizes.get(key, 0) + 1
    borders = _thresholds(ratios, len(keys))
    split_of_group: dict[bytes, int] = {}
    rank = 0
    for key in sorted(group_sizes, key=lambda key: (_keyed_hash(key, seed), key)):
        split_of_group[key] = _assign_hash(rank, borders)
        rank += group_sizes[key]
    return [split_of_group[key] for key in keys]


def split_key(raw: bytes, value: Mapping[str, Any], group_by: str | None = None) -> bytes:
    """Return what decides the split of a record: a digest of its original bytes, or of its group's canonical value.

    A digest, because the keys of a large file must fit into memory.

    Raises
    ------
    ValueError
        If the record has no such group key.
    """
    if group_by is None:
        return hashlib.blake2b(raw, digest_size=32).digest()
    if group_by not in value:
        raise ValueError(f"the group key {shown_name(group_by)} (data.split.group_by) is missing")
    canonical = json.dumps(value[group_by], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(canonical.encode("ascii"), digest_size=32).digest()


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

    Every record goes to one file with its bytes unchanged and in the order of the source; a last line without an end
    gets one. The directory appears whole or not at all. When it is there already with the very same files, nothing is
    done.

    Raises
    ------
    DataError
        If the source has a faulty line, the ratios are wrong, a split with a share above 0 would be empty, or
        ``out_dir`` holds something else.
    """
    storage = storage or Storage()
    assignment, digest = _plan(path, ratios, seed, group_by, exact_sizes)
    _refuse_empty_split(path, assignment, ratios, exact_sizes)
    storage.make_directory(out_dir.parent)
    staged = out_dir.with_name(f".{out_dir.name}.{os.getpid()}.partial")
    storage.make_directory(staged)
    try:
        _write_files(path, staged, assignment, digest)
        for name in SPLIT_NAMES:
            storage.fsync_file(staged / f"{name}.jsonl")
        storage.fsync_directory(staged)
        if not _holds_the_same(out_dir, staged):
            storage.replace(staged, out_dir)
            storage.fsync_directory(out_dir.parent)
    finally:
        if staged.is_dir():
            storage.remove_tree(staged)
    return SplitPaths(*(out_dir / f"{name}.jsonl" for name in SPLIT_NAMES))


def check_ratios(ratios: Sequence[float]) -> None:
    """Raise `DataError` unless the ratios are three shares from 0 to 1 that sum to 1 (within one millionth)."""
    _shares(ratios)


def _shares(ratios: Sequence[float]) -> list[Fraction]:
    shown = ", ".join(repr(ratio) for ratio in ratios)
    fix = "write three shares that sum to 1, such as data.split.ratios=[0.8,0.1,0.1]"
    if len(ratios) != len(SPLIT_NAMES):
        raise DataError(f"data.split.ratios: {len(ratios)} shares instead of 3", why=f"given: {shown}", fix=fix)
    try:
        # Through the decimal text: 0.1 is meant as one tenth, and tenths then sum to exactly 1.
        shares = [Fraction(str(ratio)) for ratio in ratios]
    except ValueError as error:
        raise DataError(f"data.split.ratios: not all are numbers: {shown}", fix=fix) from error
    if any(share < 0 for share in shares):
        raise DataError(f"data.split.ratios: a share is below 0: {shown}", fix=fix)
    if abs(sum(shares, Fraction(0)) - 1) > _SUM_TOLERANCE:
        raise DataError(f"data.split.ratios: the shares sum to {float(sum(shares)):g}, not to 1: {shown}", fix=fix)
    return shares


def _thresholds(ratios: Sequence[float], total: int) -> list[int]:
    """Return the upper border of each split on a scale from 0 to ``total``, rounded half up."""
    shares = _shares(ratios)
    last = max(index for index, share in enumerate(shares) if share > 0)
    borders: list[int] = []
    cumulative = Fraction(0)
    for index, share in enumerate(shares):
        cumulative += share
        borders.append(total if index >= last else min(total, int(cumulative * total + Fraction(1, 2))))
    return borders


def _assign_hash(position: int, thresholds: Sequence[int]) -> int:
    return next(index for index, threshold in enumerate(thresholds) if position < threshold)


def _keyed_hash(key: bytes, seed: int) -> int:
    hash_key = hashlib.blake2b(f"codex-ml split {seed}".encode(), digest_size=32).digest()
    return int.from_bytes(hashlib.blake2b(key, digest_size=_HASH_BYTES, key=hash_key).digest(), "big")


def _plan(
    path: Path, ratios: Sequence[float], seed: int, group_by: str | None, exact_sizes: bool
) -> tuple[list[int], str]:
    """Read the file once and return the split of each record and the digest of what was read."""
    check_ratios(ratios)
    problems = Problems()
    file = JsonlFile(path, problems)
    keys: list[bytes] = []
    for line in file:
        try:
            key = split_key(line.raw, line.value, group_by)
        except ValueError as error:
            problems.add(f"{path.name}:{line.line_number}", str(error), "add the key, or name another group_by")
            if problems.full:
                break
            continue
        keys.append(key)
    problems.raise_if_any()
    return assign_splits(keys, seed, ratios, exact_sizes), file.digest


def _write_files(path: Path, directory: Path, assignment: Sequence[int], digest: str) -> None:
    file = JsonlFile(path)
    records = iter(file)
    with ExitStack() as stack:
        outputs = [stack.enter_context((directory / f"{name}.jsonl").open("wb")) for name in SPLIT_NAMES]
        for split, line in zip(assignment, records, strict=False):
            outputs[split].write(line.raw + (line.line_end or b"\n"))
    # Reading on to the end completes the digest; a file that is the same has nothing more to give.
    if next(records, None) is not None or file.digest != digest:
        raise DataError(f"{path.name} changed while it was split", fix="split it when nothing writes to it")


def _refuse_empty_split(path: Path, assignment: Sequence[int], ratios: Sequence[float], exact_sizes: bool) -> None:
    for index, name in enumerate(SPLIT_NAMES):
        if ratios[index] > 0 and index not in assignment:
            raise DataError(
                f"{path.name}: no record falls into the split {name!r} (share {ratios[index]:g} of {len(assignment)})",
                why="the file has too few records, or too few groups, for this share",
                fix="add records, set the share to 0"
                + ("" if exact_sizes else ", use exact_sizes=true")
                + ", or take another seed",
            )


def _holds_the_same(out_dir: Path, staged: Path) -> bool:
    """Tell whether the directory holds these files already; refuse to write over anything else."""
    if not out_dir.exists() or (out_dir.is_dir() and not any(out_dir.iterdir())):
        return False
    names = {f"{name}.jsonl" for name in SPLIT_NAMES}
    same_names = out_dir.is_dir() and {item.name for item in out_dir.iterdir()} == names
    if same_names and all(_same_bytes(out_dir / name, staged / name) for name in names):
        return True
    raise DataError(
        f"{out_dir} exists and holds something else", why="a split is never written over", fix="name another directory"
    )


def _same_bytes(first: Path, second: Path) -> bool:
    with first.open("rb") as one, second.open("rb") as other:
        while True:
            left, right = one.read(1 << 20), other.read(1 << 20)
            if left != right:
                return False
            if not left:
                return True

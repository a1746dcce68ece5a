"""Deterministic splits, in memory and as files."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from codex_ml.data.split_utils import assign_split, assign_splits, split_jsonl
from codex_ml.errors import DataError, DiskSpaceError
from codex_ml.io.atomic import Storage

Write = Callable[..., Path]
RATIOS = (0.8, 0.1, 0.1)


def test_assign_split_known_keys_land_where_they_always_did() -> None:
    """Golden values: a change here moves records between train and test of every user."""
    keys = [f"record {number}".encode() for number in range(20)]
    assert [assign_split(key, 0, RATIOS) for key in keys] == [
        0,
        0,
        0,
        0,
        0,
        1,
        0,
        0,
        2,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        2,
        1,
        0,
    ]


def test_assign_split_shares_are_kept_on_many_records() -> None:
    """Ten thousand records fall into the three splits as asked, within four standard deviations."""
    counts = [0, 0, 0]
    for number in range(10_000):
        counts[assign_split(str(number).encode(), 1, RATIOS)] += 1
    assert abs(counts[0] - 8000) < 160
    assert abs(counts[1] - 1000) < 120
    assert abs(counts[2] - 1000) < 120


def test_assign_split_other_seed_divides_otherwise() -> None:
    """The seed is the key of the hash, by value and by rank."""
    keys = [str(number).encode() for number in range(200)]
    for exact_sizes in (False, True):
        assert assign_splits(keys, 0, RATIOS, exact_sizes) != assign_splits(keys, 1, RATIOS, exact_sizes)


@pytest.mark.parametrize(
    ("ratios", "reason"),
    [
        ((0.9, 0.1), "2 shares instead of 3"),
        ((0.9, 0.2, -0.1), "a share is below 0"),
        ((0.9, 0.9, 0.1), "sum to 1.9, not to 1"),
        ((0.0, 0.0, 0.0), "sum to 0, not to 1"),
        ((float("nan"), 0.5, 0.5), "not all are numbers"),
    ],
)
def test_assign_split_wrong_ratios_are_refused(ratios: Sequence[float], reason: str) -> None:
    """Count, sign and sum are checked, and the message shows what was given."""
    with pytest.raises(DataError, match=reason):
        assign_split(b"key", 0, ratios)


@pytest.mark.parametrize("ratios", [(0.7, 0.2, 0.1), (1 / 3, 1 / 3, 1 / 3), (0.333333, 0.333333, 0.333333), (1, 0, 0)])
def test_assign_split_sums_of_decimals_are_accepted(ratios: Sequence[float]) -> None:
    """What a person writes for three shares passes, although binary fractions do not sum to exactly 1."""
    assert assign_split(b"key", 0, ratios) in {0, 1, 2}


def test_assign_splits_share_of_zero_gets_nothing() -> None:
    """A split that was not asked for stays empty, by value and by rank."""
    keys = [str(number).encode() for number in range(500)]
    for exact_sizes in (False, True):
        assert 1 not in assign_splits(keys, 0, (0.5, 0.0, 0.5), exact_sizes)
        assert set(assign_splits(keys, 0, (0.5, 0.5, 0.0), exact_sizes)) == {0, 1}


def test_split_jsonl_lines_are_byte_identical_and_in_order(write_jsonl: Write, tmp_path: Path) -> None:
    """Spacing, escapes, CRLF and U+2028 survive; only a last line without an end gets one."""
    lines = [f'{{"text" :  "\u2028 {number} \\u00e9"}}'.encode() for number in range(60)]
    content = b"\r\n".join(lines)
    paths = split_jsonl(write_jsonl(content), tmp_path / "out", (0.5, 0.25, 0.25), seed=3)
    written = [path.read_bytes() for path in (paths.train, paths.val, paths.test)]
    assert [path.name for path in (paths.train, paths.val, paths.test)] == ["train.jsonl", "valid.jsonl", "test.jsonl"]
    union = [line for part in written for line in part.split(b"\n") if line]
    assert sorted(line.rstrip(b"\r") for line in union) == sorted(lines)
    position = {line: index for index, line in enumerate(lines)}
    for part in written:
        assert part.endswith(b"\n")
        order = [position[line.rstrip(b"\r")] for line in part.split(b"\n") if line]
        assert order == sorted(order)


def test_split_jsonl_groups_stay_together(write_jsonl: Write, tmp_path: Path) -> None:
    """With group_by all records of one value go to one file, by rank too, and sizes are off by one group at most."""
    records = [{"prompt": f"p{number % 40}", "completion": str(number)} for number in range(400)]
    for exact_sizes in (False, True):
        out = tmp_path / f"out{exact_sizes}"
        paths = split_jsonl(write_jsonl(records), out, (0.6, 0.2, 0.2), 5, "prompt", exact_sizes)
        seen = [
            {line.split('"')[3] for line in path.read_text().splitlines()}
            for path in (paths.train, paths.val, paths.test)
        ]
        assert sum(len(groups) for groups in seen) == 40
        if exact_sizes:
            sizes = [len(path.read_text().splitlines()) for path in (paths.train, paths.val, paths.test)]
            assert all(abs(size - wanted) <= 10 for size, wanted in zip(sizes, (240, 80, 80), strict=True))


def test_split_jsonl_run_again_changes_nothing(write_jsonl: Write, tmp_path: Path) -> None:
    """The same split into the same directory is accepted; another one is never written over it."""
    path = write_jsonl([{"text": str(number)} for number in range(100)])
    first = split_jsonl(path, tmp_path / "out", seed=0)
    before = first.train.stat().st_mtime_ns
    split_jsonl(path, tmp_path / "out", seed=0)
    assert first.train.stat().st_mtime_ns == before
    with pytest.raises(DataError, match="exists and holds something else"):
        split_jsonl(path, tmp_path / "out", seed=1)
    assert first.train.stat().st_mtime_ns == before
    assert sorted(item.name for item in tmp_path.iterdir()) == ["data.jsonl", "out"]


def test_split_jsonl_empty_split_is_refused_and_leaves_nothing(write_jsonl: Write, tmp_path: Path) -> None:
    """Three records cannot fill three splits of these shares; the message says what to do."""
    path = write_jsonl([{"text": str(number)} for number in range(3)])
    with pytest.raises(DataError, match="no record falls into the split") as caught:
        split_jsonl(path, tmp_path / "out")
    assert "add records" in caught.value.fix
    assert [item.name for item in tmp_path.iterdir()] == ["data.jsonl"]


def test_split_jsonl_faulty_line_or_missing_group_leaves_nothing(write_jsonl: Write, tmp_path: Path) -> None:
    """All faults are named, and no directory appears."""
    path = write_jsonl(b'{"g": 1}\n{"h": 1}\nnonsense\n')
    with pytest.raises(DataError) as caught:
        split_jsonl(path, tmp_path / "out", group_by="g")
    assert "data.jsonl:2: the group key 'g'" in caught.value.block()
    assert "data.jsonl:3: not valid JSON" in caught.value.block()
    assert [item.name for item in tmp_path.iterdir()] == ["data.jsonl"]


class _FailingStorage(Storage):
    """A disk that fails when the finished directory is to be put in place."""

    def __init__(self, number: int) -> None:
        self._number = number

    def replace(self, source: Path, target: Path) -> None:
        raise OSError(self._number, f"refused: {source.name} -> {target.name}")


@pytest.mark.parametrize(
    ("number", "kind", "words"), [(errno.ENOSPC, DiskSpaceError, "the disk is full"), (errno.EIO, OSError, "refused")]
)
def test_split_jsonl_failure_at_the_last_moment_leaves_nothing(
    write_jsonl: Write, tmp_path: Path, number: int, kind: type[Exception], words: str
) -> None:
    """The directory appears whole or not at all; what was made above it goes too."""
    path = write_jsonl([{"text": str(number)} for number in range(100)])
    with pytest.raises(kind, match=words):
        split_jsonl(path, tmp_path / "new" / "out", storage=_FailingStorage(number))
    assert [item.name for item in tmp_path.iterdir()] == ["data.jsonl"]


class _GrowingStorage(Storage):
    """A file system on which somebody appends to the source between the two readings."""

    def __init__(self, source: Path) -> None:
        self._source = source

    def make_directory(self, path: Path) -> None:
        super().make_directory(path)
        with self._source.open("ab") as handle:
            handle.write(b'{"text": "late"}\n')


def test_split_jsonl_source_that_changes_meanwhile_is_refused(write_jsonl: Write, tmp_path: Path) -> None:
    """A file that grows while it is split would lose the new record in silence."""
    path = write_jsonl([{"text": str(number)} for number in range(100)])
    with pytest.raises(DataError, match="changed while it was split"):
        split_jsonl(path, tmp_path / "out", storage=_GrowingStorage(path))
    assert [item.name for item in tmp_path.iterdir()] == ["data.jsonl"]


def test_assign_splits_other_hash_seed_gives_the_same_division() -> None:
    """The result does not depend on PYTHONHASHSEED, by value or by rank."""
    program = (
        "from codex_ml.data.split_utils import assign_splits as a\n"
        "keys = [str(n % 90).encode() for n in range(300)]\n"
        "print(a(keys, 7, (0.5, 0.3, 0.2)), a(keys, 7, (0.5, 0.3, 0.2), True))\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("0", "1")
    }
    assert len(outputs) == 1

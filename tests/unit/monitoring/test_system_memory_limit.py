"""What control groups still allow, read from files laid out as the kernel lays them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from codex_ml.monitoring.system import cgroup_headroom_bytes


def group(directory: Path, names: tuple[str, str], limit: str, use: int, statistics: str) -> None:
    """Lay out the files of one group."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / names[0]).write_text(f"{limit}\n")
    (directory / names[1]).write_text(f"{use}\n")
    (directory / "memory.stat").write_text(statistics)


V2 = ("memory.max", "memory.current")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def test_cgroup_headroom_version_2_is_that_of_the_tightest_group_above(tmp_path: Path) -> None:
    """The group itself sets no limit, the one above does; cache that the kernel would give back is not in use."""
    membership = tmp_path / "cgroup"
    membership.write_text("0::/outer/inner\n")
    group(tmp_path / "fs/outer/inner", V2, "max", 700, "anon 700\n")
    group(tmp_path / "fs/outer", V2, "1000", 800, "anon 700\ninactive_file 100\n")
    group(tmp_path / "fs", V2, "5000", 800, "anon 700\n")
    assert cgroup_headroom_bytes(membership, tmp_path / "fs") == 300


def test_cgroup_headroom_version_1_reads_the_memory_hierarchy(tmp_path: Path) -> None:
    """Only the line of the memory controller counts."""
    membership = tmp_path / "cgroup"
    membership.write_text("7:pids:/other\n4:memory:/box\n")
    group(tmp_path / "fs/memory/box", V1, "1000", 990, "total_inactive_file 5\n")
    group(tmp_path / "fs/memory", V1, "9223372036854771712", 5, "total_inactive_file 0\n")
    assert cgroup_headroom_bytes(membership, tmp_path / "fs") == 15


@pytest.mark.parametrize("limit", ["max", "not a number"])
def test_cgroup_headroom_without_a_limit_is_none(tmp_path: Path, limit: str) -> None:
    """No limit, no file, no such system: nothing is known, and nothing is made up."""
    membership = tmp_path / "cgroup"
    assert cgroup_headroom_bytes(membership, tmp_path / "fs") is None
    membership.write_text("0::/box\n")
    assert cgroup_headroom_bytes(membership, tmp_path / "fs") is None
    group(tmp_path / "fs/box", V2, limit, 10, "anon 10\n")
    assert cgroup_headroom_bytes(membership, tmp_path / "fs") is None

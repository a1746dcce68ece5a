"""How much memory the control groups of this process still allow: a container has less than its machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

# Limit, use and the name in memory.stat of what the kernel gives back when it must: cgroup v2, then v1.
# Source: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of the Linux kernel.
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def cgroup_headroom_bytes(
    membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Return the bytes that this process may still take before a limit of its control groups is reached.

    Parameters
    ----------
    membership : Path
        Names the groups of the process, one hierarchy a line.
    root : Path
        Where the hierarchies are mounted.

    Returns
    -------
    int or None
        The tightest of all groups above the process; None where none sets a limit or the system does not tell.
    """
    found = [room for group in _groups(membership, root) if (room := _room_in(group)) is not None]
    return min(found, default=None)


def _groups(membership: Path, root: Path) -> Iterator[Path]:
    """Yield the directories of the process's memory group and of those above it."""
    try:
        lines = membership.read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number != "0" and "memory" not in controllers.split(","):
            continue
        top = root if number == "0" else root / "memory"
        group = top / path.lstrip("/")
        # In a container the path may be that of the host, and the mount begins at the container's own group.
        yield from [group, *(above for above in group.parents if above.is_relative_to(top))]


def _room_in(group: Path) -> int | None:
    for limit_name, use_name, reclaimable_name in _FILES:
        try:
            limit = int((group / limit_name).read_text("utf-8"))
            use = int((group / use_name).read_text("utf-8"))
            statistics = dict(line.split() for line in (group / "memory.stat").read_text("utf-8").splitlines())
        except (OSError, ValueError):
            # Absent, or the word "max": no limit here.
            continue
        return max(0, limit - use + int(statistics.get(reclaimable_name, 0)))
    return None

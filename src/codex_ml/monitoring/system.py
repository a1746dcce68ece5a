"""Metrics of the machine, and the memory that this process may use."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
    found = [free for group in _groups(membership, root) if (free := _free_in(group)) is not None]
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


def _free_in(group: Path) -> int | None:
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


Metrics = dict[str, float]


class ProcessProbe:
    """Reads memory and CPU load through psutil.

    Parameters
    ----------
    library : module, optional
        Something with psutil's `Process` and `virtual_memory`; the default imports psutil.
    headroom : callable
        Returns the bytes that limits on this process (a container's) still allow, or None without such limits.
    """

    def __init__(self, library: Any = None, headroom: Callable[[], int | None] = cgroup_headroom_bytes) -> None:
        self._headroom = headroom
        self._library: Any = library if library is not None else importlib.import_module("psutil")
        self._process = self._library.Process()
        # psutil measures CPU load since the call before; without a first call the first sample would always be 0.
        self._process.cpu_percent(interval=None)

    def __call__(self) -> Metrics:
        """Return resident bytes of this process, bytes it may still take, and CPU percent (100 = one core).

        Nothing is returned where the system does not tell (a locked-down ``/proc``): that is no reason to stop a run.
        """
        try:
            resident_bytes = self._process.memory_info().rss
            free_bytes = self._library.virtual_memory().available
            headroom = self._headroom()
            return {
                "resident_bytes": resident_bytes,
                "available_bytes": free_bytes if headroom is None else min(free_bytes, headroom),
                "cpu_percent": self._process.cpu_percent(interval=None),
            }
        except (OSError, self._library.Error):
            return {}


class GpuProbe:
    """Reads the memory of every NVIDIA GPU through NVML (package nvidia-ml-py, module pynvml).

    Parameters
    ----------
    library : module, optional
        Something with pynvml's functions; the default imports pynvml.

    Raises
    ------
    RuntimeError
        If NVML does not start: no driver, or no GPU that this process may see.
    """

    def __init__(self, library: Any = None) -> None:
        self._library: Any = library if library is not None else importlib.import_module("pynvml")
        try:
            self._library.nvmlInit()
            count = self._library.nvmlDeviceGetCount()
            self._handles = [self._library.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except self._library.NVMLError as error:
            raise RuntimeError(f"NVML does not start: {error}") from error

    def __call__(self) -> Metrics:
        """Return used and total bytes of each GPU; a GPU that stops answering is left out of this sample."""
        metrics: Metrics = {}
        for index, handle in enumerate(self._handles):
            try:
                memory = self._library.nvmlDeviceGetMemoryInfo(handle)
            except self._library.NVMLError:
                continue
            metrics[f"gpu_{index}_used_bytes"] = memory.used
            metrics[f"gpu_{index}_total_bytes"] = memory.total
        return metrics


def available_probes(
    makers: tuple[Callable[[], Callable[[], Metrics]], ...] = (ProcessProbe, GpuProbe),
) -> tuple[Callable[[], Metrics], ...]:
    """Return the probes that work here; what is missing is said by `codex_ml.monitoring.dependencies`."""
    probes = []
    for make in makers:
        try:
            probes.append(make())
        except (ImportError, RuntimeError):
            continue
    return tuple(probes)


@functools.lru_cache(maxsize=1)
def _default_probes() -> tuple[Callable[[], Metrics], ...]:
    return available_probes()


def sample(probes: tuple[Callable[[], Metrics], ...] | None = None) -> Metrics:
    """Return one sample of system metrics, all numbers; keys are absent where nothing can measure them.

    Parameters
    ----------
    probes : tuple of callable, optional
        What to ask; default: `ProcessProbe` and `GpuProbe`, made once a process, as far as they work here.

    Returns
    -------
    dict
        ``resident_bytes``, ``available_bytes``, ``cpu_percent`` (since the sample before; 100 = one core busy), and
        ``gpu_<index>_used_bytes``, ``gpu_<index>_total_bytes`` (of the device, all processes together).
    """
    metrics: Metrics = {}
    for probe in probes if probes is not None else _default_probes():
        metrics.update(probe())
    return metrics

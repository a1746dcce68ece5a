"""Tests of the system sampler, with and without a GPU library."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from codex_ml.monitoring.system import GpuProbe, ProcessProbe, available_probes, sample


class NvmlError(Exception):
    """Stands for pynvml.NVMLError."""


def nvml(count: int = 2, broken: tuple[int, ...] = (), starts: bool = True) -> SimpleNamespace:
    """Return a stand-in for pynvml with some devices, of which some may be broken."""

    def init() -> None:
        if not starts:
            raise NvmlError("Driver Not Loaded")

    def memory(handle: int) -> SimpleNamespace:
        if handle in broken:
            raise NvmlError("GPU is lost")
        return SimpleNamespace(used=handle + 10, total=100)

    return SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=init,
        nvmlDeviceGetCount=lambda: count,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=memory,
    )


def test_sample_this_process_measures_memory_and_load() -> None:
    """The default sample holds plain positive numbers."""
    metrics = sample()
    assert metrics["resident_bytes"] > 1_000_000
    assert metrics["available_bytes"] > 0
    assert metrics["cpu_percent"] >= 0


def test_process_probe_given_library_reads_its_numbers() -> None:
    """The probe asks the library it was given, and warms the CPU counter up once."""
    calls: list[object] = []
    process = SimpleNamespace(
        cpu_percent=lambda interval: calls.append(interval) or 42.0,
        memory_info=lambda: SimpleNamespace(rss=7),
    )
    library = SimpleNamespace(Process=lambda: process, virtual_memory=lambda: SimpleNamespace(available=9))
    expected = {"resident_bytes": 7, "available_bytes": 9, "cpu_percent": 42.0}
    assert ProcessProbe(library, headroom=lambda: None)() == expected
    assert calls == [None, None]
    # What a container still allows counts where it is less than what the machine has.
    assert ProcessProbe(library, headroom=lambda: 11)() == expected
    assert ProcessProbe(library, headroom=lambda: 3)() == {**expected, "available_bytes": 3}


def test_gpu_probe_two_devices_gives_each_its_keys() -> None:
    """Each GPU has its own two numbers."""
    assert GpuProbe(nvml())() == {
        "gpu_0_used_bytes": 10,
        "gpu_0_total_bytes": 100,
        "gpu_1_used_bytes": 11,
        "gpu_1_total_bytes": 100,
    }


def test_gpu_probe_device_lost_leaves_it_out() -> None:
    """A GPU that stops answering does not stop the run's log."""
    assert set(GpuProbe(nvml(broken=(0,)))()) == {"gpu_1_used_bytes", "gpu_1_total_bytes"}


def test_gpu_probe_no_driver_says_so() -> None:
    """Without a driver there is no probe."""
    with pytest.raises(RuntimeError, match="Driver Not Loaded"):
        GpuProbe(nvml(starts=False))


def test_available_probes_missing_library_or_driver_is_passed_over() -> None:
    """What cannot measure is left out, the rest works."""

    def missing() -> None:
        raise ModuleNotFoundError("psutil")

    probes = available_probes((missing, lambda: GpuProbe(nvml(starts=False)), lambda: GpuProbe(nvml(count=1))))
    assert sample(probes) == {"gpu_0_used_bytes": 10, "gpu_0_total_bytes": 100}
    assert sample(()) == {}


@pytest.mark.parametrize("error", [PermissionError("locked down"), psutil.AccessDenied()])
def test_process_probe_system_that_does_not_tell_gives_no_sample(error: Exception) -> None:
    """What cannot be measured is left out; it is no reason to stop a run."""

    def refuse() -> None:
        raise error

    process = SimpleNamespace(cpu_percent=lambda **_options: 0.0, memory_info=refuse)
    library = SimpleNamespace(Process=lambda: process, Error=psutil.Error)
    assert ProcessProbe(library)() == {}

"""Says which optional packages this machine has, what is lost without each, and how to install it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

DependencyState = Literal["available", "missing", "no_driver"]


@dataclass(frozen=True)
class DependencyStatus:
    """One optional package: there, not installed, or installed without the driver it needs."""

    name: str
    state: DependencyState
    feature_lost: str
    how_to_install: str

    def as_event(self) -> dict[str, Any]:
        """Return the fields of the structured warning that a run writes once when the package is missed."""
        return {
            "dependency": self.name,
            "state": self.state,
            "feature_lost": self.feature_lost,
            "how_to_install": self.how_to_install,
        }

    def message(self) -> str:
        """Return the same warning as one line for a person."""
        state = "is not installed" if self.state == "missing" else "is installed, but finds no driver"
        return f"{self.name} {state}; lost: {self.feature_lost}; to get it: {self.how_to_install}"


@dataclass(frozen=True)
class _Package:
    feature: str
    install: str


PACKAGES: dict[str, _Package] = {
    "psutil": _Package("memory and CPU load in the log", "pip install psutil"),
    "pynvml": _Package("GPU memory in the log", "pip install 'codex-ml[cuda]'"),
    "mlflow": _Package("tracking in a local MLflow store", "pip install 'codex-ml[tracking]'"),
    "wandb": _Package("nothing yet: this version has no W&B sink", "pip install wandb"),
    "tensorboard": _Package("nothing yet: this version has no TensorBoard sink", "pip install tensorboard"),
}
_DRIVER_HINT = "install the NVIDIA driver (on a machine without an NVIDIA GPU there is nothing to do)"


def nvml_driver_present() -> bool:
    """Tell whether NVML starts, which needs the NVIDIA driver's library; False without the pynvml package."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return False
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return False
    nvml.nvmlShutdown()
    return True


def probe_dependency(
    name: str,
    find_spec: Callable[[str], object | None] = importlib.util.find_spec,
    driver_present: Callable[[], bool] = nvml_driver_present,
) -> DependencyStatus:
    """Look for one of `PACKAGES` without importing it (pynvml excepted: only NVML itself knows of a driver)."""
    package = PACKAGES[name]
    if find_spec(name) is None:
        return DependencyStatus(name, "missing", package.feature, package.install)
    if name == "pynvml" and not driver_present():
        return DependencyStatus(name, "no_driver", package.feature, _DRIVER_HINT)
    return DependencyStatus(name, "available", package.feature, package.install)


def probe_dependencies(
    find_spec: Callable[[str], object | None] = importlib.util.find_spec,
    driver_present: Callable[[], bool] = nvml_driver_present,
    names: Sequence[str] = tuple(PACKAGES),
) -> list[DependencyStatus]:
    """Look for every optional package, in the order of `PACKAGES`.

    Parameters
    ----------
    find_spec : callable
        Finds a module by name or returns None, as `importlib.util.find_spec` does.
    driver_present : callable
        Tells whether the GPU driver answers; asked only when pynvml is installed.
    names : sequence of str
        Which packages to look for.
    """
    return [probe_dependency(name, find_spec, driver_present) for name in names]

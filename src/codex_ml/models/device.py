"""Choice of device and number format: `auto` with its reason, or an error when an explicit choice is not available."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from codex_ml.errors import ModelError


def _bfloat16_instructions() -> str | None:
    """Return the instructions by which this processor multiplies matrices of bfloat16, or None."""
    # torch has no public name for what it found out about the processor.
    if torch.cpu._is_amx_tile_supported():  # noqa: SLF001
        return "AMX"
    return "AVX512-BF16" if torch.cpu._is_avx512_bf16_supported() else None  # noqa: SLF001


@dataclass(frozen=True)
class DeviceProbe:
    """What the machine offers; tests pass other answers."""

    cuda_is_available: Callable[[], bool] = torch.cuda.is_available
    cuda_device_count: Callable[[], int] = torch.cuda.device_count
    cuda_supports_bfloat16: Callable[[], bool] = torch.cuda.is_bf16_supported
    cpu_computes_bfloat16: Callable[[], str | None] = _bfloat16_instructions


@dataclass(frozen=True)
class Choice:
    """A value and the reason it was chosen, which is printed and recorded."""

    value: str
    reason: str


_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def choose_device(requested: str, probe: DeviceProbe | None = None) -> Choice:
    """Return the device for a request of ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises
    ------
    ModelError
        If a CUDA device is wished for and not there: falling back would cost hours in silence.
    """
    probe = probe or DeviceProbe()
    if requested == "cpu":
        return Choice("cpu", "asked for")
    if requested == "auto":
        if probe.cuda_is_available():
            return Choice("cuda:0", "a CUDA device is available")
        return Choice("cpu", "no CUDA device is available")
    if not probe.cuda_is_available():
        raise ModelError(
            f"model.device: {requested} was asked for, but no CUDA device is available",
            why="torch sees no usable GPU (none built in, no driver, or a CPU build of torch)",
            fix="use model.device=auto or model.device=cpu, or install the driver and a CUDA build of torch",
        )
    index = int(requested.partition(":")[2] or 0)
    if index >= probe.cuda_device_count():
        raise ModelError(
            f"model.device: {requested} was asked for, but this machine has {probe.cuda_device_count()} CUDA device(s)",
            fix="count from cuda:0, or use model.device=auto",
        )
    return Choice(f"cuda:{index}", "asked for")


def choose_dtype(requested: str, device: str, probe: DeviceProbe | None = None, stored: str | None = None) -> Choice:
    """Return the number format of the base weights for a request of ``auto``, ``float32`` or ``bfloat16``.

    On a CPU, `auto` is bfloat16 only for weights that are stored in it, on a processor that computes it: nothing is
    then rounded that was not before. On CUDA it is bfloat16 wherever the device computes it.

    Parameters
    ----------
    requested : str
        The config's ``model.dtype``.
    device : str
        As `choose_device` gives it.
    probe : DeviceProbe, optional
        What the machine offers.
    stored : str, optional
        Format of the weights on the disk, where it is known.

    Raises
    ------
    ModelError
        If bfloat16 is wished for on a CUDA device that does not have it.
    """
    probe = probe or DeviceProbe()
    on_cuda = device.startswith("cuda")
    if requested == "auto":
        return _automatic_dtype(on_cuda, probe, stored)
    if requested == "bfloat16" and on_cuda and not probe.cuda_supports_bfloat16():
        raise ModelError(
            "model.dtype: bfloat16 was asked for, but the CUDA device does not compute it",
            fix="use model.dtype=float32 or model.dtype=auto",
        )
    return Choice(requested, "asked for")


def _automatic_dtype(on_cuda: bool, probe: DeviceProbe, stored: str | None) -> Choice:
    if on_cuda:
        if probe.cuda_supports_bfloat16():
            return Choice("bfloat16", "the CUDA device computes bfloat16 natively")
        return Choice("float32", "the CUDA device lacks bfloat16")
    if stored != "bfloat16":
        return Choice("float32", "exact, and the CPU default")
    instructions = probe.cpu_computes_bfloat16()
    if instructions is None:
        return Choice("float32", "the weights are stored in bfloat16, which this processor does not compute natively")
    return Choice("bfloat16", f"the weights are stored in it, and this processor computes it ({instructions})")


def torch_dtype(name: str) -> torch.dtype:
    """Return the torch dtype of a name from `choose_dtype`."""
    return _DTYPES[name]

"""Device and dtype: `auto` says why, an explicit wish is met or refused."""

from __future__ import annotations

import pytest
import torch

from codex_ml.errors import ModelError
from codex_ml.models.device import Choice, DeviceProbe, choose_device, choose_dtype, torch_dtype


def machine(devices: int, bfloat16: bool = True) -> DeviceProbe:
    """Return the probe of a machine with so many CUDA devices."""
    return DeviceProbe(lambda: devices > 0, lambda: devices, lambda: bfloat16, lambda: "AMX" if bfloat16 else None)


@pytest.mark.parametrize(
    ("wish", "devices", "value", "reason"),
    [
        ("auto", 0, "cpu", "no CUDA device is available"),
        ("auto", 2, "cuda:0", "a CUDA device is available"),
        ("cpu", 2, "cpu", "asked for"),
        ("cuda", 2, "cuda:0", "asked for"),
        ("cuda:1", 2, "cuda:1", "asked for"),
    ],
)
def test_choose_device_wish_can_be_met_gives_value_and_reason(wish: str, devices: int, value: str, reason: str) -> None:
    """The choice is printed with its reason."""
    assert choose_device(wish, machine(devices)) == Choice(value, reason)


@pytest.mark.parametrize(
    ("wish", "devices", "message"),
    [
        ("cuda", 0, "cuda was asked for, but no CUDA device"),
        ("cuda:0", 0, "cuda:0 was asked for, but no CUDA device"),
        ("cuda:2", 2, r"cuda:2 was asked for, but this machine has 2 CUDA device"),
    ],
)
def test_choose_device_absent_device_is_refused(wish: str, devices: int, message: str) -> None:
    """Never the CPU in silence."""
    with pytest.raises(ModelError, match=f"model.device: {message}"):
        choose_device(wish, machine(devices))


@pytest.mark.parametrize(
    ("wish", "device", "bfloat16", "value"),
    [
        ("auto", "cpu", True, "float32"),
        ("auto", "cuda:0", True, "bfloat16"),
        ("auto", "cuda:0", False, "float32"),
        ("float32", "cuda:0", True, "float32"),
        ("bfloat16", "cpu", False, "bfloat16"),
        ("bfloat16", "cuda:1", True, "bfloat16"),
    ],
)
def test_choose_dtype_wish_can_be_met_gives_value_and_reason(
    wish: str, device: str, bfloat16: bool, value: str
) -> None:
    """On CPU auto is float32; on CUDA what the device computes natively."""
    choice = choose_dtype(wish, device, machine(1, bfloat16))
    assert choice.value == value
    assert (choice.reason == "asked for") == (wish != "auto")


def test_choose_dtype_bfloat16_absent_on_cuda_is_refused() -> None:
    """An explicit dtype that the device lacks is an error."""
    with pytest.raises(ModelError, match=r"model.dtype: bfloat16 was asked for"):
        choose_dtype("bfloat16", "cuda:0", machine(1, bfloat16=False))


def test_choose_device_default_probe_agrees_with_torch() -> None:
    """Without a probe the real machine is asked."""
    assert choose_device("auto").value == ("cuda:0" if torch.cuda.is_available() else "cpu")
    assert choose_dtype("float32", "cpu").value == "float32"


def test_torch_dtype_names_are_those_of_torch() -> None:
    """The two names mean the two dtypes."""
    assert (torch_dtype("float32"), torch_dtype("bfloat16")) == (torch.float32, torch.bfloat16)


@pytest.mark.parametrize(
    ("stored", "computes", "value", "reason"),
    [
        ("bfloat16", True, "bfloat16", "the weights are stored in it, and this processor computes it (AMX)"),
        ("bfloat16", False, "float32", "stored in bfloat16, which this processor does not compute natively"),
        ("float32", True, "float32", "exact, and the CPU default"),
        (None, True, "float32", "exact, and the CPU default"),
    ],
)
def test_choose_dtype_auto_on_a_cpu_rounds_nothing(stored: str | None, computes: bool, value: str, reason: str) -> None:
    """Bfloat16 where the weights are stored so and the processor computes it; float32 weights stay what they are."""
    choice = choose_dtype("auto", "cpu", machine(0, computes), stored)
    assert choice.value == value
    assert reason in choice.reason


def test_device_probe_names_instructions_or_none() -> None:
    """Of this machine, whatever it is."""
    assert DeviceProbe().cpu_computes_bfloat16() in ("AMX", "AVX512-BF16", None)

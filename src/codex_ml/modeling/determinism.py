"""Which kernels a run computes with: fixed by device, dtype and shape, never by timing; and which of them repeat."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from codex_ml.errors import UserError
from codex_ml.modeling.attention import RECORD_KERNELS
from codex_ml.modeling.forward import PADDED, BatchLayout

# cuBLAS repeats its sums only with a workspace of a fixed size, which it reads once, when CUDA starts.
# https://docs.nvidia.com/cuda/cublas/index.html#results-reproducibility
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_FIXED_WORKSPACES = (":4096:8", ":16:8")
_REFUSAL = re.compile(r"(?P<kernel>\S.*?) does not have a deterministic implementation")
# In the order in which torch prefers them where device, dtype and shape allow.
_ATTENTION_KERNELS: dict[str, Callable[[], bool]] = {
    "cudnn": torch.backends.cuda.cudnn_sdp_enabled,
    "flash": torch.backends.cuda.flash_sdp_enabled,
    "efficient": torch.backends.cuda.mem_efficient_sdp_enabled,
    "math": torch.backends.cuda.math_sdp_enabled,
}


@dataclass(frozen=True)
class Kernels:
    """What a run computes with, as its provenance records it.

    Attributes
    ----------
    device : str
        Such as ``cpu`` or ``cuda:0``.
    attention : str
        How transformers computes attention for this model: ``sdpa``, ``eager`` or another name of its own.
    deterministic : bool
        Whether `training.deterministic` asks for kernels that repeat bit for bit.
    refused : tuple of str, optional
        Kernels of this model that have no deterministic form on this device; None before they were tried.
    layout : Layout
        How records reach the model.
    """

    device: str
    attention: str
    deterministic: bool = False
    refused: tuple[str, ...] | None = None
    layout: BatchLayout = PADDED

    def to_json(self) -> dict[str, Any]:
        """Return the choices as JSON values, with the settings of torch that they rest on."""
        return {
            **asdict(self),
            "refused": None if self.refused is None else list(self.refused),
            "repeatable": self.repeatable,
            "attention_kernels": self._attention_kernels(),
            "record_attention": RECORD_KERNELS if self.layout.kind == "ragged" else None,
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            # cuDNN would time its kernels and keep the fastest.
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        }

    @property
    def repeatable(self) -> bool:
        """Whether the same run gives the same bytes on this machine, with its versions and thread count."""
        return not self.refused and (self.device == "cpu" or self.deterministic)

    @property
    def only_plain_attention(self) -> bool:
        """Whether attention is left to plain matrix products.

        Where one kernel refuses, torch can only be asked to warn, and the fused kernels take that for leave to add in
        any order (``aten/src/ATen/native/transformers/cuda/attention_backward.cu``).
        """
        return bool(self.refused) and self.device != "cpu"

    def lines(self) -> list[str]:
        """Return for people what was chosen and what of it repeats."""
        lines = [
            f"attention {self.attention}: chosen by device, dtype and shape, never by timing",
            self.layout.line(),
        ]
        return [*lines, *self.trial_lines()] if self.refused else [*lines, self._repeats()]

    def trial_lines(self) -> list[str]:
        """Return what a trial found that could not be said before it."""
        if self.refused is None or (self.device == "cpu" and not self.refused):
            return []
        if not self.refused:
            return ["repeatable bit for bit: every kernel that was tried is deterministic"]
        return [
            f"warning: not repeatable bit for bit, in spite of training.deterministic: {', '.join(self.refused)} "
            "has no deterministic form on this device; every other kernel has"
        ]

    def _repeats(self) -> str:
        if self.device == "cpu":
            return "repeatable bit for bit, as all that the CPU computes with the same versions and thread count"
        if not self.deterministic:
            return (
                "not repeatable bit for bit: kernels of a GPU may add in any order; training.deterministic=true asks "
                "for those that do not"
            )
        return "deterministic kernels are asked for; those that refuse are found by a trial before the first step"

    def _attention_kernels(self) -> list[str]:
        if self.only_plain_attention:
            return ["math"]
        return [name for name, is_allowed in _ATTENTION_KERNELS.items() if is_allowed()]


def fix_workspace(environment: MutableMapping[str, str]) -> None:
    """Give cuBLAS its fixed workspace; to be called before anything computes on a GPU.

    Raises
    ------
    UserError
        If the environment asks for another workspace.
    """
    found = environment.setdefault(_WORKSPACE, _FIXED_WORKSPACES[0])
    if found not in _FIXED_WORKSPACES:
        raise UserError(
            f"training.deterministic: the environment sets {_WORKSPACE}={found}",
            why="matrix products on a GPU repeat bit for bit with a workspace of a fixed size only",
            fix=f"unset {_WORKSPACE}, or set it to {' or '.join(_FIXED_WORKSPACES)}",
        )


def find_nondeterministic_ops(compute: Callable[[], None]) -> tuple[str, ...]:
    """Compute once and return the names of the kernels that have no deterministic form, sorted.

    Parameters
    ----------
    compute : callable
        Runs forward and backward pass of the model; called once.
    """
    with _torch_settings(deterministic=True, warn_only=True), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        compute()
    refused = set()
    for warning in said:
        refusal = _REFUSAL.match(str(warning.message))
        if refusal is not None:
            refused.add(refusal["kernel"])
        elif "deterministic" not in str(warning.message):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return tuple(sorted(refused))


@contextmanager
def fixed_kernels(kernels: Kernels) -> Iterator[None]:
    """Compute with these kernels for the length of a block; torch's settings are as before afterwards.

    Raises
    ------
    UserError
        If a kernel refuses that did not when it was asked before the run.
    """
    with ExitStack() as stack:
        stack.enter_context(_torch_settings(kernels.deterministic, warn_only=bool(kernels.refused)))
        if kernels.only_plain_attention:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        try:
            yield
        except RuntimeError as error:
            refusal = _REFUSAL.match(str(error))
            if refusal is None:
                raise
            raise UserError(
                f"training.deterministic: {refusal['kernel']} has no deterministic form on {kernels.device}",
                why="it was not needed for the longest and the shortest record, which were tried before the run",
                fix="start a new run with training.deterministic=false; the last checkpoint of this one is whole",
            ) from error


@contextmanager
def _torch_settings(deterministic: bool, warn_only: bool) -> Iterator[None]:
    """Set what decides torch's kernels; what compares kernels by timing them is always off."""
    backend, filling = cast("Any", torch.backends.cudnn), cast("Any", torch.utils.deterministic)
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    warned_only = torch.is_deterministic_algorithms_warn_only_enabled()
    before = (backend.benchmark, backend.deterministic, filling.fill_uninitialized_memory)
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    backend.benchmark, backend.deterministic, filling.fill_uninitialized_memory = False, deterministic, True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_deterministic, warn_only=warned_only)
        backend.benchmark, backend.deterministic, filling.fill_uninitialized_memory = before

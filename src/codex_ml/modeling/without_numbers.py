"""Models and batches whose tensors have a device and a shape and no numbers: computing with them takes no memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode


class WithoutNumbers:
    """A block in which operations give tensors of the right shape, type and device, and compute nothing.

    The tensors are torch's fake tensors (https://docs.pytorch.org/docs/stable/torch.compiler_fake_tensor.html): every
    operation finds the kernel that it would find with numbers, such as the fused attention of a device, and what that
    kernel returns is made without being filled.

    Parameters
    ----------
    device : str
        Where the tensors are to be, such as ``cpu`` or ``cuda:0``.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._mode = FakeTensorMode()

    def __enter__(self) -> WithoutNumbers:
        """Begin to compute nothing."""
        self._mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Compute again."""
        self._mode.__exit__(*error)

    def tensor(self, like: Tensor) -> Tensor:
        """Return a tensor in the shape and type of another, on the device; to be called inside the block."""
        return torch.empty(like.shape, dtype=like.dtype, device=self._device)

    def furnish(self, model: nn.Module) -> None:
        """Give the parameters and buffers of a model on the meta device a device; what is tied stays tied."""
        made: dict[int, Tensor] = {}
        for module in model.modules():
            for kept in (module._parameters, module._buffers):  # noqa: SLF001 - nn.Module has no public way to replace one
                for name, value in list(kept.items()):
                    if value is None:
                        continue
                    if id(value) not in made:
                        made[id(value)] = self._furnished(value)
                    kept[name] = made[id(value)]  # type: ignore[assignment]

    def _furnished(self, value: Tensor) -> Tensor:
        empty = self.tensor(value)
        return nn.Parameter(empty, requires_grad=value.requires_grad) if isinstance(value, nn.Parameter) else empty

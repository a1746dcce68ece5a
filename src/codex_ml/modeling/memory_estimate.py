"""Peak memory of a step, counted on fake tensors."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class FakeTensorContext:
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

    def __enter__(self) -> FakeTensorContext:
        """Begin to compute nothing."""
        self._mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Compute again."""
        self._mode.__exit__(*error)

    def tensor(self, like: Tensor) -> Tensor:
        """Return a tensor in the shape and type of another, on the device; to be called inside the block."""
        return torch.empty(like.shape, dtype=like.dtype, device=self._device)

    def materialize_fake_parameters(self, model: nn.Module) -> None:
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


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts, inside its block, the bytes of storages that operations make, each until the last tensor on it is gone.

    The number is that of the tensors alone, the same on every machine: what an allocator keeps in reserve, and what a
    kernel takes and gives back unseen, is not in it. (torch's own ``MemTracker`` cannot count frozen parameters.)

    Parameters
    ----------
    known : iterable of Tensor
        Tensors that were there before, such as weights; they are not counted.

    Attributes
    ----------
    peak_bytes : int
        The most that was alive at one time.
    alive_bytes : int
        What is alive now.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak_bytes = 0
        self.alive_bytes = 0
        self._known = {_storage_id(tensor) for tensor in known}
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute, and count what came of it."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = _storage_id(tensor)
        if storage in self._known or storage in self._alive:
            return
        size = tensor.untyped_storage().nbytes()
        self._alive[storage] = size
        self.alive_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.alive_bytes)
        weakref.finalize(tensor.untyped_storage(), self._forget, storage)

    def _forget(self, storage: int) -> None:
        self.alive_bytes -= self._alive.pop(storage)


def _storage_id(tensor: Tensor) -> int:
    # The address of the storage itself, which its last tensor takes along; that of its bytes is given out again.
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001

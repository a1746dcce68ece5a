"""How much memory the tensors of a computation take at most, counted as they come and go."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


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

"""Every source of chance that training draws from, captured and put back exactly."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codex_ml.errors import CheckpointError

_TORCH_CPU = "random.torch_cpu"
_TORCH_CUDA = "random.torch_cuda."
_NUMPY_WORDS = 624


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy (legacy generator) and torch on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_tensors() -> dict[str, Tensor]:
    """Return torch's generator states (uint8 tensors), of the CPU and of each CUDA device."""
    states = {_TORCH_CPU: torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"{_TORCH_CUDA}{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


@dataclass(frozen=True)
class RandomSnapshot:
    """Where every generator stood at one instant; cheap to take, because a border of a step takes one."""

    tensors: dict[str, Tensor]
    python: tuple[Any, ...]
    numpy: tuple[Any, ...]

    def values(self) -> dict[str, Any]:
        """Return the states of Python and NumPy as JSON values."""
        version, internal, gauss = self.python
        kind, keys, position, has_gauss, cached = self.numpy
        return {
            "python": [version, list(internal), gauss],
            "numpy": [str(kind), [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
        }


def random_snapshot() -> RandomSnapshot:
    """Note where every generator stands."""
    return RandomSnapshot(random_tensors(), random.getstate(), tuple(np.random.get_state(legacy=True)))


def restore_random(tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Put every captured state back, so that the next draw is the one an uninterrupted run would make.

    Raises
    ------
    CheckpointError
        If a state is none of its generator; it is named.
    """
    with _naming("random.python"):
        version, internal, gauss = values["python"]
        random.setstate((version, tuple(internal), gauss))
    with _naming("random.numpy"):
        kind, keys, position, has_gauss, cached = values["numpy"]
        # NumPy itself takes any position, and would read beyond its table.
        if len(keys) != _NUMPY_WORDS or type(position) is not int or not 0 <= position <= _NUMPY_WORDS:
            raise ValueError("it is no state of a Mersenne Twister")
        np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    with _naming(_TORCH_CPU):
        restore_torch(tensors)


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Turn what a generator raises on a state that is none of its own into an error that names it."""
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(
            f"{key} of the checkpoint cannot be used",
            why=str(error).splitlines()[0] if str(error) else type(error).__name__,
            fix="resume from another checkpoint of the run",
        ) from error


def restore_torch(tensors: dict[str, Tensor]) -> None:
    """Put back what `random_tensors` returned."""
    torch.set_rng_state(tensors[_TORCH_CPU])
    if torch.cuda.is_available():
        for name, state in tensors.items():
            if name.startswith(_TORCH_CUDA):
                torch.cuda.set_rng_state(state, int(name.removeprefix(_TORCH_CUDA)))

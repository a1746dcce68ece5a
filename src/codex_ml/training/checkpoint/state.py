"""Training state as tensors: optimizer, schedule, random generators."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codex_ml.errors import CheckpointError

# As https://huggingface.co/docs/safetensors names them; what an optimizer, an average and generators of numbers hold.
_TYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ALIGNMENT_BYTES = 8


def tensor_file_pieces(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a safetensors file: its header, then the numbers of each tensor as they lie in memory.

    The library's own ``save`` makes two copies of everything first: with all weights trained, four times their size.

    Parameters
    ----------
    tensors : mapping
        Contiguous tensors on the CPU by name, of the types that training keeps.

    Raises
    ------
    KeyError
        For a tensor of another type.
    """
    # Wide types first, so that every tensor begins at a multiple of its own width.
    ordered = sorted(tensors.items(), key=lambda entry: (-entry[1].element_size(), entry[0]))
    header, end = {}, 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _TYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT_BYTES)
    yield len(text).to_bytes(8, "little") + text
    for _, tensor in ordered:
        numbers: Any = tensor.detach().reshape(-1).view(torch.uint8).numpy()  # typed as no buffer, which arrays are
        yield memoryview(numbers)


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


_LONGEST_STEP = 18
# Name of `TrainerState.pending_validation_metrics` in files; older checkpoints have it too.
_PENDING_KEY = "owed_metrics"


@dataclass
class TrainerState:
    """Counters of one run; everything here is a function of the steps taken, never of the clock.

    Parameters
    ----------
    step : int
        Optimizer steps taken.
    trained_tokens, masked_tokens, padding_tokens : int
        Positions computed so far, by what they were (DESIGN.md, promise 3).
    interval_loss_sum, interval_tokens : float, int
        Loss and supervised tokens since the last log line; kept so that a resumed run logs the same means.
    best_metric, best_step : float, int
        Lowest validation loss so far and its step; None before the first evaluation.
    evaluations_without_improvement, patience_metric : int, float
        For early stopping: validations since the loss last fell by as much as counts, and the loss that it fell to.
    validation_losses : dict
        Validation loss by step; ranks the checkpoints for retention.
    stop_reason : str
        Why training ended before its last step; None otherwise.
    loss_scale, steps_at_loss_scale, overflows : float, int, int
        Of float16: the scale in use (None where there is none), steps since it last changed, windows that were computed
        again because their gradients overflowed.
    pending_validation_metrics : dict
        Metrics of the current step where the run was asked to stop during its validation; a resume begins with that.
        None otherwise.
    """

    step: int = 0
    trained_tokens: int = 0
    masked_tokens: int = 0
    padding_tokens: int = 0
    interval_loss_sum: float = 0.0
    interval_tokens: int = 0
    best_metric: float | None = None
    best_step: int | None = None
    evaluations_without_improvement: int = 0
    patience_metric: float | None = None
    validation_losses: dict[int, float] = field(default_factory=dict)
    stop_reason: str | None = None
    loss_scale: float | None = None
    steps_at_loss_scale: int = 0
    overflows: int = 0
    pending_validation_metrics: dict[str, float] | None = None

    def note_validation(self, loss: float, min_delta: float) -> bool:
        """Take in a validation loss of the current step; tell whether it is the best so far.

        An improvement smaller than ``min_delta`` is still the best, but counts against patience. It is measured from
        the loss at which patience was last reset, so that small falls add up.
        """
        self.validation_losses[self.step] = loss
        if self.patience_metric is None or loss < self.patience_metric - min_delta:
            self.patience_metric, self.evaluations_without_improvement = loss, 0
        else:
            self.evaluations_without_improvement += 1
        if self.best_metric is None or loss < self.best_metric:
            self.best_metric, self.best_step = loss, self.step
            return True
        return False

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        values = asdict(self)
        values[_PENDING_KEY] = values.pop("pending_validation_metrics")
        values["validation_losses"] = {str(step): loss for step, loss in self.validation_losses.items()}
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainerState:
        """Return the state that `to_json` wrote.

        Raises
        ------
        CheckpointError
            If fields are missing or unknown, or a value is not of its field's kind; the field is named.
        """
        if not isinstance(values, dict):
            raise _unusable("trainer", "it is no object")
        if _PENDING_KEY in values:
            values = {**values, "pending_validation_metrics": values[_PENDING_KEY]}
            del values[_PENDING_KEY]
        known = {item.name for item in fields(cls)}
        if set(values) != known:
            raise CheckpointError(
                "the trainer state of the checkpoint has other fields than this codex-ml knows",
                why=f"differing: {', '.join(sorted(set(values) ^ known))}",
                fix="resume with the codex-ml version that wrote it",
            )
        for item in fields(cls):
            fault = _fault(values[item.name], str(item.type))
            if fault is not None:
                raise _unusable(f"trainer.{item.name}", fault)
        losses = values["validation_losses"]
        if not all(step.isascii() and step.isdecimal() and len(step) < _LONGEST_STEP for step in losses):
            raise _unusable("trainer.validation_losses", "its keys are no steps")
        return cls(**{**values, "validation_losses": {int(step): float(loss) for step, loss in losses.items()}})


def _fault(value: Any, kind: str) -> str | None:
    """Return what is wrong with the JSON value of a field, by the field's annotation; None where nothing is."""
    if value is None:
        return None if kind.endswith("| None") else "it is null"
    if kind.startswith("int"):
        return None if type(value) is int and 0 <= value < 1 << 62 else "it is no count"
    if kind.startswith("float"):
        return None if _is_number(value) else "it is no finite number"
    if kind.startswith("dict"):
        is_sound = isinstance(value, dict) and all(_is_number(item) for item in value.values())
        return None if is_sound else "it is no object of finite numbers"
    return None if isinstance(value, str) else "it is no text"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < math.inf


def _unusable(key: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"{key} of the checkpoint cannot be used", why=why, fix="resume from another checkpoint of the run"
    )

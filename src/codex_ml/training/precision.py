"""Mixed precision: half-precision arithmetic over float32 weights, and a loss scale that never loses a window."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from codex_ml.config.schema.training import MixedPrecision
from codex_ml.training.state import TrainerState

# Powers of two: multiplying by them and dividing again changes no bit of a gradient that stays in range.
INITIAL_LOSS_SCALE = 2.0**16
_LARGEST_LOSS_SCALE = 2.0**24
# Steps without an overflow after which the scale is doubled.
GROWTH_STEPS = 2000

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def computing_in(kind: MixedPrecision, device_type: str) -> AbstractContextManager[object]:
    """Return the context of a forward pass: autocast to a 16-bit type, or nothing at all.

    Weights, their gradients and the optimizer stay as they are (float32); the loss is computed in float32 as ever.
    After Micikevicius et al. 2018, "Mixed precision training", arXiv:1710.03740.
    """
    if kind == "none":
        return nullcontext()
    return torch.autocast(device_type, dtype=_DTYPES[kind])


def precision_lines(kind: MixedPrecision) -> list[str]:
    """Return what the user is told of mixed precision; nothing where it was not asked for."""
    if kind == "none":
        return []
    line = f"mixed precision {kind}: forward passes in {kind}, trained weights and optimizer in float32"
    if kind == "float16":
        line += f"; loss scale {INITIAL_LOSS_SCALE:,.0f} at the start, halved when gradients overflow"
    return [line]


class LossScaler:
    """The loss scale of float16, whose smallest gradients would otherwise round to zero.

    An overflow costs no data, as it would with torch's own scaler: the same window is computed again with half the
    scale, so that which records a step sees stays a function of the step alone. The scale is part of the trainer's
    state, and so of every checkpoint.

    Parameters
    ----------
    state : TrainerState
        Holds the scale, the steps since it last changed, and how many overflows there were.
    """

    def __init__(self, state: TrainerState) -> None:
        self._state = state
        if state.loss_scale is None:
            state.loss_scale = INITIAL_LOSS_SCALE

    @property
    def scale(self) -> float:
        """The scale in use."""
        assert self._state.loss_scale is not None, "set when the scaler was made"
        return self._state.loss_scale

    def scaled(self, loss: Tensor) -> Tensor:
        """Return the loss whose gradients are computed."""
        return loss * self.scale

    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give the gradients the size that they have without the scale."""
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(1.0 / self.scale)

    def back_off(self, loss: float, gradient_norm: float) -> bool:
        """Tell whether the window is to be computed again, with half the scale, because its gradients overflowed.

        A loss that is not finite itself owes nothing to the scale, and below a scale of 1 there is nothing to win: then
        the answer is no, and whoever checks the gradients stops the run.
        """
        if math.isfinite(gradient_norm) or not math.isfinite(loss) or self.scale <= 1.0:
            return False
        self._state.loss_scale = self.scale / 2
        self._state.steps_at_loss_scale = 0
        self._state.overflows += 1
        return True

    def step_made(self) -> None:
        """Count a step without overflow; after many of them the scale is tried twice as large."""
        self._state.steps_at_loss_scale += 1
        if self._state.steps_at_loss_scale >= GROWTH_STEPS:
            self._state.loss_scale = min(self.scale * 2, _LARGEST_LOSS_SCALE)
            self._state.steps_at_loss_scale = 0

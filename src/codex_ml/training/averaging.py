"""The exponential moving average of the trainable weights: kept beside them, put in their place where asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from codex_ml.errors import CheckpointError
from codex_ml.training.optimizer import trainable_parameters

_PREFIX = "average."


def averaging_lines(decay: float | None) -> list[str]:
    """Return what the user is told of an average of the weights; nothing where none is kept."""
    if decay is None:
        return []
    return [f"averaged weights, decay {decay}: validation scores the average, which is saved as ema/"]


class AveragedWeights:
    """A float32 average of the trainable parameters over the steps of a run, later steps counting more.

    After step ``t`` it is ``Σ d^(t-i) w_i / Σ d^(t-i)`` over the weights ``w_1 … w_t``: the exponential moving average
    with bias correction of Kingma and Ba 2015 (arXiv:1412.6980, section 7.2), written as the recursion
    ``m_t = m_(t-1) + (1 - d) / (1 - d^t) * (w_t - m_(t-1))``. So the weights before the first step count nothing, and
    after it the average is the weights themselves.

    Parameters
    ----------
    model : nn.Module
        What requires a gradient is averaged.
    decay : float
        ``d``, between 0 and 1; about the last ``1 / (1 - d)`` steps count.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._parameters = trainable_parameters(model)
        self._decay = decay
        self._averages: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after optimizer step ``step`` (counted from 1) into the average."""
        share = (1.0 - self._decay) / (1.0 - self._decay**step)
        for name, parameter in self._parameters.items():
            weights = parameter.detach().float()
            if name in self._averages:
                self._averages[name].lerp_(weights, share)
            else:
                self._averages[name] = weights.clone()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model compute with the average for the length of a block; after it its own weights are back.

        Before the first step there is nothing to put in their place, and the weights stay.
        """
        own = {name: self._parameters[name].data for name in self._averages}
        try:
            for name, average in self._averages.items():
                parameter = self._parameters[name]
                parameter.data = average.to(parameter.dtype)
            yield
        finally:
            for name, weights in own.items():
                self._parameters[name].data = weights

    def tensors(self) -> dict[str, Tensor]:
        """Return the average as tensors named ``average.<parameter>``, float32, on the CPU."""
        return {f"{_PREFIX}{name}": average.cpu().contiguous() for name, average in self._averages.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put a saved average back.

        Raises
        ------
        CheckpointError
            If it is not that of these parameters.
        """
        saved = {name.removeprefix(_PREFIX): value for name, value in tensors.items() if name.startswith(_PREFIX)}
        differing = sorted(set(saved) ^ set(self._parameters))
        differing += [name for name in saved if name in self._parameters and not self._fits(name, saved[name])]
        if differing:
            raise CheckpointError(
                "the averaged weights of the checkpoint belong to other parameters",
                why=f"{len(differing)} differ, first {differing[0]}",
                fix="resume with the model, adapter and training.ema_decay of the run",
                code="CHECKPOINT_PARAMETERS_MISMATCH",
            )
        self._averages = {
            name: value.to(self._parameters[name].device, dtype=torch.float32, copy=True)
            for name, value in saved.items()
        }

    def _fits(self, name: str, value: Tensor) -> bool:
        return value.shape == self._parameters[name].shape


def averaged_tensors(average: AveragedWeights | None) -> dict[str, Tensor]:
    """Return what a checkpoint keeps of an average; nothing where none is kept."""
    return {} if average is None else average.tensors()

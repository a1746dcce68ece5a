"""Optimizer, learning-rate schedule, gradient clipping and mixed precision."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from codex_ml.config.schema.training import MixedPrecision, TrainingSection
from codex_ml.data.tokenization.tokenizer import TokenizedRecord
from codex_ml.errors import AdapterError, CheckpointError, NonFiniteError, VanishedGradientError
from codex_ml.registry import SCHEDULES
from codex_ml.training.checkpoint.state import TrainerState


def constant(_: float) -> float:
    """Return 1: the peak until the end."""
    return 1.0


def linear(progress: float) -> float:
    """Return a straight line from 1 to 0."""
    return 1.0 - progress


def cosine(progress: float) -> float:
    """Return half a cosine without restarts (Loshchilov and Hutter 2017, arXiv:1608.03983, one cycle)."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def learning_rate_at(step: int, total_steps: int, warmup_steps: int, peak: float, schedule: str) -> float:
    """Return the learning rate of one optimizer step.

    Being a function of the step alone it needs no state: a resumed run continues the curve by construction. Steps are
    real optimizer steps, whatever the accumulation or the number of processes.

    Parameters
    ----------
    step : int
        Optimizer step, counted from 0.
    total_steps : int
        Steps of the whole run.
    warmup_steps : int
        Steps that rise linearly to the peak, the last of which uses the peak itself.
    peak : float
        Highest learning rate.
    schedule : str
        Name in `codex_ml.registry.SCHEDULES`.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * float(SCHEDULES.get(schedule)(min(progress, 1.0)))


# Mean loss in nats below which a window is known by heart, and its gradient may honestly round to zero.
_LEARNT_LOSS = 1e-4
_SHOWN_RECORDS = 8


def total_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the 2-norm over all gradients together, float32 ``[]``; parameters without one count nothing."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=False)


def clip(parameters: Sequence[nn.Parameter], norm: Tensor, maximum: float | None) -> None:
    """Scale gradients down in place where their norm exceeds the maximum; None: never."""
    if maximum is not None:
        nn.utils.clip_grads_with_norm_(parameters, maximum, norm, foreach=False)


def check_gradient(
    step: int, loss: float, norm: float, learning_rate: float, records: Sequence[TokenizedRecord]
) -> None:
    """Stop before an optimizer step when what it would use is worthless.

    Parameters
    ----------
    step : int
        The step about to be made, counted from 1.
    loss : float
        Mean loss of its window in nats.
    norm : float
        Total norm of its gradients.
    learning_rate : float
        Rate that the step would use; for the message.
    records : sequence
        The window.

    Raises
    ------
    NonFiniteError
        If loss or norm is not finite.
    VanishedGradientError
        If the gradient is exactly zero although the loss is not.
    """
    finite = math.isfinite(loss) and math.isfinite(norm)
    if finite and (norm > 0.0 or loss < _LEARNT_LOSS):
        return
    seen = (
        f"loss {loss:.6g}, gradient norm {norm:.6g}, learning rate {learning_rate:.3g}; "
        f"the optimizer step was not made; records of the window: {record_names(records)}"
    )
    fix = (
        "lower training.learning_rate, add training.warmup_steps, or set training.max_grad_norm; checkpoints "
        "written before this step are whole"
    )
    if not finite:
        what = "loss" if not math.isfinite(loss) else "gradient norm"
        raise NonFiniteError(f"step {step}: the {what} is not finite", why=seen, fix=fix, code="TRAINING_NOT_FINITE")
    # A normalisation layer turns an overflow into zeros, and training would continue for hours without learning.
    raise VanishedGradientError(
        f"step {step}: the gradient is exactly zero, though the loss is not",
        why=f"the weights have left the range in which the model computes: {seen}",
        fix=fix,
        code="TRAINING_GRADIENT_ZERO",
    )


def record_names(records: Sequence[TokenizedRecord]) -> str:
    """Return the ids of the first records of a window, and how many more there are."""
    names = [record.record_id for record in records[:_SHOWN_RECORDS]]
    more = len(records) - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


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
        the answer is no, and the gradient check stops the run.
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


_PREFIX = "optimizer."
_UNTOUCHED = "untouched"
_MOMENTS = ("exp_avg", "exp_avg_sq")


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable parameters by name, in the model's own order.

    Raises
    ------
    AdapterError
        If there are none: the run would spend hours and change nothing.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not parameters:
        raise AdapterError(
            "adapter: the model has no trainable parameter",
            fix="check adapter.kind and adapter.target_modules",
            code="ADAPTER_NOTHING_TO_TRAIN",
        )
    return parameters


def build_optimizer(model: nn.Module, settings: TrainingSection) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) with decay on matrices only.

    Vectors (norms and biases) are not decayed. The plain per-tensor implementation is named, so that no version or
    device chooses another one.
    """
    parameters = trainable_parameters(model)
    groups = [
        {"params": [p for p in parameters.values() if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        foreach=False,
        fused=False,
    )


@torch.no_grad()
def restore_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put saved values of the trainable parameters back, by name.

    Raises
    ------
    CheckpointError
        If they are those of other parameters.
    """
    parameters = trainable_parameters(model)
    differing = sorted(set(weights) ^ set(parameters))
    differing += [name for name in weights if name in parameters and weights[name].shape != parameters[name].shape]
    if differing:
        raise CheckpointError(
            "the weights of the checkpoint belong to other parameters",
            why=f"{len(differing)} differ, first {differing[0]}",
            fix="resume with the model and adapter settings of the run",
            code="CHECKPOINT_PARAMETERS_MISMATCH",
        )
    for name, parameter in parameters.items():
        parameter.copy_(weights[name])


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Use a learning rate for the next step in every group."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state as tensors named ``optimizer.<parameter>|<quantity>``.

    A parameter that had no gradient yet (an expert never routed to) has no moments; an empty tensor says so.
    """
    return {
        f"{_PREFIX}{name}|{quantity}": value.detach().cpu().contiguous()
        for name, parameter in trainable_parameters(model).items()
        for quantity, value in (optimizer.state.get(parameter) or {_UNTOUCHED: torch.empty(0)}).items()
    }


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put a saved state back.

    Raises
    ------
    CheckpointError
        If the state is not that of these parameters.
    """
    saved: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(_PREFIX):
            name, _, quantity = key.removeprefix(_PREFIX).rpartition("|")
            saved.setdefault(name, {})[quantity] = value
    parameters = trainable_parameters(model)
    differing = sorted(set(saved) ^ set(parameters))
    differing += [name for name in parameters if name in saved and not _fits(parameters[name], saved[name])]
    if differing:
        raise CheckpointError(
            "the optimizer state belongs to other parameters",
            why=f"{len(differing)} differ, first {differing[0]}",
            fix="resume with the model and adapter settings of the run",
            code="CHECKPOINT_PARAMETERS_MISMATCH",
        )
    for name, parameter in parameters.items():
        if _UNTOUCHED in saved[name]:
            continue
        # Adam's step counter stays on the CPU, where the per-tensor implementation keeps it.
        optimizer.state[parameter] = {
            quantity: value.clone() if quantity == "step" else value.to(parameter.device, copy=True)
            for quantity, value in saved[name].items()
        }


def _fits(parameter: nn.Parameter, saved: dict[str, Tensor]) -> bool:
    """Tell whether a saved state is one of Adam for its parameter: moments of its shape and type, a step counter."""
    if _UNTOUCHED in saved:
        return len(saved) == 1
    return set(saved) == {"step", *_MOMENTS} and (
        saved["step"].numel() == 1
        and saved["step"].is_floating_point()
        and all(saved[name].shape == parameter.shape and saved[name].dtype == parameter.dtype for name in _MOMENTS)
    )

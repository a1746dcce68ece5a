"""AdamW over the trainable parameters, and its state as named tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from codex_ml.config.schema.training import TrainingSection
from codex_ml.errors import AdapterError, CheckpointError

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
            "adapter: the model has no trainable parameter", fix="check adapter.kind and adapter.target_modules"
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

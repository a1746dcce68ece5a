"""RMSNorm with its gradient in closed form: the same numbers in a third of the passes over memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

# They compute the same; a norm of another family may scale by 1 + weight, or round elsewhere.
_REPLACED = (LlamaRMSNorm, MistralRMSNorm, Qwen2RMSNorm)


class ClosedFormRMSNorm(nn.Module):
    """Root mean square normalisation (Zhang and Sennrich 2019, arXiv:1910.07467) over the last dimension.

    Parameters
    ----------
    weight : nn.Parameter
        Scale, ``[hidden]``; shared with the norm whose place it takes, and named as it was there.
    epsilon : float
        Added to the mean square.
    """

    def __init__(self, weight: nn.Parameter, epsilon: float) -> None:
        super().__init__()
        self.weight = weight
        self.variance_epsilon = epsilon

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return the normalised states in the shape and type of the input, to the bit what transformers returns."""
        result: Tensor = _RMSNorm.apply(hidden_states, self.weight, self.variance_epsilon)  # type: ignore[no-untyped-call]
        return result


def replace_norms(model: nn.Module) -> int:
    """Put the closed form in the place of a model's norms, with their parameters; return how many were replaced."""
    found = [(name, module) for name, module in model.named_modules() if type(module) in _REPLACED]
    for name, module in found:
        norm: Any = module
        model.set_submodule(name, ClosedFormRMSNorm(norm.weight, norm.variance_epsilon))
    return len(found)


class _RMSNorm(torch.autograd.Function):
    """See `ClosedFormRMSNorm`; computed in float32, as transformers does, while only the input is kept for later."""

    @staticmethod
    def forward(context: Any, states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = states.float()
        inverse = torch.rsqrt_(wide.pow(2).mean(-1, keepdim=True).add_(epsilon))  # [..., 1]
        context.save_for_backward(states, weight, inverse)
        normalised = (wide * inverse).to(states.dtype)
        return weight * normalised

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        upstream = grad_outputs[0]
        states, weight, inverse = ctx.saved_tensors
        wide, upstream_wide = states.float(), upstream.float()
        of_weight = of_states = None
        if ctx.needs_input_grad[1]:
            normalised = (wide * inverse).mul_(upstream_wide)
            of_weight = normalised.flatten(0, -2).sum(0).to(weight.dtype)
        if ctx.needs_input_grad[0]:
            scaled = upstream_wide * weight
            # What a state adds to its own mean square: - x · Σ(x · g) · inverse³ / hidden.
            own = torch.linalg.vecdot(scaled, wide).unsqueeze(-1) * inverse.pow(3).mul_(-1 / wide.shape[-1])
            of_states = torch.addcmul(scaled.mul_(inverse), wide, own).to(states.dtype)
        return of_states, of_weight, None

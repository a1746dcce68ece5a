"""A frozen linear layer and its LoRA as one operation: the cheapest order of products, and the input kept once."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def fuse_linear_layers(config: LoraConfig) -> None:
    """Let peft put `FusedLinear` around the linear layers that a config adapts; names and files stay peft's own.

    Through peft's own registration of layer types, which it calls experimental: what it does is tested against the
    layers that peft takes without it.
    """
    config._register_custom_module({nn.Linear: _fused, Conv1D: _fused})  # type: ignore[dict-item] # noqa: SLF001


def _fused(target: nn.Module, adapter_name: str, *, config: LoraConfig, **settings: Any) -> FusedLinear | None:
    """Return the layer for a plain linear one; None, so that peft chooses, for what computes or keeps it otherwise."""
    weight = getattr(target, "weight", None)
    # Libraries that quantise or move weights replace a layer's forward, hook it, or make its weight a class of theirs.
    if type(weight) is not nn.Parameter or not weight.is_floating_point() or "forward" in vars(target):
        return None
    if target._forward_hooks or target._forward_pre_hooks:  # noqa: SLF001 - torch has no public way to ask
        return None
    if type(target) is nn.Linear and not config.fan_in_fan_out:
        return FusedLinear(target, adapter_name, config=config, **settings)
    if type(target) is Conv1D and config.fan_in_fan_out:
        return FusedLinear(target, adapter_name, config=config, is_target_conv_1d_layer=True, **settings)
    return None


class FusedLinear(Linear):
    """Peft's LoRA layer, computed in one step where it is the plain case: one adapter, not merged, without dropout."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return ``base(x) + scaling · B A x``, of shape ``[…, out]``."""
        name = self._plain_adapter(x)
        if name is None or args or kwargs:
            return super().forward(x, *args, **kwargs)
        base: Any = self.get_base_layer()
        # GPT-2 keeps its weights transposed.
        weight = base.weight if self.fan_in_fan_out else base.weight.t()  # [in, out]
        low, up = self.lora_A[name].weight, self.lora_B[name].weight
        result: Tensor = _FusedLoRA.apply(x, weight, base.bias, low, up, self.scaling[name])  # type: ignore[no-untyped-call]
        return result

    def _plain_adapter(self, x: Tensor) -> str | None:
        """Return the one adapter to compute, or None where peft's own way is to be taken."""
        if self.disable_adapters or self.merged or torch.is_autocast_enabled(x.device.type):
            return None
        names = [name for name in self.active_adapters if name in self.lora_A]
        if len(names) != 1 or names[0] in self.lora_variant:
            return None
        name = names[0]
        drops = not isinstance(self.lora_dropout[name], nn.Identity)
        biased = self.lora_B[name].bias is not None
        trains_base = any(parameter.requires_grad for parameter in self.get_base_layer().parameters())
        return None if drops or biased or trains_base else name


class _FusedLoRA(torch.autograd.Function):
    """See `FusedLinear`; the gradient reaches input, A and B, and neither weight nor bias."""

    @staticmethod
    def forward(
        context: Any, x: Tensor, weight: Tensor, bias: Tensor | None, low: Tensor, up: Tensor, scaling: float
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # [tokens, in]
        result = rows @ weight if bias is None else torch.addmm(bias, rows, weight)  # [tokens, out]
        # Scaled where it is narrow: r values a token instead of all of them.
        inner = (rows.to(low.dtype) @ low.t()).mul_(scaling)  # [tokens, r]
        result = result.to(up.dtype).addmm_(inner, up.t()).to(result.dtype)
        context.save_for_backward(rows, weight, low, up, inner)
        context.scaling = scaling
        return result.view(*x.shape[:-1], result.shape[-1])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        upstream = grad_outputs[0]
        rows, weight, low, up, inner = ctx.saved_tensors
        of_result = upstream.reshape(-1, upstream.shape[-1])  # [tokens, out]
        wide = of_result.to(up.dtype)
        of_inner = (wide @ up).mul_(ctx.scaling)  # [tokens, r]
        of_up = wide.t() @ inner
        of_low = of_inner.t() @ rows.to(low.dtype)
        of_x = None
        if ctx.needs_input_grad[0]:
            below = (of_result @ weight.t()).to(low.dtype).addmm_(of_inner, low)
            of_x = below.to(upstream.dtype).view(*upstream.shape[:-1], below.shape[-1])
        return of_x, None, None, of_low, of_up, None

"""The norm in closed form against transformers' own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from codex_ml.modeling.normalisation import ClosedFormRMSNorm, replace_norms

SHAPE = (3, 11, 48)


def pair(dtype: torch.dtype = torch.float32) -> tuple[LlamaRMSNorm, ClosedFormRMSNorm]:
    """Return transformers' norm with a weight that is not one, and the closed form with a copy of it."""
    torch.manual_seed(8)
    norm = LlamaRMSNorm(SHAPE[-1], eps=1e-5)
    nn.init.normal_(norm.weight, mean=1.0, std=0.3)
    norm = norm.to(dtype)
    return norm, ClosedFormRMSNorm(copy.deepcopy(norm.weight), norm.variance_epsilon)


def gradients(norm: nn.Module, states: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of the states and of the weight."""
    inputs = states.detach().clone().requires_grad_()
    torch.autograd.backward(norm(inputs), upstream)
    weight = norm.get_parameter("weight")
    assert inputs.grad is not None
    assert weight.grad is not None
    return inputs.grad, weight.grad


def distance(one: Tensor, other: Tensor) -> float:
    """Return the norm of the difference, relative to the second."""
    return float((one.double() - other.double()).norm() / other.double().norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_forward_is_transformers_own_to_the_bit(dtype: torch.dtype) -> None:
    """Normalised in float32, rounded, then scaled, as there; large, small and zero states included."""
    norm, closed = pair(dtype)
    states = torch.randn(SHAPE).to(dtype) * torch.tensor([1e-4, 1.0, 3e4], dtype=dtype)[:, None, None]
    states[1, 2] = 0.0
    assert torch.equal(closed(states), norm(states))
    assert closed(states).dtype is dtype


def test_norm_gradients_equal_transformers_own() -> None:
    """Of states and of weight, relative to their norm."""
    norm, closed = pair()
    states, upstream = torch.randn(SHAPE), torch.randn(SHAPE)
    for one, other in zip(gradients(closed, states, upstream), gradients(norm, states, upstream), strict=True):
        assert distance(one, other) <= 5e-6


def test_norm_gradients_of_bfloat16_are_no_worse_than_transformers_own() -> None:
    """Against float32, with a tenth of leave for rounding."""
    norm, closed = pair(torch.bfloat16)
    states, upstream = torch.randn(SHAPE).bfloat16(), torch.randn(SHAPE).bfloat16()
    exact = gradients(copy.deepcopy(norm).float(), states.float(), upstream.float())
    theirs, ours = gradients(norm, states, upstream), gradients(closed, states, upstream)
    for mine, plain, wanted in zip(ours, theirs, exact, strict=True):
        assert distance(mine, wanted) <= 1.1 * distance(plain, wanted)


def test_norm_frozen_weight_gets_no_gradient() -> None:
    """The states still do."""
    _, closed = pair()
    closed.weight.requires_grad = False
    states = torch.randn(SHAPE, requires_grad=True)
    torch.autograd.backward(closed(states).sum())
    assert closed.weight.grad is None
    assert states.grad is not None


def test_replace_norms_keeps_parameters_names_and_outputs() -> None:
    """A model's files do not know which norm computed them."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    model = LlamaForCausalLM(config).eval()
    ids = torch.randint(31, (2, 9))
    with torch.no_grad():
        before = model(input_ids=ids).logits
    parameters = {name: id(parameter) for name, parameter in model.named_parameters()}
    names = list(model.state_dict())
    assert replace_norms(model) == 5
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == parameters
    assert list(model.state_dict()) == names
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, before)
    assert replace_norms(model) == 0


def test_replace_norms_leaves_a_norm_that_computes_otherwise() -> None:
    """Gemma scales by one plus the weight."""
    model = nn.Sequential(GemmaRMSNorm(8))
    assert replace_norms(model) == 0
    assert isinstance(model[0], GemmaRMSNorm)

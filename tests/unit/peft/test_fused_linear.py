"""The fused LoRA layer against the layer that peft takes without it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from codex_ml.peft.fused_linear import FusedLinear, fuse_linear_layers

SHAPE = (2, 13, 20)
OUT = 31


class Layers(nn.Module):
    """One linear layer of each kind over the same input."""

    def __init__(self) -> None:
        super().__init__()
        self.with_bias = nn.Linear(SHAPE[-1], OUT)
        self.without_bias = nn.Linear(SHAPE[-1], OUT, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        return self.with_bias(x) + self.without_bias(x)  # type: ignore[no-any-return]


class Transposed(nn.Module):
    """GPT-2's layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Conv1D(OUT, SHAPE[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer does."""
        return self.layer(x)  # type: ignore[no-any-return]


def pair(kind: type[nn.Module], dtype: torch.dtype = torch.float32, **values: Any) -> tuple[nn.Module, nn.Module]:
    """Return the same adapted layers as peft computes them and fused; A and B are both not zero."""
    torch.manual_seed(2)
    base = kind().to(dtype)
    targets = ["layer"] if kind is Transposed else ["with_bias", "without_bias"]
    given = {"r": 3, "lora_alpha": 7, "fan_in_fan_out": kind is Transposed, "target_modules": targets}
    settings: dict[str, Any] = {**given, **values}
    plain = get_peft_model(copy.deepcopy(base), LoraConfig(**settings))  # type: ignore[arg-type]
    config = LoraConfig(**settings)
    fuse_linear_layers(config)
    fused = get_peft_model(copy.deepcopy(base), config)  # type: ignore[arg-type]
    for name, parameter in plain.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter)
            with torch.no_grad():
                fused.get_parameter(name).copy_(parameter)
    assert plain.state_dict().keys() == fused.state_dict().keys()
    assert any(isinstance(module, FusedLinear) for module in fused.modules())
    return plain, fused


def results(model: nn.Module, x: Tensor, upstream: Tensor) -> dict[str, Tensor]:
    """Return output, gradient of the input and of every trained parameter by name."""
    inputs = x.detach().clone().requires_grad_()
    output = model(inputs)
    torch.autograd.backward(output, upstream)
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    assert inputs.grad is not None
    return {"output": output.detach(), "input": inputs.grad, **found}


def distance(one: Tensor, other: Tensor) -> float:
    """Return the norm of the difference, relative to the second."""
    return float((one.double() - other.double()).norm() / other.double().norm())


@pytest.mark.parametrize("kind", [Layers, Transposed])
def test_fused_linear_equals_peft(kind: type[nn.Module]) -> None:
    """Output and every gradient, relative to their norm."""
    plain, fused = pair(kind)
    x, upstream = torch.randn(SHAPE), torch.randn(*SHAPE[:-1], OUT)
    theirs, ours = results(plain, x, upstream), results(fused, x, upstream)
    assert theirs.keys() == ours.keys()
    assert len(ours) >= 4
    for name, value in ours.items():
        assert distance(value, theirs[name]) <= 5e-6, name


@pytest.mark.parametrize("kind", [Layers, Transposed])
def test_fused_linear_over_bfloat16_weights_is_no_worse_than_peft(kind: type[nn.Module]) -> None:
    """Against float32, with a tenth of leave for rounding; the adapter stays float32, the output is bfloat16."""
    plain, fused = pair(kind, torch.bfloat16)
    x, upstream = torch.randn(SHAPE).bfloat16(), torch.randn(*SHAPE[:-1], OUT).bfloat16()
    exact = results(copy.deepcopy(plain).float(), x.float(), upstream.float())
    theirs, ours = results(plain, x, upstream), results(fused, x, upstream)
    assert {name: value.dtype for name, value in ours.items()} == {name: v.dtype for name, v in theirs.items()}
    for name, value in ours.items():
        assert distance(value, exact[name]) <= 1.1 * distance(theirs[name], exact[name]) + 1e-6, name


def test_fused_linear_input_without_gradient_gets_none() -> None:
    """Below the first adapted layer nothing is computed backwards."""
    _, fused = pair(Layers)
    x = torch.randn(SHAPE)
    torch.autograd.backward(fused(x).sum())
    assert x.grad is None
    assert all(p.grad is not None for name, p in fused.named_parameters() if "lora_" in name)


def test_fused_linear_keeps_its_input_once_and_nothing_as_wide() -> None:
    """What is kept for the backward pass, beside weights, is the input shared by all layers and r values a token."""
    _, fused = pair(Layers)
    x = torch.randn(SHAPE, requires_grad=True)
    weights = {p.untyped_storage().data_ptr() for p in fused.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        fused(x)
    activations = sum(size for place, size in kept.items() if place not in weights)
    tokens = SHAPE[0] * SHAPE[1]
    assert activations == 4 * tokens * (SHAPE[-1] + 2 * 3)


@pytest.mark.parametrize(
    "values",
    [
        {"lora_dropout": 0.3},
        {"use_dora": True},
        {"lora_bias": True},
        {"bias": "all", "target_modules": ["with_bias"]},
    ],
)
def test_fused_linear_what_is_not_the_plain_case_is_left_to_peft(values: dict[str, Any]) -> None:
    """To the bit, random draws included."""
    plain, fused = pair(Layers, **values)
    x, upstream = torch.randn(SHAPE), torch.randn(*SHAPE[:-1], OUT)
    found = []
    for model in (plain, fused):
        torch.manual_seed(1)
        found.append(results(model, x, upstream))
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


def test_fused_linear_disabled_and_merged_compute_the_base() -> None:
    """The switches of peft work as they do without it."""
    plain, fused = pair(Layers)
    x = torch.randn(SHAPE)
    with torch.no_grad():
        with_adapter = plain(x)
        with plain.disable_adapter(), fused.disable_adapter():  # type: ignore[operator]
            assert torch.equal(plain(x), fused(x))
        fused.merge_adapter()  # type: ignore[operator]
        assert torch.allclose(fused(x), with_adapter, rtol=1e-4, atol=1e-5)
        fused.unmerge_adapter()  # type: ignore[operator]
        assert torch.allclose(fused(x), with_adapter, rtol=1e-4, atol=1e-5)


def test_fused_linear_under_autocast_is_left_to_peft() -> None:
    """Autocast decides the type of every product there."""
    plain, fused = pair(Layers)
    x = torch.randn(SHAPE)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert torch.equal(plain(x), fused(x))


def test_fused_linear_derived_layers_keep_the_layer_peft_has_for_them() -> None:
    """A class that only derives from a linear layer may compute something else."""

    class Quantised(nn.Linear):
        """Stands for a library's own layer."""

    model = nn.Sequential(nn.Linear(4, 4), Quantised(4, 4))
    config = LoraConfig(r=2, target_modules=["0", "1"])
    fuse_linear_layers(config)
    adapted = get_peft_model(model, config)  # type: ignore[arg-type]
    layers = [
        type(module).__name__ for name, module in adapted.named_modules() if name.endswith(("model.0", "model.1"))
    ]
    assert layers == ["FusedLinear", "Linear"]


def test_fused_linear_layers_of_other_libraries_are_left_to_peft() -> None:
    """A replaced forward, a hook or a weight of a class of its own would be computed without them."""
    replaced, hooked, wrapped = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    replaced.forward = lambda x: x  # type: ignore[method-assign]
    hooked.register_forward_hook(lambda *_: None)

    class Packed(nn.Parameter):
        """Stands for a weight that is no plain tensor."""

    wrapped.weight = Packed(wrapped.weight.data)
    model = nn.Sequential(replaced, hooked, wrapped)
    config = LoraConfig(r=2, target_modules=["0", "1", "2"])
    fuse_linear_layers(config)
    adapted = get_peft_model(model, config)  # type: ignore[arg-type]
    assert not [module for module in adapted.modules() if isinstance(module, FusedLinear)]


def test_fuse_linear_layers_leaves_no_trace_in_the_files_config() -> None:
    """The adapter on disk is plain PEFT."""
    config = LoraConfig(r=2)
    before = config.to_dict()
    fuse_linear_layers(config)
    assert config.to_dict() == before

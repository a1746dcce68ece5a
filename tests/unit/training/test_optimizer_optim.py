"""AdamW over what is trainable; its state survives as named tensors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from codex_ml.config.schema.training import TrainingSection
from codex_ml.errors import AdapterError, CheckpointError
from codex_ml.training.optimizer import (
    build_optimizer,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
    trainable_parameters,
)

SETTINGS = TrainingSection.model_validate({"learning_rate": 0.1, "weight_decay": 0.5, "adam_beta2": 0.99})


def model(frozen_head: bool = False) -> nn.Sequential:
    """Return a seeded two-layer model."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    layers[2].requires_grad_(not frozen_head)
    return layers


def take_steps(layers: nn.Module, optimizer: torch.optim.Optimizer, count: int, first: int = 0) -> None:
    """Take optimizer steps on inputs that depend on the step alone."""
    for step in range(first, first + count):
        inputs = torch.randn(3, 4, generator=torch.Generator().manual_seed(step))
        layers(inputs).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_trainable_parameters_frozen_ones_are_left_out() -> None:
    """Only what requires a gradient, in the model's order."""
    assert list(trainable_parameters(model(frozen_head=True))) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_trainable_parameters_none_is_an_error() -> None:
    """A run that would change nothing does not start."""
    with pytest.raises(AdapterError, match="no trainable parameter"):
        build_optimizer(model().requires_grad_(False), SETTINGS)


def test_build_optimizer_decay_is_on_matrices_only() -> None:
    """Norms and biases are not decayed; the settings reach AdamW."""
    layers = model()
    optimizer = build_optimizer(layers, SETTINGS)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in layers.named_parameters()} == {
        "0.weight": 0.5,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
        "2.weight": 0.5,
        "2.bias": 0.0,
    }
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"]) == (0.1, (0.9, 0.99), 1e-8)
    assert (group["foreach"], group["fused"]) == (False, False)


def test_build_optimizer_matrices_only_has_one_group() -> None:
    """A LoRA adapter has no vectors; an empty group is not made."""
    assert len(build_optimizer(nn.Linear(2, 2, bias=False), SETTINGS).param_groups) == 1


def test_set_learning_rate_every_group_gets_it() -> None:
    """The rate of a step holds for decayed and undecayed parameters."""
    optimizer = build_optimizer(model(), SETTINGS)
    set_learning_rate(optimizer, 0.025)
    assert [group["lr"] for group in optimizer.param_groups] == [0.025, 0.025]


def test_restore_optimizer_after_save_continues_bit_identically() -> None:
    """Three steps and two more equal five, when moments and step counters are restored."""
    whole = model()
    take_steps(whole, build_optimizer(whole, SETTINGS), 5)

    first = model()
    optimizer = build_optimizer(first, SETTINGS)
    take_steps(first, optimizer, 3)
    tensors = {name: tensor.clone() for name, tensor in optimizer_tensors(first, optimizer).items()}
    second = model()
    second.load_state_dict(first.state_dict())
    resumed = build_optimizer(second, SETTINGS)
    restore_optimizer(second, resumed, tensors)
    take_steps(second, resumed, 2, first=3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


def test_restore_optimizer_leaves_the_given_tensors_alone() -> None:
    """The loaded state can be used twice."""
    layers = model()
    optimizer = build_optimizer(layers, SETTINGS)
    take_steps(layers, optimizer, 1)
    tensors = {name: tensor.clone() for name, tensor in optimizer_tensors(layers, optimizer).items()}
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    restore_optimizer(layers, optimizer, tensors)
    take_steps(layers, optimizer, 1)
    assert all(torch.equal(kept[name], tensors[name]) for name in kept)


def test_optimizer_tensors_names_say_parameter_and_quantity() -> None:
    """The names are part of the checkpoint format."""
    layers = nn.Linear(2, 2, bias=False)
    optimizer = build_optimizer(layers, SETTINGS)
    layers(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert sorted(optimizer_tensors(layers, optimizer)) == [
        "optimizer.weight|exp_avg",
        "optimizer.weight|exp_avg_sq",
        "optimizer.weight|step",
    ]


def test_restore_optimizer_other_parameters_are_refused() -> None:
    """A state of another model is named and not used."""
    layers = model()
    optimizer = build_optimizer(layers, SETTINGS)
    take_steps(layers, optimizer, 1)
    other = model(frozen_head=True)
    with pytest.raises(CheckpointError, match="belongs to other parameters") as caught:
        restore_optimizer(other, build_optimizer(other, SETTINGS), optimizer_tensors(layers, optimizer))
    assert caught.value.why == "2 differ, first 2.bias"


def test_restore_optimizer_other_shapes_are_refused() -> None:
    """Moments of another shape would be broadcast or fail in mid-run."""
    layers = nn.Linear(2, 2, bias=False)
    optimizer = build_optimizer(layers, SETTINGS)
    layers(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    other = nn.Linear(2, 1, bias=False)
    with pytest.raises(CheckpointError, match="belongs to other parameters"):
        restore_optimizer(other, build_optimizer(other, SETTINGS), optimizer_tensors(layers, optimizer))


def test_restore_optimizer_parameter_that_never_had_a_gradient_is_accepted() -> None:
    """An expert that was never routed to has no moments yet; that is a state like any other."""
    layers = model()
    optimizer = build_optimizer(layers, SETTINGS)
    layers[0](torch.ones(1, 4)).sum().backward()
    optimizer.step()
    tensors = optimizer_tensors(layers, optimizer)
    resumed = build_optimizer(layers, SETTINGS)
    restore_optimizer(layers, resumed, tensors)
    take_steps(layers, resumed, 1)
    assert float(resumed.state[layers[0].weight]["step"]) == 2
    assert float(resumed.state[layers[2].weight]["step"]) == 1

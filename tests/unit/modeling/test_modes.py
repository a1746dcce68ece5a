"""Evaluation mode is switched on inside a block and undone after it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from codex_ml.modeling.modes import evaluation_mode


def mixed_model() -> nn.Module:
    """Return a model in training mode of which one module was switched off by its owner."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.Dropout(0.5)).train()
    model[2].eval()
    return model


def test_evaluation_mode_inside_block_is_off_and_without_gradients() -> None:
    """Inside, no module trains and no graph is kept."""
    model = mixed_model()
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
        assert not model(torch.ones(1, 2)).requires_grad


def test_evaluation_mode_after_error_restores_each_module() -> None:
    """An error inside leaves every module in the mode it had, not all of them in training mode."""
    model = mixed_model()
    before = [module.training for module in model.modules()]
    with pytest.raises(KeyError), evaluation_mode(model):
        raise KeyError("stop")
    assert [module.training for module in model.modules()] == before
    assert torch.is_grad_enabled()

"""Evaluation mode for the length of a block: dropout off and no gradients inside, everything as it was after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch a model to evaluation without gradients and give each module its own mode back, also after an error.

    Module by module, because ``model.train()`` afterwards would also switch on those that the caller had switched off.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training

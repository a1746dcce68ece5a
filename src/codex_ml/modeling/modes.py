"""Training and evaluation modes of a model, and gradient checkpointing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from codex_ml.errors import ModelError


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


def enable_gradient_checkpointing(model: PreTrainedModel) -> None:
    """Let every layer of a model forget its activations (Chen et al. 2016, arXiv:1604.06174); no result changes.

    The second forward pass of a layer begins with the random state of the first, so that dropout drops the same
    values. It is the variant without reentry: the other one loses the gradients of an adapter on frozen weights
    unless the embeddings are made to require a gradient, which costs a backward pass through them.

    Parameters
    ----------
    model : PreTrainedModel
        The base model, bare or already wrapped by an adapter; layers compute twice in training mode only.

    Raises
    ------
    ModelError
        If the class of the model cannot do it.
    """
    name = type(model).__name__
    fix = "set training.gradient_checkpointing=false, and lower training.micro_batch_size if memory is short"
    if not model.supports_gradient_checkpointing:
        raise ModelError(
            f"training.gradient_checkpointing: {name} does not support it",
            why="its layers cannot be computed a second time, and the option would do nothing",
            fix=fix,
            code="TRAINING_GRADIENT_CHECKPOINTING_UNSUPPORTED",
        )
    try:
        model.activation_checkpointing_enable({"use_reentrant": False})
    except ValueError as error:
        raise ModelError(
            f"training.gradient_checkpointing: {name} does not support it",
            why=str(error),
            fix=fix,
            code="TRAINING_GRADIENT_CHECKPOINTING_UNSUPPORTED",
        ) from (error)
    # transformers makes the embeddings require a gradient in any case, for the variant that is not used here.
    model.disable_input_require_grads()  # type: ignore[no-untyped-call]

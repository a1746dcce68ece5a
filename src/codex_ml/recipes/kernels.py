"""The kernels of a training run: what its model and device imply, and a trial of those that must be deterministic."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from codex_ml.config.schema.root import TrainConfig
from codex_ml.config.schema.training import MixedPrecision
from codex_ml.data.batches import BatchLayout, make_batch
from codex_ml.data.tokenize import TokenizedRecord
from codex_ml.modeling.kernels import fix_workspace, refused_kernels
from codex_ml.modeling.loss import supervised_loss
from codex_ml.recipes.model_setup import TrainableModel
from codex_ml.training.precision import computing_in

# Runs a computation and returns the names of kernels that have no deterministic form.
FindRefused = Callable[[Callable[[], None]], tuple[str, ...]]


def prepare_process(config: TrainConfig, environment: MutableMapping[str, str]) -> None:
    """Set what the libraries read once, before the first of them starts CUDA."""
    if config.training.deterministic:
        fix_workspace(environment)


def try_kernels(
    config: TrainConfig,
    records: Sequence[TokenizedRecord],
    trainable: TrainableModel,
    find_refused: FindRefused = refused_kernels,
) -> TrainableModel:
    """Return the model with the kernels that refuse to be deterministic named; nothing is tried unless asked for.

    What is tried is a function of the data, so that a resumed run computes with the same kernels. It changes neither
    weights nor gradients; the random draws that it makes are undone by the seed or the checkpoint.
    """
    if not config.training.deterministic:
        return trainable
    layout = trainable.kernels.layout.kind
    refused = find_refused(lambda: compute_once(trainable.model, records, config.training.mixed_precision, layout))
    return replace(trainable, kernels=replace(trainable.kernels, refused=refused))


def compute_once(
    model: nn.Module,
    records: Sequence[TokenizedRecord],
    precision: MixedPrecision = "none",
    layout: BatchLayout = "padded",
) -> None:
    """Run forward and backward pass on the longest record alone, and together with the shortest one."""
    device = next(model.parameters()).device
    ordered = sorted(records, key=lambda record: len(record.input_ids))
    was_training = model.training
    model.train()
    try:
        for batch in (ordered[-1:], [ordered[0], ordered[-1]]):
            with computing_in(precision, device.type):
                loss = supervised_loss(model, make_batch(batch, 0, layout).to(device))
            torch.autograd.backward(loss.loss_sum)
    finally:
        model.zero_grad(set_to_none=True)
        model.train(was_training)

"""The one loss: cross entropy in float32, summed over supervised positions, for training and evaluation alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

IGNORED_LABEL = -100


class SupervisedBatch(Protocol):
    """What the loss reads of a batch; the batches of the data room are of this shape."""

    @property
    def input_ids(self) -> Tensor:
        """Token ids, int64 ``[batch, sequence]``, padded on the right."""
        ...

    @property
    def attention_mask(self) -> Tensor:
        """1 at tokens and 0 at padding, int64 ``[batch, sequence]``."""
        ...

    @property
    def labels(self) -> Tensor:
        """Token ids where supervised and `IGNORED_LABEL` elsewhere, int64 ``[batch, sequence]``, not shifted."""
        ...


@dataclass(frozen=True)
class SupervisedLoss:
    """Sums over the supervised tokens of one batch, never means: only the caller knows the whole window.

    Attributes
    ----------
    loss_sum : Tensor
        Sum of the cross entropies in nats, float32 ``[]``, with its graph.
    correct : Tensor
        How many supervised tokens were the model's first choice, int64 ``[]``.
    supervised : int
        How many tokens were scored. A label at position 0 is not, because nothing precedes it.
    """

    loss_sum: Tensor
    correct: Tensor
    supervised: int


def supervised_loss(model: Callable[..., Any], batch: SupervisedBatch) -> SupervisedLoss:
    """Run the model once and sum the loss of every supervised token.

    The mean over an accumulation window, an evaluation set or several processes is ``Σ loss_sum / Σ supervised``;
    a mean of means would weigh short windows too much.

    Parameters
    ----------
    model : callable
        A transformers causal language model, bare or wrapped by PEFT or accelerate. Logits ``[batch, sequence, vocab]``
        at position ``t`` predict the token at ``t + 1``.
    batch : SupervisedBatch
        Tensors on the device of the model.

    Returns
    -------
    SupervisedLoss
        A loss that is not finite is returned as it is; the caller decides before its optimizer step.
        Without supervised tokens the sum is a zero that can still be differentiated.
    """
    outputs = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    targets = batch.labels[:, 1:]  # [batch, sequence - 1]
    wanted = targets != IGNORED_LABEL
    # Selected before the cast: prompts and padding then cost neither a float32 copy of their logits nor a softmax.
    logits = outputs.logits[:, :-1][wanted].float()  # [supervised, vocab]
    targets = targets[wanted]  # [supervised]
    loss_sum = functional.cross_entropy(logits, targets, reduction="sum")
    correct = (logits.detach().argmax(dim=-1) == targets).sum()
    return SupervisedLoss(loss_sum=loss_sum, correct=correct.to(torch.int64), supervised=targets.numel())

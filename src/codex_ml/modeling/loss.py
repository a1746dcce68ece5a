"""The one loss: cross entropy in float32, summed over supervised positions, for training and evaluation alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from codex_ml.modeling.attention import LENGTHS_ARGUMENT
from codex_ml.modeling.head import head_loss
from codex_ml.modeling.layout import RAGGED_FAMILIES


class SupervisedBatch(Protocol):
    """What the loss reads of a batch; the batches of the data room are of this shape.

    Padded: records in rows of one length. Ragged: all of them in one row, and `record_lengths` says where each ends.
    """

    @property
    def input_ids(self) -> Tensor:
        """Token ids, int64 ``[batch, sequence]``, padded on the right; ragged ``[1, tokens]``."""
        ...

    @property
    def labels(self) -> Tensor:
        """Token ids where supervised and -100 elsewhere, int64 in the shape of the ids, not shifted.

        In a ragged row the first token of each record is ignored: what precedes it belongs to another record.
        """
        ...

    @property
    def predicting(self) -> Tensor:
        """Positions whose next label is a token, counted row by row, int64 ``[supervised]``."""
        ...

    @property
    def attention_mask(self) -> Tensor | None:
        """1 at tokens and 0 at padding, int64 ``[batch, sequence]``; None in a ragged row."""
        ...

    @property
    def position_ids(self) -> Tensor | None:
        """Positions that begin at 0 with each record, int64 ``[1, tokens]``; None where rows say it."""
        ...

    @property
    def record_lengths(self) -> Sequence[int] | None:
        """Tokens of each record of a ragged row, in order; None for a padded batch."""
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
        at position ``t`` predict the token at ``t + 1``. For a ragged batch its layout is set (`use_layout`).
    batch : SupervisedBatch
        Tensors on the device of the model.

    Returns
    -------
    SupervisedLoss
        A loss that is not finite is returned as it is; the caller decides before its optimizer step.
        Without supervised tokens the sum is a zero that can still be differentiated.
    """
    targets = batch.labels.flatten()[batch.predicting + 1]  # [supervised]
    if batch.record_lengths is not None:
        return _ragged_loss(model, batch, batch.predicting, targets)
    outputs = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    # Selected before the cast: prompts and padding then cost neither a float32 copy of their logits nor a softmax.
    return _from_logits(outputs.logits.flatten(0, 1)[batch.predicting], targets)


def makes_logits_in_chunks(model: Callable[..., Any]) -> bool:
    """Tell whether a ragged batch of this model, in the precision of the block around, never has all of its logits."""
    return _parts(model) is not None


def _ragged_loss(
    model: Callable[..., Any], batch: SupervisedBatch, predicting: Tensor, targets: Tensor
) -> SupervisedLoss:
    """Compute the loss of records in one row, with logits at the positions ``[supervised]`` that predict something."""
    inputs = {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        # Of four dimensions, so that transformers hands it on as it is and builds none; nobody reads it.
        "attention_mask": batch.input_ids.new_zeros((1, 1, 1, 1)),
        "use_cache": False,
        LENGTHS_ARGUMENT: batch.record_lengths,
    }
    parts = _parts(model)
    if parts is None:
        return _from_logits(model(**inputs, logits_to_keep=predicting).logits[0], targets)
    decoder, head = parts
    hidden = decoder(**inputs).last_hidden_state[0, predicting]  # [supervised, hidden]
    loss_sum, correct = head_loss(hidden, head.weight, head.bias, targets)
    return SupervisedLoss(loss_sum=loss_sum, correct=correct, supervised=targets.numel())


def _from_logits(logits: Tensor, targets: Tensor) -> SupervisedLoss:
    """Sum the loss of chosen logits ``[supervised, vocab]``."""
    logits = logits.float()
    loss_sum = functional.cross_entropy(logits, targets, reduction="sum")
    correct = (logits.detach().argmax(dim=-1) == targets).sum()
    return SupervisedLoss(loss_sum=loss_sum, correct=correct.to(torch.int64), supervised=targets.numel())


def _parts(model: Callable[..., Any]) -> tuple[nn.Module, nn.Linear] | None:
    """Return decoder and head where logits are one linear layer whose gradient can be made with the loss, or None."""
    bare = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(bare, PreTrainedModel) or bare.config.model_type not in RAGGED_FAMILIES:
        return None
    head: Any = bare.get_output_embeddings()  # type: ignore[no-untyped-call]
    # An adapter on the head computes more than this; a trained head sums its gradient in float32 only; and float16
    # would lose small probabilities, which the loss scale saves on the ordinary way.
    # Weights that are packed into whole numbers are no matrix.
    if type(head) is not nn.Linear or not head.weight.is_floating_point() or head.weight.dtype is torch.float16:
        return None
    narrow = head.weight.dtype is not torch.float32 or torch.is_autocast_enabled(head.weight.device.type)
    trained = head.weight.requires_grad and torch.is_grad_enabled()
    if narrow and (trained or _computes_in_float16(head.weight.device.type)):
        return None
    return bare.base_model, head


def _computes_in_float16(device_type: str) -> bool:
    return torch.is_autocast_enabled(device_type) and torch.get_autocast_dtype(device_type) is torch.float16

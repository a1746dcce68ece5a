"""The loss of a batch without padding: layout, supervised-only head, and cross entropy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from codex_ml.errors import ModelError
from codex_ml.modeling.attention import LENGTHS_ARGUMENT, RECORD_ATTENTION, register_record_attention
from codex_ml.modeling.normalisation import replace_norms

LayoutKind = Literal["ragged", "padded"]
# Families whose losses and gradients are proven equal, record by record, in tests/invariant/test_ragged.py. A family
# belongs here when its attention goes through transformers' interface and knows neither soft caps nor sinks, its
# positions come from `position_ids` alone, nothing but attention mixes the tokens of a row, and its logits are one
# linear layer over the last hidden states, with no soft cap and no scale after it.
RAGGED_FAMILIES = frozenset({"gpt2", "llama", "mistral", "qwen2"})


# Kinds of rotary embedding whose frequencies are a function of the model alone.
_FIXED_POSITIONS = frozenset({"default", "linear", "llama3", "yarn"})


@dataclass(frozen=True)
class BatchLayout:
    """A layout and why it was taken; a line of it is shown when a run begins, and its provenance keeps it."""

    kind: LayoutKind
    reason: str

    def line(self) -> str:
        """Return what a user is told."""
        return f"batches {self.kind}: {self.reason}"


PADDED = BatchLayout("padded", "nothing else was asked for")


def configure_batch_layout(model: nn.Module, requested: Literal["auto", "ragged", "padded"]) -> BatchLayout:
    """Choose the layout of a model's batches and prepare the model for it.

    A model laid out for ragged batches also gets its norms in closed form; for padded ones nothing is put into it.
    What is chosen depends on the model alone, so that a resumed run computes as the first one did. Padded batches and
    generation are computed as before either way.

    Parameters
    ----------
    model : nn.Module
        The base model, bare or with an adapter around it.
    requested : str
        The config's ``model.batch_layout``.

    Raises
    ------
    ModelError
        If ragged batches are asked for and the model cannot take them.
    """
    bare: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    layout = _choose(bare, requested)
    if layout.kind == "ragged":
        register_record_attention()
        bare.set_attn_implementation(RECORD_ATTENTION)
        replace_norms(bare)
    return layout


def _choose(model: PreTrainedModel, requested: Literal["auto", "ragged", "padded"]) -> BatchLayout:
    if requested == "padded":
        return BatchLayout("padded", "model.batch_layout asks for it")
    obstacle = _obstacle(model)
    if obstacle is None:
        return BatchLayout("ragged", "no position is padding, and attention runs within each record")
    if requested == "ragged":
        raise ModelError(
            "model.batch_layout: this model cannot take ragged batches",
            why=obstacle,
            fix="use model.batch_layout=auto (or padded); results are the same, padding is computed",
        )
    return BatchLayout("padded", obstacle)


def _obstacle(model: PreTrainedModel) -> str | None:
    """Return why a model cannot take records one after another, or None."""
    family = str(model.config.model_type)
    if family not in RAGGED_FAMILIES:
        proven = ", ".join(sorted(RAGGED_FAMILIES))
        return f"that records in one row do not see each other is proven for {proven}; this model is {family}"
    positions = str((getattr(model.config, "rope_parameters", None) or {}).get("rope_type", "default"))
    if positions not in _FIXED_POSITIONS:
        return f"its rotary positions are of the kind {positions}, which may depend on the longest record of a batch"
    # transformers has no public name for what it chose.
    attention = str(getattr(model.config, "_attn_implementation", "unknown"))
    if attention not in ("sdpa", RECORD_ATTENTION):
        return f"its attention is {attention}, and only sdpa has a form for records in one row"
    return None


# Logits that exist at a time, in bytes of float32: what a processor's second-level cache and the vector units like, and
# little beside any model. Fixed, as a number of rows chosen by timing would change the order of sums.
CHUNK_BYTES = 32 * 1024**2


def chunk_rows(vocabulary: int) -> int:
    """Return how many positions a chunk has."""
    return max(16, CHUNK_BYTES // (4 * vocabulary))


def head_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, rows: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return the summed cross entropy of a linear head, and how many first choices were right.

    The logits of one chunk exist at a time, and their gradient is made while they do: softmax less one at the target
    (the idea of Liger Kernel's fused linear cross entropy, Hsu et al. 2024, arXiv:2410.10989). Kept for the backward
    pass is one gradient of the shape of `hidden`, and those of weight and bias where these are trained.

    Parameters
    ----------
    hidden : Tensor
        Last hidden states, ``[supervised, hidden]``.
    weight : Tensor
        ``[vocabulary, hidden]``.
    bias : Tensor, optional
        ``[vocabulary]``.
    targets : Tensor
        Token ids, int64 ``[supervised]``.
    rows : int, optional
        Positions of a chunk; None: `chunk_rows` of the vocabulary.

    Returns
    -------
    tuple of Tensor
        Sum in nats, float32 ``[]``, with its graph; int64 ``[]`` without.
    """
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        narrow = torch.get_autocast_dtype(kind)
        hidden, weight, bias = hidden.to(narrow), weight.to(narrow), bias if bias is None else bias.to(narrow)
    rows = chunk_rows(weight.shape[0]) if rows is None else rows
    # Inside a function autograd does not say whether gradients are wanted at all, only which inputs could have one.
    tracked = torch.is_grad_enabled()
    with torch.autocast(kind, enabled=False):
        loss_sum, correct = _HeadLoss.apply(hidden, weight, bias, targets, rows, tracked)  # type: ignore[no-untyped-call]
    return loss_sum, correct


class _HeadLoss(torch.autograd.Function):
    """See `head_loss`."""

    @staticmethod
    def forward(
        context: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, rows: int, tracked: bool
    ) -> tuple[Tensor, Tensor]:
        wanted = tuple(tracked and needed for needed in context.needs_input_grad[:3])
        gradients = _Gradients(hidden, weight, bias, wanted)
        loss_sum = hidden.new_zeros((), dtype=torch.float32)
        correct = targets.new_zeros(())
        for start in range(0, len(targets), rows):
            part, labels = hidden[start : start + rows], targets[start : start + rows, None]
            logits = functional.linear(part, weight, bias).float()  # [rows, vocabulary]
            chosen, peak = logits.gather(1, labels), logits.amax(dim=-1, keepdim=True)  # [rows, 1]
            correct += _first_choices(logits, labels, chosen == peak)
            # In place: the chunk is the largest thing there is, and nobody else sees it.
            exponentials = logits.sub_(peak).exp_()
            total = exponentials.sum(dim=-1, keepdim=True)
            loss_sum += (total.log() + peak - chosen).sum()
            if any(wanted):
                of_logits = exponentials.div_(total)
                of_logits.scatter_add_(1, labels, of_logits.new_full(labels.shape, -1.0))
                gradients.add(start, part, of_logits.to(weight.dtype))
        context.save_for_backward(*gradients.parts())
        context.mark_non_differentiable(correct)
        return loss_sum, correct

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        upstream = grad_outputs[0]
        parts = ctx.saved_tensors
        return (*(None if part is None else _scaled(part, upstream) for part in parts), None, None, None)


def _first_choices(logits: Tensor, labels: Tensor, likely: Tensor) -> Tensor:
    """Count the labels ``[rows, 1]`` that are the first of the highest logits, where `likely` says they are among them.

    To find the first of equals takes a processor ten times as long as to find the highest: it is looked for where it
    can matter. A GPU finds both at once, and would have to be waited for to know where; a tensor without numbers (a
    subclass, with which memory is planned) cannot be asked.
    """
    if logits.device.type == "cpu" and type(logits) is Tensor:
        rows = likely[:, 0]
        logits, labels = logits[rows], labels[rows]
    return (logits.argmax(dim=-1) == labels[:, 0]).sum()


def _scaled(part: Tensor, upstream: Tensor) -> Tensor:
    """Return a gradient times a number that is not rounded to 16 bits: all elements would be off by the same."""
    if part.dtype is torch.float32:
        return part * upstream
    return part.float().mul_(upstream).to(part.dtype)


class _Gradients:
    """Of one head: made as its chunks come, for the inputs that need one."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, wanted: tuple[bool, ...]) -> None:
        self._weight = weight
        self._hidden = torch.empty_like(hidden) if wanted[0] else None
        # Sums over all positions: in the weights' own type, which is float32 wherever weights are trained.
        self._of_weight = torch.zeros_like(weight) if wanted[1] else None
        self._of_bias = torch.zeros_like(bias) if bias is not None and wanted[2] else None

    def add(self, start: int, hidden: Tensor, of_logits: Tensor) -> None:
        """Take the gradient of a chunk's logits, ``[rows, vocabulary]``."""
        if self._hidden is not None:
            torch.mm(of_logits, self._weight, out=self._hidden[start : start + len(hidden)])
        if self._of_weight is not None:
            self._of_weight.addmm_(of_logits.t(), hidden)
        if self._of_bias is not None:
            self._of_bias += of_logits.sum(dim=0)

    def parts(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of hidden states, weight and bias; None where none was asked for."""
        return self._hidden, self._of_weight, self._of_bias


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

"""The output head at supervised positions only: cross entropy and its gradient in one pass, chunk by chunk."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

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

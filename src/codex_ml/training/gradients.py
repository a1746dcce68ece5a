"""Gradients between the backward pass and the optimizer step: their norm, clipping, and whether they are of any use."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from codex_ml.data.tokenize import TokenizedRecord
from codex_ml.errors import NonFiniteError, VanishedGradientError

# Mean loss in nats below which a window is known by heart, and its gradient may honestly round to zero.
_LEARNT_LOSS = 1e-4
_SHOWN_RECORDS = 8


def total_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the 2-norm over all gradients together, float32 ``[]``; parameters without one count nothing."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=False)


def clip(parameters: Sequence[nn.Parameter], norm: Tensor, maximum: float | None) -> None:
    """Scale gradients down in place where their norm exceeds the maximum; None: never."""
    if maximum is not None:
        nn.utils.clip_grads_with_norm_(parameters, maximum, norm, foreach=False)


def check_gradient(
    step: int, loss: float, norm: float, learning_rate: float, records: Sequence[TokenizedRecord]
) -> None:
    """Stop before an optimizer step when what it would use is worthless.

    Parameters
    ----------
    step : int
        The step about to be made, counted from 1.
    loss : float
        Mean loss of its window in nats.
    norm : float
        Total norm of its gradients.
    learning_rate : float
        Rate that the step would use; for the message.
    records : sequence
        The window.

    Raises
    ------
    NonFiniteError
        If loss or norm is not finite.
    VanishedGradientError
        If the gradient is exactly zero although the loss is not.
    """
    finite = math.isfinite(loss) and math.isfinite(norm)
    if finite and (norm > 0.0 or loss < _LEARNT_LOSS):
        return
    seen = (
        f"loss {loss:.6g}, gradient norm {norm:.6g}, learning rate {learning_rate:.3g}; "
        f"the optimizer step was not made; records of the window: {record_names(records)}"
    )
    fix = (
        "lower training.learning_rate, add training.warmup_steps, or set training.max_grad_norm; checkpoints "
        "written before this step are whole"
    )
    if not finite:
        what = "loss" if not math.isfinite(loss) else "gradient norm"
        raise NonFiniteError(f"step {step}: the {what} is not finite", why=seen, fix=fix)
    # A normalisation layer turns an overflow into zeros, and training would go on for hours without learning.
    raise VanishedGradientError(
        f"step {step}: the gradient is exactly zero, though the loss is not",
        why=f"the weights have left the range in which the model computes: {seen}",
        fix=fix,
    )


def record_names(records: Sequence[TokenizedRecord]) -> str:
    """Return the ids of the first records of a window, and how many more there are."""
    names = [record.record_id for record in records[:_SHOWN_RECORDS]]
    more = len(records) - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")

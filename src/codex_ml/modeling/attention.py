"""Attention over records that lie one after another in one row: each sees itself and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from codex_ml.errors import ModelError

# The name under which transformers finds it, and the keyword argument under which the lengths of the records arrive.
RECORD_ATTENTION = "codex_ml_records"
LENGTHS_ARGUMENT = "record_lengths"
# Recorded for a run together with device and dtype; see `record_kernel`.
RECORD_KERNELS = "varlen: cuda, 16 bits, no dropout, not deterministic; else scaled_dot_product_attention by record"
# What torch's flash attention takes.
_VARLEN_TYPES = (torch.float16, torch.bfloat16)
_LARGEST_HEAD, _HEAD_MULTIPLE = 256, 8


def register_record_attention() -> None:
    """Make the attention known to transformers, with the mask that padded batches need; more than once does no harm.

    A name without a mask function would be given no mask at all, and padding would be attended to silently.
    """
    AttentionInterface.register(RECORD_ATTENTION, record_attention)
    AttentionMaskInterface.register(RECORD_ATTENTION, sdpa_mask)


def record_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend within each record of a row; without lengths it is transformers' own attention, for padded batches.

    Parameters
    ----------
    module : nn.Module
        The attention layer.
    query, key, value : Tensor
        ``[1, heads, tokens, head size]``; key and value may have fewer heads.
    attention_mask : Tensor, optional
        Of a padded batch; a row of records needs none.
    dropout : float
        Share of attention weights that are dropped.
    scaling : float, optional
        Of the products of query and key; None: one by the root of the head size.
    **others
        ``record_lengths``, tokens of each record in order; ``sliding_window``, positions that a token sees.

    Returns
    -------
    tuple
        ``[1, tokens, heads, head size]``, and None for the attention weights, which are never made.
    """
    lengths: Sequence[int] | None = others.pop(LENGTHS_ARGUMENT, None)
    if lengths is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
    # Only families are let in (see layout.py) that have none of them; a new version of one could.
    unknown = [name for name in ("softcap", "s_aux", "position_bias") if others.get(name) is not None]
    if unknown:
        raise ModelError(
            f"model.batch_layout: attention with {', '.join(unknown)} has no form for records in one row",
            fix="use model.batch_layout=padded",
            code="MODEL_BATCH_LAYOUT_UNSUPPORTED",
        )
    window: int | None = others.get("sliding_window")
    deterministic = torch.are_deterministic_algorithms_enabled()
    if record_kernel(query.device.type, query.dtype, query.shape[-1], dropout, deterministic) == "varlen":
        return attend_at_once(query, key, value, tuple(lengths), scaling, window), None
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    parts = list(lengths)
    records = zip(*(torch.split(whole, parts, dim=2) for whole in (query, key, value)), strict=True)
    attended = [_within(q, k, v, dropout, scaling, window) for q, k, v in records]
    return torch.cat(attended, dim=2).transpose(1, 2), None


def record_kernel(
    device_type: str, dtype: torch.dtype, head_size: int, dropout: float, deterministic: bool
) -> Literal["varlen", "by record"]:
    """Return what attends over records in one row: a function of what is computed, never of what was timed.

    One kernel over all records (`torch.nn.attention.varlen`) exists for CUDA in 16 bits, without dropout; the order in
    which its backward pass adds is not fixed. Elsewhere each record has its own call.
    """
    fits = head_size <= _LARGEST_HEAD and head_size % _HEAD_MULTIPLE == 0
    if device_type == "cuda" and dtype in _VARLEN_TYPES and fits and not dropout and not deterministic:
        return "varlen"
    return "by record"


def attend_at_once(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: tuple[int, ...],
    scaling: float | None,
    window: int | None,
    kernel: Callable[..., Any] = varlen_attn,
) -> Tensor:
    """Attend within each record by one kernel that knows where records end.

    Parameters
    ----------
    query, key, value : Tensor
        ``[1, heads, tokens, head size]``; key and value may have fewer heads.
    lengths : tuple of int
        Tokens of each record, in order.
    scaling : float, optional
        Of the products of query and key.
    window : int, optional
        Positions that a token sees, itself among them.
    kernel : callable
        With the signature of `torch.nn.attention.varlen.varlen_attn`.

    Returns
    -------
    Tensor
        ``[1, tokens, heads, head size]``.
    """
    packed = [tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value)]  # [tokens, heads, head size]
    borders, longest = _borders(lengths, query.device), max(lengths)
    attended: Tensor = kernel(
        *packed,
        borders,
        borders,
        longest,
        longest,
        scale=scaling,
        # How many before it a token sees; -1: all of them. None after it.
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return attended[None]


@lru_cache(maxsize=8)  # every layer of a pass asks for the same, and a copy to a GPU takes longer than the sum
def _borders(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Return where records begin, and where the last one ends, int32 ``[records + 1]``."""
    ends = torch.tensor((0, *lengths), dtype=torch.int64).cumsum(0)
    return ends.to(device=device, dtype=torch.int32)


def _within(
    query: Tensor, key: Tensor, value: Tensor, dropout: float, scaling: float | None, window: int | None
) -> Tensor:
    """Attend causally within one record, ``[1, heads, length, head size]``, as far back as the window reaches."""
    length = query.shape[2]
    if window is None or length <= window:
        return functional.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True, scale=scaling
        )
    position = torch.arange(length, device=query.device)
    behind = position[:, None] - position[None, :]
    seen = (behind >= 0) & (behind < window)  # [length, length]
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=dropout, scale=scaling)

"""Greedy decoding of one batch of token prompts: left padding, key-value cache, rows leave when they are done."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from codex_ml.errors import ModelError, NonFiniteError


@dataclass(frozen=True)
class DecodedRow:
    """The new tokens of one row, without the stop token, and why it ended."""

    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]


def decode_greedily(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_token_ids: frozenset[int],
    pad_token_id: int,
    device: torch.device,
) -> list[DecodedRow]:
    """Extend every prompt by its most likely token until a stop token or the limit.

    Our own loop and not ``model.generate``: that one fills what a configuration leaves open from the model's own
    ``generation_config`` (repetition penalties, forced tokens), and it computes finished rows to the end.

    Parameters
    ----------
    model : nn.Module
        Causal language model in evaluation mode with a key-value cache, under ``torch.no_grad``.
    prompts : sequence of token id sequences
        None of them empty.
    max_new_tokens : int
        At least 1.
    pad_token_id : int
        Fills the left of shorter rows; its value is masked and cannot matter.

    Raises
    ------
    ModelError
        If the architecture keeps no key-value cache.
    NonFiniteError
        If the logits that decide a token are NaN.
    """
    width = max(len(prompt) for prompt in prompts)
    input_ids = torch.full((len(prompts), width), pad_token_id, dtype=torch.int64)  # [batch, sequence]
    attention_mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt, dtype=torch.int64)
        attention_mask[row, width - len(prompt) :] = 1
    input_ids, attention_mask = input_ids.to(device), attention_mask.to(device)

    accepted = _forward_parameters(model)
    generated: list[list[int]] = [[] for _ in prompts]
    stopped = [False] * len(prompts)
    running = list(range(len(prompts)))  # the prompt that each row of the shrinking batch belongs to
    cache: Any = None
    for _ in range(max_new_tokens):
        # Padding on the left must not move a row: its first token has position 0, as it had in training.
        position_ids = (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        arguments = {"position_ids": position_ids, "logits_to_keep": 1}  # of the prompt only the last logits are needed
        outputs = model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=True,
            **{name: value for name, value in arguments.items() if name in accepted},
        )
        cache = outputs.past_key_values
        best = outputs.logits[:, -1].max(dim=-1)  # values and indices, [batch]
        _require_numbers(best.values)
        chosen: list[int] = best.indices.tolist()
        kept = []
        for row, (prompt_index, token_id) in enumerate(zip(running, chosen, strict=True)):
            if token_id in stop_token_ids:
                stopped[prompt_index] = True
            else:
                generated[prompt_index].append(token_id)
                kept.append(row)
        if not kept:
            break
        input_ids = best.indices[:, None]
        if len(kept) < len(running):
            rows = torch.tensor(kept, device=device)
            cache.batch_select_indices(rows)
            input_ids, attention_mask = input_ids[rows], attention_mask[rows]
            running = [running[row] for row in kept]
        attention_mask = torch.cat([attention_mask, attention_mask.new_ones(len(running), 1)], dim=-1)
    return [
        DecodedRow(tuple(token_ids), "stop" if stop else "length")
        for token_ids, stop in zip(generated, stopped, strict=True)
    ]


def _forward_parameters(model: nn.Module) -> frozenset[str]:
    """Return what the model's forward takes, looking through a PEFT wrapper, whose own signature says nothing."""
    unwrap = getattr(model, "get_base_model", None)
    base = model if unwrap is None else unwrap()
    names = frozenset(inspect.signature(base.forward).parameters)
    if "past_key_values" not in names:
        raise ModelError(
            f"{type(base).__name__} cannot be used for generation here",
            why="its architecture keeps no key-value cache (past_key_values)",
            fix="use a transformer model; evaluation by loss, perplexity and token_accuracy works without generation",
        )
    return names


def _require_numbers(values: Tensor) -> None:
    if bool(values.isnan().any()):
        raise NonFiniteError(
            "the model gave NaN logits during generation",
            why="the most likely token of NaN is meaningless",
            fix="check the weights of the checkpoint; float32 (model.dtype) shows whether low precision is the cause",
        )

"""Decoding of one batch of token prompts: left padding, key-value cache, rows leave when they are done."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from codex_ml.errors import ModelError, NonFiniteError
from codex_ml.generation.sampling import Sampler


class Decoding:
    """A batch of prompts that grow by a token each step.

    Our own loop and not ``model.generate``: that one fills what a configuration leaves open from the model's own
    ``generation_config`` (repetition penalties, forced tokens), and it computes finished rows to the end.

    Parameters
    ----------
    model : nn.Module
        Causal language model in evaluation mode with a key-value cache, under ``torch.no_grad``.
    prompts : sequence of token id sequences
        None of them empty.
    samplers : sequence of Sampler or None
        One for each prompt; None takes the most likely token.
    pad_token_id : int
        Fills the left of shorter rows; its value is masked and cannot matter.

    Raises
    ------
    ModelError
        If the architecture keeps no key-value cache.
    """

    def __init__(
        self,
        model: nn.Module,
        prompts: Sequence[Sequence[int]],
        samplers: Sequence[Sampler | None],
        *,
        pad_token_id: int,
        device: torch.device,
    ) -> None:
        width = max(len(prompt) for prompt in prompts)
        input_ids = torch.full((len(prompts), width), pad_token_id, dtype=torch.int64)  # [batch, sequence]
        attention_mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(prompts):
            input_ids[row, width - len(prompt) :] = torch.tensor(prompt, dtype=torch.int64)
            attention_mask[row, width - len(prompt) :] = 1
        self._model = model
        self._accepted = _forward_parameters(model)
        self._samplers = samplers
        self._input_ids, self._attention_mask = input_ids.to(device), attention_mask.to(device)
        self._cache: Any = None
        # The prompt that each row of the shrinking batch belongs to.
        self._running = list(range(len(prompts)))

    def step(self) -> list[tuple[int, int]]:
        """Return the next token of each running row, after the number of its prompt.

        Raises
        ------
        NonFiniteError
            If the logits that decide a token are NaN.
        """
        if self._cache is not None:
            ones = self._attention_mask.new_ones(len(self._running), 1)
            self._attention_mask = torch.cat([self._attention_mask, ones], dim=-1)
        # Padding on the left must not move a row: its first token has position 0, as it had in training.
        position_ids = (self._attention_mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -self._input_ids.shape[1] :]
        arguments = {"position_ids": position_ids, "logits_to_keep": 1}  # of the prompt only the last logits are needed
        outputs = self._model(
            input_ids=self._input_ids,
            attention_mask=self._attention_mask,
            past_key_values=self._cache,
            use_cache=True,
            **{name: value for name, value in arguments.items() if name in self._accepted},
        )
        self._cache = outputs.past_key_values
        logits = outputs.logits[:, -1]  # [batch, vocabulary]
        best = logits.max(dim=-1)  # values and indices, [batch]
        _require_numbers(best.values)
        chosen: list[int] = best.indices.tolist()
        for row, index in enumerate(self._running):
            sampler = self._samplers[index]
            if sampler is not None:
                chosen[row] = sampler.choose(logits[row])
        self._input_ids = torch.tensor(chosen, device=self._input_ids.device)[:, None]
        return list(zip(self._running, chosen, strict=True))

    def keep(self, indices: Collection[int]) -> None:
        """Go on with these prompts only; what is left out costs nothing any more."""
        rows = [row for row, index in enumerate(self._running) if index in indices]
        if len(rows) == len(self._running):
            return
        selected = torch.tensor(rows, device=self._input_ids.device)
        self._running = [self._running[row] for row in rows]
        self._input_ids, self._attention_mask = self._input_ids[selected], self._attention_mask[selected]
        if self._cache is not None:
            self._cache.batch_select_indices(selected)


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

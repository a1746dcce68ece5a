"""Choice of the next token: greedy, sampling, stop strings."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from codex_ml.errors import ModelError, NonFiniteError, UserError

_LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class SamplingSettings:
    """What one request asks of the generator.

    Attributes
    ----------
    max_new_tokens : int
        Limit of the answer, in tokens; 0 gives an empty text.
    temperature : float
        Divides the logits; 0 takes the most likely token each time (greedy).
    top_k : int, optional
        Number of most likely tokens to sample from.
    top_p : float, optional
        Of those, only the fewest whose probabilities make up this share (nucleus sampling, Holtzman et al., "The
        Curious Case of Neural Text Degeneration", ICLR 2020); above 0, at most 1.
    stop : tuple of str
        The text ends before the first of these.
    seed : int
        Begins the row's own random numbers: with the same weights, prompt and settings the same text comes out,
        whatever else is in the batch.

    Raises
    ------
    UserError
        If a value is out of range.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 0:
            raise UserError(
                f"max_new_tokens is {self.max_new_tokens}",
                fix="it must be at least 0",
                code="GENERATION_PARAMETER_OUT_OF_RANGE",
            )
        if not 0.0 <= self.temperature < float("inf"):
            raise UserError(
                f"temperature is {self.temperature}",
                fix="take a number from 0 (greedy) upwards",
                code="GENERATION_PARAMETER_OUT_OF_RANGE",
            )
        if self.top_k is not None and self.top_k < 1:
            raise UserError(
                f"top_k is {self.top_k}",
                fix="it must be at least 1, or left out for no limit",
                code="GENERATION_PARAMETER_OUT_OF_RANGE",
            )
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise UserError(
                f"top_p is {self.top_p}",
                fix="it must be above 0 and at most 1, or left out for no limit",
                code="GENERATION_PARAMETER_OUT_OF_RANGE",
            )
        if not 0 <= self.seed <= _LARGEST_SEED:
            raise UserError(
                f"seed is {self.seed}",
                fix="take a whole number from 0 to 2^63 - 1",
                code="GENERATION_PARAMETER_OUT_OF_RANGE",
            )
        if "" in self.stop:
            raise UserError(
                "stop holds an empty text",
                why="it would end every answer at once",
                fix="leave it out",
                code="GENERATION_EMPTY_STOP",
            )


class Sampler:
    """Draws the tokens of one row from its own random numbers.

    Parameters
    ----------
    settings : SamplingSettings
        With a temperature above 0.
    """

    def __init__(self, settings: SamplingSettings) -> None:
        self._settings = settings
        # On the CPU whatever the device of the model is: its random numbers are the same on every machine.
        self._random = torch.Generator().manual_seed(settings.seed)

    def choose(self, logits: Tensor) -> int:
        """Draw a token by its probability.

        Parameters
        ----------
        logits : Tensor
            Of the next token, [vocabulary], on any device.

        Raises
        ------
        NonFiniteError
            If no probability can be made of them.
        """
        probabilities, token_ids = self.distribution(logits)
        cumulative = probabilities.cumsum(dim=0)
        # The place in the cumulative sum, not `multinomial`: one number a token, and a tiny difference between batches
        # moves the border between two tokens and nothing else.
        drawn = torch.rand((), generator=self._random, dtype=torch.float64) * cumulative[-1]
        place = int(torch.searchsorted(cumulative, drawn, right=True))
        return int(token_ids[min(place, len(token_ids) - 1)])

    def distribution(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities that can be drawn, highest first, in 64 bits, and the tokens that they belong to."""
        # Scaled from the highest on, so that a temperature next to nothing overflows nowhere.
        values = logits.detach().to("cpu", torch.float64)
        highest = values.max()
        if not bool(highest.isfinite()):
            raise NonFiniteError(
                f"the highest logit is {float(highest)} during generation",
                why="no probabilities can be made of that",
                fix="check the weights of the checkpoint; float32 (model.dtype) shows whether low precision is the "
                "cause",
                code="GENERATION_LOGITS_NOT_FINITE",
            )
        ordered, token_ids = torch.sort((values - highest) / self._settings.temperature, descending=True, stable=True)
        if self._settings.top_k is not None:
            ordered, token_ids = ordered[: self._settings.top_k], token_ids[: self._settings.top_k]
        probabilities = ordered.softmax(dim=0)
        if self._settings.top_p is not None and self._settings.top_p < 1.0:
            before = probabilities.cumsum(dim=0) - probabilities
            count = max(1, int((before < self._settings.top_p).sum()))
            probabilities, token_ids = probabilities[:count], token_ids[:count]
            probabilities = probabilities / probabilities.sum()
        return probabilities, token_ids


class StopStrings:
    """Looks for the first of some texts in one that comes in pieces, also across their borders.

    Parameters
    ----------
    texts : sequence of str
        None of them empty.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = tuple(texts)
        self._longest = max(map(len, self._texts), default=0)
        self._seen = ""
        self._shown = 0
        # No stop string begins before.
        self._from = 0
        self.found_at: int | None = None

    @property
    def length(self) -> int:
        """Characters seen, those behind a stop string too."""
        return len(self._seen)

    @property
    def beyond(self) -> str:
        """The stop string that was found and what followed it so far; empty where none was."""
        return "" if self.found_at is None else self._seen[self.found_at :]

    @property
    def found_length(self) -> int:
        """Length of the stop string that was found; of the longest where several begin there."""
        return max((len(text) for text in self._texts if self.beyond.startswith(text)), default=0)

    def feed(self, piece: str) -> str:
        """Take the next piece, and return what can no longer belong to a stop string; nothing once one was found."""
        self._seen += piece
        if self.found_at is not None:
            return ""
        places = [place for text in self._texts if (place := self._seen.find(text, self._from)) >= 0]
        if places:
            self.found_at = min(places)
            return self._show(self.found_at)
        self._from = max(self._from, len(self._seen) - self._longest + 1)
        return self._show(len(self._seen) - self._held())

    def pass_over(self, end: int, limit: int | None = None) -> str:
        """Take a stop string for part of the text, look for the next from a place on, and return what may be shown.

        Parameters
        ----------
        end : int
            Where the next stop string may begin.
        limit : int, optional
            Where the text ends; no further stop string is looked for then.
        """
        self.found_at = None
        if limit is not None:
            return self._show(limit)
        self._from = end
        return self.feed("")

    def close(self) -> str:
        """Return what was kept back: nothing more comes that could make a stop string of it."""
        return "" if self.found_at is not None else self._show(len(self._seen))

    def _held(self) -> int:
        """Return the length of the longest end of the text that a stop string could begin with."""
        for length in range(min(self._longest - 1, len(self._seen) - max(self._shown, self._from)), 0, -1):
            if any(text.startswith(self._seen[-length:]) for text in self._texts):
                return length
        return 0

    def _show(self, end: int) -> str:
        shown = self._seen[self._shown : end]
        self._shown = max(self._shown, end)
        return shown


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
        """Continue with these prompts only; the others cost no further computation."""
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
            code="GENERATION_MODEL_UNSUPPORTED",
        )
    return names


def _require_numbers(values: Tensor) -> None:
    if bool(values.isnan().any()):
        raise NonFiniteError(
            "the model gave NaN logits during generation",
            why="the most likely token of NaN is meaningless",
            fix="check the weights of the checkpoint; float32 (model.dtype) shows whether low precision is the cause",
            code="GENERATION_LOGITS_NOT_FINITE",
        )

"""How the next token is chosen: settings of one request, and the sampler that follows them for one row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from codex_ml.errors import NonFiniteError, UserError

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
        Only the so many most likely tokens can be drawn.
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
            raise UserError(f"max_new_tokens is {self.max_new_tokens}", fix="it must be at least 0")
        if not 0.0 <= self.temperature < float("inf"):
            raise UserError(f"temperature is {self.temperature}", fix="take a number from 0 (greedy) upwards")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k is {self.top_k}", fix="it must be at least 1, or left out for no limit")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise UserError(f"top_p is {self.top_p}", fix="it must be above 0 and at most 1, or left out for no limit")
        if not 0 <= self.seed <= _LARGEST_SEED:
            raise UserError(f"seed is {self.seed}", fix="take a whole number from 0 to 2^63 - 1")
        if "" in self.stop:
            raise UserError("stop holds an empty text", why="it would end every answer at once", fix="leave it out")


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

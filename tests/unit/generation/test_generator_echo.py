"""A model that repeats its prompt, and a secret in the prompt: neither filter lets it into an answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codex_ml.generation.generator import TextGenerator
from codex_ml.generation.requests import GenerationRequest
from codex_ml.generation.sampling import SamplingSettings
from codex_ml.safety.filters import SafetyFilters
from codex_ml.safety.policy import load_policy
from codex_ml.safety.streaming import StreamFilter

pytestmark = pytest.mark.safety

MAIL = "ann.miller" + "@" + "firm-mail.de"


@dataclass
class Said:
    """What stands in for a key-value cache: the prompt's tokens and how many of them were repeated."""

    prompt: Tensor
    repeated: int = 0
    outputs: list[Any] = field(default_factory=list)

    def batch_select_indices(self, rows: Tensor) -> None:
        """Keep some rows."""
        self.prompt = self.prompt[rows]


@dataclass
class Answer:
    """What a model returns."""

    logits: Tensor
    past_key_values: Said


class Echo(nn.Module):
    """Says its prompt again, token by token."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.vocabulary = vocabulary
        self.seen: list[list[int]] = []

    def forward(self, input_ids: Tensor, past_key_values: Said | None, **_: Any) -> Answer:
        """Return logits of the prompt's next token, ``[batch, 1, vocabulary]``."""
        if past_key_values is None:
            past_key_values = Said(input_ids)
            self.seen += input_ids.tolist()
        chosen = past_key_values.prompt[:, past_key_values.repeated % past_key_values.prompt.shape[1]]
        past_key_values.repeated += 1
        logits = torch.zeros(len(chosen), 1, self.vocabulary)
        logits[torch.arange(len(chosen)), 0, chosen] = 1
        return Answer(logits, past_key_values)


@pytest.mark.parametrize("filtered_side", ["prompt", "output", "both", "none"])
@pytest.mark.parametrize("streaming", [False, True])
def test_echoed_secret_any_filter_keeps_it_out_of_the_answer(
    tiny_tokenizer: Any, filtered_side: str, streaming: bool
) -> None:
    """Each filter alone suffices; without both the secret would come, so the test sees what it looks for."""
    filters = SafetyFilters(load_policy("default"))
    ids = tuple(tiny_tokenizer.encode(f"write to {MAIL} today", add_special_tokens=False))
    model = Echo(len(tiny_tokenizer))
    on_output = filtered_side in ("output", "both")
    generator = TextGenerator(
        model,
        tiny_tokenizer,
        filter_prompt=filters.apply if filtered_side in ("prompt", "both") else None,
        filter_output=filters.apply if on_output else None,
        open_output_stream=(lambda: StreamFilter(filters)) if on_output else None,
        stop_token_ids=(),
    )
    request = GenerationRequest(ids, SamplingSettings(len(ids)))
    if streaming:
        pieces = list(generator.stream([request]))
        text, answer = "".join(piece.text for piece in pieces), pieces[-1].generation
    else:
        answer = generator.generate([request])[0]
        text = answer.text
    assert answer is not None
    assert (MAIL in text) == (filtered_side == "none")
    if filtered_side != "none":
        assert "[REDACTED:email]" in text
        assert MAIL not in tiny_tokenizer.decode(list(answer.token_ids))
    if filtered_side in ("prompt", "both"):
        assert MAIL not in tiny_tokenizer.decode(model.seen[0])

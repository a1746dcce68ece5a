"""A model that repeats its prompt, and a secret in the prompt: neither filter lets it into an answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codex_ml.generation.decoding import SamplingSettings
from codex_ml.generation.generator import TextGenerator
from codex_ml.generation.requests import Generation, GenerationRequest
from codex_ml.safety.filters import SafetyFilters
from codex_ml.safety.policy import load_policy
from codex_ml.safety.streaming import StreamFilter

pytestmark = pytest.mark.safety

MAIL = "ann.miller" + "@" + "firm-mail.de"
SAID = f"write to {MAIL} today or call us tomorrow in the morning, we are here at nine"
FILTERS = SafetyFilters(load_policy("default"))


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


def answer(tokenizer: Any, tokens: int | None, stop: tuple[str, ...], *, streaming: bool) -> Generation:
    """Return the answer of a filtered generator whose model produces `SAID`."""
    filters = FILTERS
    ids = tuple(tokenizer.encode(SAID, add_special_tokens=False))
    generator = TextGenerator(
        Echo(len(tokenizer)),
        tokenizer,
        filter_output=filters.apply,
        open_output_stream=lambda: StreamFilter(filters),
        stop_token_ids=(),
    )
    request = GenerationRequest(ids, SamplingSettings(len(ids) if tokens is None else tokens, stop=stop))
    if not streaming:
        return generator.generate([request])[0]
    pieces = list(generator.stream([request]))
    last = pieces[-1].generation
    assert last is not None
    assert "".join(piece.text for piece in pieces) == last.text
    return last


@pytest.mark.parametrize("streaming", [False, True])
def test_answer_any_limit_shows_no_part_of_an_address(tiny_tokenizer: Any, streaming: bool) -> None:
    """With a growing limit the answer is the text before the address, then its marker, and never a part of it."""
    count = len(tiny_tokenizer.encode(SAID, add_special_tokens=False))
    before = SAID.index(MAIL)
    whole = SAID.replace(MAIL, "[REDACTED:email]")
    for tokens in range(1, count, 2):
        result = answer(tiny_tokenizer, tokens, (), streaming=streaming)
        assert result.finish_reason == "length"
        assert result.token_count == tokens
        assert whole.startswith(result.text) or SAID[:before].startswith(result.text), result.text


@pytest.mark.parametrize("streaming", [False, True])
def test_answer_stop_string_inside_an_address_is_ignored(tiny_tokenizer: Any, streaming: bool) -> None:
    """A stop string gives the same text and finish reason whether or not it is part of the address."""
    plain = answer(tiny_tokenizer, None, (), streaming=streaming)
    assert "[REDACTED:email]" in plain.text
    for start in range(len(MAIL)):
        for length in (1, 4):
            stop = MAIL[start : start + length]
            if SAID.count(stop) > 1 or len(stop) < length:
                continue
            result = answer(tiny_tokenizer, None, (stop,), streaming=streaming)
            assert (result.text, result.finish_reason) == (plain.text, plain.finish_reason), stop


@pytest.mark.parametrize("streaming", [False, True])
def test_answer_stop_string_after_an_address_still_stops(tiny_tokenizer: Any, streaming: bool) -> None:
    """After an ignored stop string the next one ends the answer."""
    result = answer(tiny_tokenizer, None, ("@", "or call"), streaming=streaming)
    assert (result.text, result.finish_reason) == ("write to [REDACTED:email] today ", "stop")
    assert answer(tiny_tokenizer, None, ("to ",), streaming=streaming).text == "write "


@pytest.mark.parametrize("streaming", [False, True])
def test_answer_limit_and_stop_string_together_show_nothing(tiny_tokenizer: Any, streaming: bool) -> None:
    """A limit directly after a stop string in the address does not shorten the filtered text."""
    count = len(tiny_tokenizer.encode(SAID, add_special_tokens=False))
    for tokens in range(1, count, 2):
        text = answer(tiny_tokenizer, tokens, ("@",), streaming=streaming).text
        assert "ann" not in text
        assert "firm" not in text

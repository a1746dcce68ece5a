"""Streams and rows of different settings side by side, against the same requests answered alone and at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from codex_ml.generation.decoding import SamplingSettings
from codex_ml.generation.generator import TextGenerator
from codex_ml.generation.requests import Generation, GenerationRequest, StreamedPiece

TEXTS = ("The night nurse", "Two trains leave the valley before the rain begins", "How", "ünï")
SETTINGS = (
    SamplingSettings(12),
    SamplingSettings(20, temperature=0.8, top_k=50, seed=5),
    SamplingSettings(7, temperature=1.3, top_p=0.9, seed=6),
    SamplingSettings(0),
)


class Marked:
    """A filter of a stream that holds words back and replaces one of them; it may also end the stream."""

    def __init__(self, forbidden: str, ends_with: str = "redact") -> None:
        self.action = "keep"
        self._forbidden, self._ends_with = forbidden, ends_with
        self._held = ""
        self._findings: list[str] = []

    def feed(self, piece: str) -> str:
        """Give out what cannot be a part of the word."""
        self._held += piece
        if self._forbidden in self._held:
            self.action = self._ends_with
            self._findings.append("rule-1")
            self._held = self._held.replace(self._forbidden, "[X]")
        keep = max(0, len(self._held) - len(self._forbidden) + 1)
        shown, self._held = self._held[:keep], self._held[keep:]
        return shown

    def close(self) -> str:
        """Give out the rest."""
        shown, self._held = self._held, ""
        return shown

    def take_findings(self) -> Sequence[Any]:
        """Return what was found."""
        found, self._findings = self._findings, []
        return found


@pytest.fixture(scope="module")
def model(tiny_llama_directory: Path) -> nn.Module:
    """Return the tiny model."""
    from transformers import AutoModelForCausalLM

    model: nn.Module = AutoModelForCausalLM.from_pretrained(tiny_llama_directory)
    return model


@pytest.fixture(scope="module")
def requests(tiny_tokenizer: Any) -> list[GenerationRequest]:
    """Return prompts of different lengths with different settings."""
    return [
        GenerationRequest(tuple(tiny_tokenizer.encode(text, add_special_tokens=False)), settings)
        for text, settings in zip(TEXTS, SETTINGS, strict=True)
    ]


def collected(pieces: Sequence[StreamedPiece]) -> tuple[dict[int, str], dict[int, Generation]]:
    """Return the joined texts and the results; after its result a row says nothing more."""
    texts: dict[int, str] = defaultdict(str)
    results: dict[int, Generation] = {}
    for piece in pieces:
        assert piece.index not in results
        texts[piece.index] += piece.text
        if piece.generation is not None:
            results[piece.index] = piece.generation
    return texts, results


def test_stream_texts_are_those_of_generate(
    model: nn.Module, tiny_tokenizer: Any, requests: list[GenerationRequest]
) -> None:
    """Greedy and sampled rows, each with its limit, in one batch: joined, the pieces are the text."""
    generator = TextGenerator(model, tiny_tokenizer, stop_token_ids=())
    texts, results = collected(list(generator.stream(requests)))
    expected = generator.generate(requests)
    assert [results[index] for index in range(len(requests))] == expected
    assert [texts[index] for index in range(len(requests))] == [answer.text for answer in expected]
    assert sum(1 for piece in generator.stream(requests) if piece.text) > 10


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_generate_sampled_row_is_the_same_whatever_stands_beside_it(
    model: nn.Module, tiny_tokenizer: Any, requests: list[GenerationRequest], batch_size: int
) -> None:
    """Each row has random numbers of its own, so neither order nor batch changes a text."""
    generator = TextGenerator(model, tiny_tokenizer, stop_token_ids=())
    alone = [generator.generate([request])[0] for request in requests]
    assert generator.generate(requests, batch_size=batch_size) == alone
    assert generator.generate(requests[::-1], batch_size=batch_size) == alone[::-1]


def test_generate_greedy_tokens_are_the_most_likely_of_one_pass_over_the_answer(
    model: nn.Module, tiny_tokenizer: Any, requests: list[GenerationRequest]
) -> None:
    """Teacher forcing: given prompt and answer at once, the model predicts each token of the answer."""
    (answer,) = TextGenerator(model, tiny_tokenizer, stop_token_ids=()).generate(requests[:1])
    prompt = requests[0].prompt_ids
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *answer.token_ids]])).logits[0]
    assert tuple(logits.argmax(dim=-1)[len(prompt) - 1 : -1].tolist()) == answer.token_ids


def test_generate_stop_string_ends_the_text_before_it_in_both_forms(
    model: nn.Module, tiny_tokenizer: Any, requests: list[GenerationRequest]
) -> None:
    """A stop string in the middle of what would be said; its tokens were computed and are not given out."""
    generator = TextGenerator(model, tiny_tokenizer, stop_token_ids=())
    (whole,) = generator.generate(requests[:1])
    stop = whole.text[6:9]
    request = GenerationRequest(requests[0].prompt_ids, SamplingSettings(12, stop=("never said", stop)))
    (answer,) = generator.generate([request])
    assert (answer.text, answer.finish_reason) == (whole.text[: whole.text.index(stop)], "stop")
    assert 0 < answer.token_count <= whole.token_count
    assert answer.text.startswith(tiny_tokenizer.decode(list(answer.token_ids)))
    assert answer.token_ids == whole.token_ids[: len(answer.token_ids)]
    texts, results = collected(list(generator.stream([request])))
    assert texts[0] == answer.text
    assert results[0] == answer


def test_stream_cancelled_row_ends_and_the_others_go_on(
    model: nn.Module, tiny_tokenizer: Any, requests: list[GenerationRequest]
) -> None:
    """Who goes away after four tokens gets no fifth; nobody else notices."""
    generator = TextGenerator(model, tiny_tokenizer, stop_token_ids=())
    heard: list[StreamedPiece] = []
    stream = generator.stream(
        requests, cancelled=lambda index: index == 1 and sum(piece.index == 1 for piece in heard) >= 4
    )
    for piece in stream:
        heard.append(piece)
    texts, results = collected(heard)
    assert (results[1].finish_reason, results[1].token_count) == ("cancelled", 4)
    expected = generator.generate(requests)
    assert expected[1].text.startswith(texts[1])
    assert [results[index] for index in (0, 2, 3)] == [expected[index] for index in (0, 2, 3)]


def test_stream_all_cancelled_before_the_first_token_computes_nothing(
    model: nn.Module, tiny_tokenizer: Any, requests: list[GenerationRequest]
) -> None:
    """No pass over the model; every request has its result."""
    passes: list[None] = []
    handle = model.register_forward_pre_hook(lambda *_: passes.append(None))
    generator = TextGenerator(model, tiny_tokenizer, stop_token_ids=())
    _, results = collected(list(generator.stream(requests[:2], cancelled=lambda _index: True)))
    handle.remove()
    assert passes == []
    assert {answer.finish_reason for answer in results.values()} == {"cancelled"}


@pytest.mark.safety
def test_stream_filter_changes_what_is_shown_and_takes_the_tokens_away(
    model: nn.Module, tiny_tokenizer: Any, requests: list[GenerationRequest]
) -> None:
    """A word over the border of two tokens is replaced; the tokens would still spell it."""
    (whole,) = TextGenerator(model, tiny_tokenizer, stop_token_ids=()).generate(requests[:1])
    word = whole.text[5:11]
    generator = TextGenerator(model, tiny_tokenizer, stop_token_ids=(), open_output_stream=lambda: Marked(word))
    texts, results = collected(list(generator.stream(requests[:1])))
    assert texts[0] == results[0].text == whole.text.replace(word, "[X]")
    assert (results[0].token_ids, results[0].redacted, results[0].output_findings[0]) == ((), True, "rule-1")
    assert results[0].token_count == whole.token_count


@pytest.mark.safety
@pytest.mark.parametrize("action", ["block", "drop", "something new"])
def test_stream_filter_that_blocks_ends_the_answer(
    model: nn.Module, tiny_tokenizer: Any, requests: list[GenerationRequest], action: str
) -> None:
    """What is neither keep nor redact lets nothing more through, known action or not."""
    (whole,) = TextGenerator(model, tiny_tokenizer, stop_token_ids=()).generate(requests[:1])
    word = whole.text[5:11]
    generator = TextGenerator(model, tiny_tokenizer, stop_token_ids=(), open_output_stream=lambda: Marked(word, action))
    texts, results = collected(list(generator.stream(requests[:1])))
    assert results[0].finish_reason == "blocked"
    assert word not in texts[0]
    assert len(texts[0]) < len(whole.text)
    assert results[0].token_ids == ()


@pytest.mark.safety
def test_stream_without_a_filter_for_streams_is_refused(
    model: nn.Module, tiny_tokenizer: Any, requests: list[GenerationRequest]
) -> None:
    """An output filter that would be passed by is an error of the program."""
    generator = TextGenerator(model, tiny_tokenizer, filter_output=lambda text: pytest.fail(text))
    with pytest.raises(ValueError, match="no form for streams"):
        next(generator.stream(requests))


def test_stream_reader_is_not_left_without_gradients(
    model: nn.Module, tiny_tokenizer: Any, requests: list[GenerationRequest]
) -> None:
    """Between two pieces the caller's own mode is in force, and that of the model too."""
    model.train()
    stream = TextGenerator(model, tiny_tokenizer, stop_token_ids=()).stream(requests)
    next(stream)
    next(stream)
    assert torch.is_grad_enabled()
    assert model.training
    stream.close()
    model.eval()

"""The policy on tokenized prompts: special tokens stay, text never becomes one, what stays unclean is blocked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest

from codex_ml.generation.filters import filter_prompt_tokens

pytestmark = pytest.mark.safety


@dataclass(frozen=True)
class Filtered:
    """The answer of a filter."""

    text: str
    findings: tuple[str, ...]
    action: str


def numbers_out(text: str) -> Filtered:
    """Redact every number of two digits or more."""
    redacted = re.sub(r"\d\d+", "[N]", text)
    return Filtered(redacted, ("number",) if redacted != text else (), "redact" if redacted != text else "keep")


def ids(tokenizer: Any, text: str) -> list[int]:
    """Tokenize with special tokens read out of the text, as a chat template does."""
    return tokenizer.encode(text, add_special_tokens=False)


def test_filter_prompt_clean_prompt_keeps_its_very_tokens(tiny_tokenizer: Any) -> None:
    """Nothing found: the tokens are not encoded again, even where their text has a shorter encoding."""
    odd = [*ids(tiny_tokenizer, "n"), *ids(tiny_tokenizer, "u"), *ids(tiny_tokenizer, "rse")]
    assert filter_prompt_tokens(tiny_tokenizer, odd, numbers_out).token_ids == tuple(odd)


def test_filter_prompt_redacted_prompt_keeps_its_special_tokens(tiny_tokenizer: Any) -> None:
    """Only the ordinary text changes; the markers of the chat template are the same tokens."""
    prompt = ids(tiny_tokenizer, "<|system|>be kind<|user|>call 4711 now<|assistant|>")
    filtered = filter_prompt_tokens(tiny_tokenizer, prompt, numbers_out)
    assert filtered.token_ids == tuple(ids(tiny_tokenizer, "<|system|>be kind<|user|>call [N] now<|assistant|>"))
    assert filtered.findings == ("number",)


def test_filter_prompt_spelt_special_token_stays_ordinary_text(tiny_tokenizer: Any) -> None:
    """A user who writes an end token gets no end token, also when the prompt has to be encoded again."""
    spelt = tiny_tokenizer("<|end|> 4711", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert tiny_tokenizer.eos_token_id not in spelt
    filtered = filter_prompt_tokens(tiny_tokenizer, [*ids(tiny_tokenizer, "<|user|>"), *spelt], numbers_out)
    assert filtered.token_ids is not None
    assert tiny_tokenizer.eos_token_id not in filtered.token_ids
    assert tiny_tokenizer.decode(list(filtered.token_ids)) == "<|user|><|end|> [N]"


def test_filter_prompt_pattern_across_a_special_token_is_blocked(tiny_tokenizer: Any) -> None:
    """What the pieces do not show, but the whole does, cannot be redacted piece by piece."""

    def across(text: str) -> Filtered:
        redacted = text.replace("a<|end|>b", "[X]")
        return Filtered(redacted, ("across",), "redact")

    filtered = filter_prompt_tokens(tiny_tokenizer, ids(tiny_tokenizer, "a<|end|>b"), across)
    assert (filtered.token_ids, filtered.findings) == (None, ("across",))


def test_filter_prompt_piece_that_the_policy_blocks_blocks_the_prompt(tiny_tokenizer: Any) -> None:
    """A piece that is let not through at all takes the whole prompt with it."""

    def block_pieces(text: str) -> Filtered:
        return Filtered("[N]", (), "redact" if "<|user|>" in text else "block")

    assert filter_prompt_tokens(tiny_tokenizer, ids(tiny_tokenizer, "<|user|>4711"), block_pieces).token_ids is None

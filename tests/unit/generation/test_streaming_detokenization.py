"""Text token by token against the text of all tokens at once, for the kinds of tokenizers that differ in it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from codex_ml.generation.streaming import Detokenizer, decode


def byte_level() -> PreTrainedTokenizerFast:
    """Return a tokenizer with a token for each byte and a few words, as GPT-2's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<|end|>", *alphabet, "Ġthe", "ing", "é"]
    tokenizer = Tokenizer(models.BPE(vocab={word: index for index, word in enumerate(words)}, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


def sentencepiece() -> PreTrainedTokenizerFast:
    """Return a tokenizer that marks spaces by a letter, spells the rest by bytes and drops the first space."""
    words = ["<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁the", "▁", "a", "ing", "▁€", "."]
    tokenizer = Tokenizer(
        models.BPE(vocab={word: index for index, word in enumerate(words)}, merges=[], byte_fallback=True)
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


TOKENIZERS = {"byte level": byte_level(), "sentencepiece": sentencepiece()}


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(data=st.data())
def test_feed_pieces_make_up_the_text_of_all_tokens(kind: str, data: Any) -> None:
    """Words, lone bytes and special tokens in any order."""
    tokenizer = TOKENIZERS[kind]
    token_ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=25))
    detokenizer = Detokenizer(tokenizer)
    pieces = [detokenizer.feed(token_id) for token_id in token_ids]
    together, at_once = "".join(pieces) + detokenizer.close(), decode(tokenizer, token_ids)
    if kind == "byte level" or "\N{REPLACEMENT CHARACTER}" not in at_once:
        assert together == at_once
    else:
        # That decoder gives up a whole run of bytes for one that is wrong, here also those that were given out before.
        given_out = iter(together)
        assert all(letter in given_out for letter in at_once.replace("\N{REPLACEMENT CHARACTER}", ""))


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(text=st.text(max_size=12))
def test_feed_bytes_of_a_text_never_give_half_a_character(kind: str, text: str) -> None:
    """Spelt byte by byte, a text comes character by character."""
    tokenizer = TOKENIZERS[kind]
    if kind == "byte level":
        spelt = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
        token_ids = [tokenizer.convert_tokens_to_ids(letter) for part, _ in spelt for letter in part]
    else:
        token_ids = [tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in text.encode()]
    detokenizer = Detokenizer(tokenizer)
    pieces = [detokenizer.feed(token_id) for token_id in token_ids]
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert "".join(pieces) + detokenizer.close() == decode(tokenizer, token_ids)

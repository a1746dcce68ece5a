"""Encoding and decoding: limits on lengths and runs, and panics that become errors without terminal output."""

from __future__ import annotations

import os
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from codex_ml.data.tokenization.encoding import (
    MAX_DIGIT_RUN,
    MAX_SPACE_RUN,
    MAX_TEXT_CHARACTERS,
    MAX_WORD_RUN,
    check_text,
    decode,
    encode,
)
from codex_ml.errors import ModelError

HARD_TEXT = "a" * 40 + "b"


@pytest.fixture
def panicking() -> PreTrainedTokenizerFast:
    """Return an unchecked tokenizer whose expression panics on `HARD_TEXT`."""
    backend = Tokenizer(models.WordLevel({"<eos>": 0, "a": 1, "b": 2, "<unk>": 3}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"(a+)+$|\w+|."), "isolated", invert=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", unk_token="<unk>")


class _Broken:
    """Tokenizer whose decoder panics; it encodes `HARD_TEXT` to cause the panic."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer

    def decode(self, *_arguments: Any, **_options: Any) -> str:
        return str(self._tokenizer(HARD_TEXT))


@pytest.mark.parametrize(
    "text",
    [
        "word " * 2_000_000,
        "a" * MAX_WORD_RUN,
        ("7" * MAX_DIGIT_RUN + ".") * 20,
        "a" + " " * MAX_SPACE_RUN + "a",
        "first line\n" * 200_000,
        "\u4e2d\u6587\u3002" * 500_000,
    ],
)
def test_check_text_long_documents_pass(text: str) -> None:
    """Millions of ordinary words, and runs up to the limit."""
    check_text(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" " * 12_000_000 + "x", "run of white space"),
        ("a" + "\n" * (MAX_SPACE_RUN + 1), "run of white space"),
        *(("a" * start + " " * (MAX_SPACE_RUN + 1) + "a", "run of white space") for start in (1, 99_999, 100_001)),
        ("a" * (MAX_WORD_RUN + 1), "without white space"),
        ("a" + "7" * (MAX_DIGIT_RUN + 1), "run of digits"),
        (" a" * 3 + "b" * MAX_WORD_RUN, "without white space"),
        ("word " * (MAX_TEXT_CHARACTERS // 5 + 1), "too long for a tokenizer"),
    ],
)
def test_check_text_beyond_a_bound_is_refused_by_length(text: str, words: str) -> None:
    """The error contains lengths and no part of the text."""
    with pytest.raises(ValueError, match=words) as caught:
        check_text(text)
    assert len(str(caught.value)) < 200


def test_encode_panic_is_an_error_without_text_or_traceback(panicking: PreTrainedTokenizerFast, capfd: Any) -> None:
    """The Rust message does not reach the terminal, and the tokenizer works afterwards."""
    with pytest.raises(ValueError, match="fails on this text of 41 characters") as caught:
        encode(panicking, HARD_TEXT)
    assert caught.value.__cause__ is None
    assert capfd.readouterr() == ("", "")
    assert encode(panicking, "a") == [1]
    os.write(2, b"still there")
    assert capfd.readouterr().err == "still there"


def test_decode_panic_is_an_error_of_the_model(panicking: PreTrainedTokenizerFast, capfd: Any) -> None:
    """The model produced the ids, so no input text is at fault."""
    broken: Any = _Broken(panicking)
    with pytest.raises(ModelError, match="cannot decode"):
        decode(broken, [1, 2])
    assert capfd.readouterr() == ("", "")

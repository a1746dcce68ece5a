"""The only place where text goes into a tokenizer and token ids come out as text: bounded, and safe from its panics."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from codex_ml.errors import ModelError
from codex_ml.native_calls import NativePanicError, native_call

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The expressions of Llama 3, GPT-2 and Qwen 2 panic on 10 to 12 million spaces ("retry-limit-in-match over", a bound of
# ten million steps in Oniguruma), and one that looks at each run from every start takes the square of its length.
MAX_TEXT_CHARACTERS = 16 << 20
MAX_SPACE_RUN = 100_000
MAX_WORD_RUN = 2_000_000
# Some tokenizers group digits from the right, which takes the square of the length of a number.
MAX_DIGIT_RUN = 10_000
_SPACE, _WORD, _DIGITS = re.compile(r"\s+"), re.compile(r"\S+"), re.compile(r"\d+")


def check_text(text: str) -> None:
    """Refuse a text that a tokenizer may not survive: by its length, and by its longest run of one kind.

    Raises
    ------
    ValueError
        With lengths only, never the text.
    """
    if len(text) <= MAX_DIGIT_RUN:
        return
    if len(text) > MAX_TEXT_CHARACTERS:
        raise ValueError(
            f"the text is too long for a tokenizer (got {len(text)} characters, expected at most {MAX_TEXT_CHARACTERS})"
        )
    for kind, expression, bound in (
        ("of white space", _SPACE, MAX_SPACE_RUN),
        ("without white space", _WORD, MAX_WORD_RUN),
        ("of digits", _DIGITS, MAX_DIGIT_RUN),
    ):
        length = _run_beyond(text, expression, bound)
        if length:
            raise ValueError(
                f"the text has a run {kind} that is too long for a tokenizer (got {length} characters, "
                f"expected at most {bound})"
            )


def _run_beyond(text: str, expression: re.Pattern[str], bound: int) -> int:
    """Return the length of a run that is longer than the bound; 0 where there is none.

    Such a run takes in a place that is a multiple of the bound, so nothing else of the text is looked at.
    """
    for place in range(0, len(text), bound):
        after = _length_at(expression, text, place)
        if after:
            length = after + _length_at(expression, text[max(0, place - bound) : place][::-1], 0)
            if length > bound:
                return length
    return 0


def _length_at(expression: re.Pattern[str], text: str, place: int) -> int:
    found = expression.match(text, place)
    return 0 if found is None else found.end() - place


def encode(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    add_special_tokens: bool = False,
    split_special_tokens: bool = False,
) -> list[int]:
    """Return the ids of a text.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Makes them.
    text : str
        Within the bounds of `check_text`.
    add_special_tokens : bool
        Whether the tokenizer adds those of its post-processor.
    split_special_tokens : bool
        Whether special tokens that the text spells are read as ordinary text.

    Raises
    ------
    ValueError
        If the text is beyond the bounds, or the tokenizer panics on it; with its length only.
    """
    check_text(text)
    try:
        with native_call():
            encoded = tokenizer(
                text,
                add_special_tokens=add_special_tokens,
                split_special_tokens=split_special_tokens,
                return_attention_mask=False,
                verbose=False,  # the library would warn of long texts; their length is checked and counted here
            )
    except NativePanicError:
        raise ValueError(f"the tokenizer fails on this text of {len(text)} characters") from None
    return [int(index) for index in encoded["input_ids"]]


def decode(
    tokenizer: PreTrainedTokenizerBase,
    token_ids: Sequence[int],
    *,
    skip_special_tokens: bool = False,
) -> str:
    """Return ids as text, as the model sees it: without cleaning up spaces.

    Raises
    ------
    ModelError
        If the tokenizer panics on them.
    """
    try:
        with native_call():
            return str(
                tokenizer.decode(
                    list(token_ids),
                    skip_special_tokens=skip_special_tokens,
                    clean_up_tokenization_spaces=False,
                )
            )
    except NativePanicError:
        raise ModelError(
            "model: the tokenizer cannot decode",
            why=f"its native library panics on {len(token_ids)} token ids",
            fix="copy tokenizer.json again from its source",
        ) from None
